"""A grid of a few seconds, with all that a large one has: to see that everything works here."""

from collections.abc import Iterator

from experiments.config import RunConfig
from experiments.grids.iclr21 import MomentumGrid, compare

DIGITS = {
    "dataset": "digits",
    "nb_workers": 11,
    "batch_size": 25,
    "learning_rate": 0.1,
    "nb_steps": 100,
    "evaluation_delta": 10,
    "nb_for_study_past": 25,
}


class Smoke(MomentumGrid, name="smoke"):
    """Momentum at the update and at the workers, on the digits."""

    title = "Worker momentum on the 8×8 digits"
    seeds = "1-3"

    @classmethod
    def experiments(cls) -> Iterator[tuple[str, RunConfig]]:
        yield from compare(DIGITS, 4, ["krum", "median"], "lr_0.1", "")
        yield from compare(DIGITS, 2, ["krum", "bulyan"], "lr_0.1", "")
