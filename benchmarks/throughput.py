"""How many runs an hour resident workers do, beside separate processes of attack.py, with equal slots and threads.

`python3 benchmarks/throughput.py --data-directory DIR` (a folder with MNIST in torchvision's layout). Two kinds of
runs: the MNIST cell of the ICLR 2021 paper and the runs of the smoke grid. Both ways take turns; what is timed begins
before the first process starts and ends when the last run's folder has its final name, so the start of the resident
workers is inside. Prints runs per hour, their ratio, and what a run costs a slot beyond its own training and
evaluation. `--output FOLDER` also writes all of it there as JSON.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.cells import MNIST_CELL
from experiments.config import RunConfig
from experiments.engines.local import LocalEngine, choose_slots
from experiments.environment import describe, on_this_machine
from experiments.grids import grids
from experiments.locks import Locks
from experiments.overview import Overview
from experiments.plan import plan
from experiments.reproduction import Reproduction, place
from tools.interruption import Interruption
from tools.program import exit_status

OWN = ("gradients", "data", "momentum", "attack", "rule", "metrics", "update", "evaluation")
"""Phases of a run that are its training and evaluation."""


def runs_of(kind: str, count: int, threads: int) -> dict[str, RunConfig]:
    """Return that many runs of a kind, by name."""
    if kind == "mnist":
        return {f"mnist-{seed}": RunConfig(**MNIST_CELL, seed=seed, threads=threads) for seed in range(1, count + 1)}
    named = itertools.islice(grids["smoke"].runs(range(1, count + 1)), count)
    return {name: replace(config, threads=threads) for name, config in named}


def resident(runs: dict[str, RunConfig], devices: list[str], folder: Path, data: str) -> tuple[float, list[float]]:
    """Return the seconds that resident workers take, and what each run cost its slot beyond its own phases."""
    start = time.perf_counter()
    placed = {name: place(name, config, folder, data, devices[0]) for name, config in runs.items()}
    engine = LocalEngine(devices)
    planned = [plan(name, config, engine.devices) for name, config in placed.items()]
    with Interruption() as interruption, Locks(folder) as locks, engine:
        overview = Stopwatch(engine.slots, len(planned), 0)
        Reproduction(planned, engine, locks, overview).run(interruption)
        seconds = time.perf_counter() - start
    return seconds, [whole - own(folder / name) for name, whole in overview.seconds.items()]


class Stopwatch(Overview):
    """Keeps the seconds of every run, from one run's end to the next one's on the same slot; the first do not count."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seconds: dict[str, float] = {}
        self._ended: dict[int, float] = {}

    def say(self, text: str, style: str = "") -> None:
        """Print nothing."""

    def done(self, slot: int, name: str, seconds: float, accuracies: Any) -> None:
        """Note when a run ended."""
        super().done(slot, name, seconds, accuracies)
        now = time.perf_counter()
        if slot in self._ended:
            self.seconds[name] = now - self._ended[slot]
        self._ended[slot] = now


def own(folder: Path) -> float:
    """Return the seconds that a run spent in training and evaluation."""
    lines = (folder / "timing").read_text(encoding="utf-8").splitlines()[1:]
    phases = dict(line.split("\t") for line in lines)
    return sum(float(seconds) for phase, seconds in phases.items() if phase in OWN)


def separate(runs: dict[str, RunConfig], devices: list[str], folder: Path, data: str) -> float:
    """Return the seconds that a process of attack.py per run takes, as many at once as there are slots."""

    def one(name: str, device: str) -> None:
        argv = place(name, runs[name], folder, data, device).to_argv()
        subprocess.run([sys.executable, str(ROOT / "attack.py"), *argv], check=True, stdout=subprocess.DEVNULL)

    start = time.perf_counter()
    with ThreadPoolExecutor(len(devices)) as pool:
        list(pool.map(one, runs, itertools.cycle(devices)))
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-directory", required=True)
    parser.add_argument("--devices", default="auto", help="as reproduce.py takes them (default auto)")
    parser.add_argument("--supercharge", type=int, help="as reproduce.py takes it")
    parser.add_argument("--threads", type=int, default=1, help="of each run (default 1)")
    parser.add_argument("--rounds", type=int, default=3, help="turns (default 3)")
    parser.add_argument("--mnist", type=int, default=16, help="runs of the MNIST cell per turn (default 16)")
    parser.add_argument("--smoke", type=int, default=40, help="runs of the smoke grid per turn (default 40)")
    parser.add_argument("--output", help="folder for results.json")
    arguments = parser.parse_args(argv)
    devices = choose_slots(arguments.devices, arguments.supercharge, arguments.threads)
    data = str(Path(arguments.data_directory).resolve())
    environment = describe(on_this_machine(RunConfig(device=devices[0], threads=arguments.threads)), 1)
    results: dict[str, Any] = {"environment": environment, "slots": devices, "kinds": {}}
    print(f"{environment['device']}, {len(devices)} slots, {arguments.threads} threads each")
    for kind, count in (("mnist", arguments.mnist), ("smoke", arguments.smoke)):
        runs = runs_of(kind, count, arguments.threads)
        seconds: dict[str, list[float]] = {"resident": [], "separate": []}
        beyond: list[float] = []
        for _ in range(arguments.rounds if count else 0):
            with tempfile.TemporaryDirectory() as folder:
                spent, costs = resident(runs, devices, Path(folder), data)
            seconds["resident"].append(spent)
            beyond += costs
            with tempfile.TemporaryDirectory() as folder:
                seconds["separate"].append(separate(runs, devices, Path(folder), data))
        if count:
            results["kinds"][kind] = {"runs": count, "seconds": seconds, "beyond_own_s": beyond}
            report(kind, results["kinds"][kind])
    if arguments.output:
        folder = Path(arguments.output)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def report(kind: str, result: dict[str, Any]) -> None:
    """Print what was measured of a kind of runs."""
    seconds, runs = result["seconds"], result["runs"]
    rates = {way: statistics.median(runs / spent * 3600 for spent in values) for way, values in seconds.items()}
    ratios = [slow / fast for fast, slow in zip(seconds["resident"], seconds["separate"], strict=True)]
    print(f"\n{kind}: runs per hour, median of {len(ratios)} turns of {runs} runs")
    for way, rate in rates.items():
        print(f"  {way:<9} {rate:8.0f}")
    print(f"  ratio     {statistics.median(ratios):8.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    beyond = result["beyond_own_s"]
    middle, most = statistics.median(beyond), max(beyond)
    print(f"  a run costs its slot {middle:.3f} s (most {most:.3f}) beyond its own training and evaluation")


if __name__ == "__main__":
    sys.exit(exit_status("benchmarks/throughput.py", main))
