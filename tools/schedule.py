"""Learning rates by step. No dependency, so that results can be read without torch."""

import itertools

from tools.errors import UserError


def parse_schedule(text: str) -> list[tuple[int, float]]:
    """Read "rate[,step,rate]*" as pairs of a step and the rate from it on, the first from step 0.

    Raises:
        UserError: anything else, rates below zero, steps that do not increase.
    """
    values = text.split(",")
    try:
        steps = [0, *(int(value) for value in values[1::2])]
        rates = [float(value) for value in values[::2]]
    except ValueError:
        steps, rates = [], []
    increasing = all(first < second for first, second in itertools.pairwise(steps))
    if not rates or len(steps) != len(rates) or not increasing or not all(0 <= rate < float("inf") for rate in rates):
        raise UserError(
            "--learning-rate-schedule: expected rate[,step,rate]* with increasing steps, such as 0.02,8000,0.004, got "
            f"{text!r}"
        )
    return list(zip(steps, rates, strict=True))


def learning_rate(step: int, *, initial: float, decay: float, delta: int, schedule: str | None) -> float:
    """Return the learning rate of a step.

    Args:
        initial: the rate at step 0, when there is no schedule.
        decay: steps in which the rate halves, hyperbolically: initial / (t / decay + 1); not positive: constant.
        delta: t is the step rounded down to a multiple of this.
        schedule: see `parse_schedule`; it replaces all of the above.
    """
    if schedule is not None:
        return [rate for start, rate in parse_schedule(schedule) if start <= step][-1]
    return initial / (step // delta * delta / decay + 1) if decay > 0 else initial
