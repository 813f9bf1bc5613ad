"""One peer of `benchmarks/secure_aggregation.py`, as a process: averages a random model, prints what it measured.

`--die-at PHASE --token PATH` makes the first peer that reaches the phase kill itself, as if its machine had failed.
"""

import argparse
import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from peers.secure_aggregation import AggregationError, PrivacyPreservingAggregator
from peers.secure_aggregation.attempt import Attempt
from tools.program import exit_status

SHAPES = {
    "conv.weight": (20, 1, 5, 5),
    "conv.bias": (20,),
    "hidden.weight": (1000, 1200),
    "hidden.bias": (1000,),
    "out.weight": (98, 1000),
    "out.bias": (98,),
    "rest": (1392,),
}
"""1,301,010 parameters, with an integer counter beside them."""
PHASES = ("assigned", "confirmed", "shared", "actor", "summed", "sealed", "ready", "result")


def model(seed: int) -> dict[str, np.ndarray]:
    """Return a peer's model, which everybody can make again."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    return arrays | {"counter": np.array(seed)}


def peak_mib() -> float:
    """Return the most memory that this process has had at a time."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def has_delivered(attempt: Attempt, level: int) -> bool:
    """Return whether others have all that a peer gives at a level."""
    numbers = [group.number for group in attempt.groups.values() if group.level == level]
    return level in attempt._handed_out and not any(attempt._undelivered[number] for number in numbers)


def has_carried_up(attempt: Attempt) -> bool:
    """Return whether others have all that a peer gives, up to the last level at which it takes part."""
    return has_delivered(attempt, attempt.assignment.groups[-1].level)


def die_at(phase: str, token: Path) -> None:
    """Have the first peer that reaches a phase of a round, in any process, killed there."""

    def die() -> None:
        with contextlib.suppress(FileExistsError), token.open("x") as file:
            file.write(repr(time.time()))
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def before(method: str, when: Callable[..., bool] = lambda *_: True) -> None:
        original = getattr(Attempt, method)

        def patched(self: Attempt, *args: Any) -> Any:
            if when(self, *args):
                die()
            return original(self, *args)

        setattr(Attempt, method, patched)

    def after(method: str, when: Callable[[Attempt], bool]) -> None:
        original = getattr(Attempt, method)

        def patched(self: Attempt, *args: Any) -> Any:
            value = original(self, *args)
            if when(self):
                die()
            return value

        setattr(Attempt, method, patched)

    if phase == "assigned":
        before("start")
    elif phase == "confirmed":
        before("_hand_out", lambda _, group, *__: group.level == 0)
    elif phase == "shared":  # a participant who is no actor, after its shares are acknowledged
        after("delivered", lambda attempt: not attempt._sums and has_delivered(attempt, level=0))
    elif phase == "actor":  # an actor, before it has all shares
        after("handle", lambda attempt: any(len(total.awaited) == 1 for total in attempt._sums.values()))
    elif phase == "summed":  # an actor but none of the root's, after all that it carries up is acknowledged
        after("delivered", lambda attempt: attempt._root is None and attempt._sums and has_carried_up(attempt))
    elif phase == "sealed":  # a root actor, before the others have its sum
        after("_advance_root", lambda attempt: attempt._key is not None)
    elif phase == "ready":  # a root actor, after
        after("_advance_root", lambda attempt: attempt._is_ready)
    elif phase == "result":  # an actor, before it passes the result on
        before(
            "_finish", lambda attempt, *_: any(attempt.own_key in group.actors for group in attempt.assignment.groups)
        )


def main() -> int:
    """Average, and print one line of JSON per round, and one at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--keys", required=True)
    parser.add_argument("--means", type=Path, required=True, help="folder for the means, by digest")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--torch", action="store_true", help="models are state dictionaries of torch")
    parser.add_argument("--die-at", choices=PHASES)
    parser.add_argument("--die-in", type=int, default=1, help="the round to die in")
    parser.add_argument("--token", type=Path)
    args = parser.parse_args()
    own = model(args.number)
    if args.torch:
        import torch

        torch.set_num_threads(1)
        own = {name: torch.from_numpy(array) for name, array in own.items()}
    start_mib = peak_mib()
    with PrivacyPreservingAggregator(
        args.address, args.server, args.keys, name=f"peer-{args.number}", connect_s=120, wait_s=120
    ) as aggregator:
        for number in range(args.rounds):
            if args.die_at and number == args.die_in:
                die_at(args.die_at, args.token)
            began, before = time.time(), aggregator.statistics
            row: dict[str, Any] = {"round": number, "began": began}
            try:
                mean = aggregator.aggregate(own)
            except AggregationError as error:
                print(json.dumps(row | {"error": str(error), "ended": time.time()}), flush=True)
                continue
            row |= {"ended": time.time(), "seconds": aggregator.time_elapsed}
            stats = aggregator.statistics
            row |= {key: stats[key] - before[key] for key in ("sent bytes", "received bytes")}
            arrays = {name: np.asarray(value) for name, value in mean.items()}
            row["digest"] = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
            if not (args.means / f"{row['digest']}.npz").exists():
                np.savez(args.means / f"{row['digest']}.npz", **arrays)
            print(json.dumps(row), flush=True)
        dropped = {key: value for key, value in aggregator.statistics.items() if key.startswith("dropped")}
    print(json.dumps({"start MiB": start_mib, "peak MiB": peak_mib(), **dropped}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("benchmarks/secure_peer.py", main))
