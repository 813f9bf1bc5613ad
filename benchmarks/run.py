"""How fast one run is: `python3 benchmarks/run.py --data-directory DIR` (a folder with MNIST in torchvision's layout).

Two cells, each beside a plain hand-written loop in the same process, in turns, after warming up: the MNIST cell of the
ICLR 2021 paper and the convolutional default of its code. Prints milliseconds per step, their ratio, what the study
costs, milliseconds by phase; then, of whole processes, one step and the MNIST cell from prompt to prompt, and by how
much its peak of memory exceeds what imports, dataset and the study's window took before: at their peak, and then.
`--output FOLDER` also writes all of it there as JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch

from benchmarks.cells import CONV_CELL, MNIST_CELL
from benchmarks.plain import PlainConv, PlainFull, PlainLoop
from experiments.config import RunConfig
from experiments.environment import describe, on_this_machine, settings
from experiments.run import load_data
from experiments.server import ServerSimulation
from tools.program import exit_status

MNIST_PARAMETERS = 79_510
CELLS: dict[str, tuple[dict[str, Any], type[PlainLoop]]] = {
    "mnist": (MNIST_CELL, PlainFull),
    "conv": (CONV_CELL, PlainConv),
}


def milliseconds(action: Callable[[], Any], times: int, device: str) -> float:
    """Return the milliseconds of one call, averaged over several."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(times):
        action()
    _wait(device)
    return (time.perf_counter() - start) / times * 1e3


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure(config: RunConfig, plain: type[PlainLoop], rounds: int, steps: int) -> dict[str, Any]:
    """Return what a step and an evaluation take: with the study, without, and by hand, in turns."""
    with settings(config):
        data = load_data(config)
        ours = ServerSimulation(config, data, 1)
        no_study = ServerSimulation(replace(config, nb_for_study=0), data, 1)
        by_hand = plain(data, ours.model.parameters)

        def study() -> None:
            ours.step()
            if ours.metrics.full:
                ours.metrics.flush()

        steppers = {"ours": study, "without study": no_study.step, "by hand": by_hand.step}
        evaluators = {"ours": ours.evaluate, "by hand": by_hand.evaluate}
        for action in (*steppers.values(), *evaluators.values()):
            milliseconds(action, steps, config.device)
        before = ours.clock.seconds()
        first = ours.step_index
        step_ms: dict[str, list[float]] = {name: [] for name in steppers}
        evaluation_ms: dict[str, list[float]] = {name: [] for name in evaluators}
        for _ in range(rounds):
            for name, action in steppers.items():
                step_ms[name].append(milliseconds(action, steps, config.device))
            for name, action in evaluators.items():
                evaluation_ms[name].append(milliseconds(action, 3, config.device))
        after = ours.clock.seconds()
    count = dict.fromkeys(after, ours.step_index - first) | {"evaluation": rounds * 3}
    return {
        "step_ms": step_ms,
        "evaluation_ms": evaluation_ms,
        "phase_ms": {name: (after[name] - before.get(name, 0.0)) / count[name] * 1e3 for name in after},
    }


def ratio(numerators: list[float], denominators: list[float]) -> float:
    """Return the median of the ratios, pair by pair."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def report(name: str, result: dict[str, Any]) -> None:
    """Print what was measured of a cell."""
    step, evaluation = result["step_ms"], result["evaluation_ms"]
    print(f"\n{name}: ms, median of {len(step['ours'])} rounds")
    for what, values in (("step", step), ("evaluation", evaluation)):
        print(f"  {what:<12}", *(f"{who} {statistics.median(ms):.2f}" for who, ms in values.items()), sep="  ")
        print(f"  {'':<12}  ours / by hand {ratio(values['ours'], values['by hand']):.2f}")
    print(f"  {'study':<12}  costs {ratio(step['ours'], step['without study']) - 1:.1%} of a step without it")
    print(f"  {'phases':<12}", *(f"{phase} {ms:.2f}" for phase, ms in result["phase_ms"].items()), sep="  ")


def processes(config: RunConfig, repetitions: int) -> dict[str, list[float]]:
    """Return the seconds of whole processes: one step of the cell, and the whole cell."""
    seconds: dict[str, list[float]] = {"one step": [], "whole cell": []}
    for _ in range(repetitions):
        for name, changes in (("one step", {"nb_steps": 1, "evaluation_delta": 0}), ("whole cell", {})):
            with tempfile.TemporaryDirectory() as folder:
                argv = replace(config, result_directory=f"{folder}/run", **changes).to_argv()
                start = time.perf_counter()
                subprocess.run([sys.executable, str(ROOT / "attack.py"), *argv], check=True, stdout=subprocess.DEVNULL)
                seconds[name].append(time.perf_counter() - start)
    return seconds


def resident_bytes(which: str) -> int:
    """Return a line of /proc/self/status: VmRSS, the resident size, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:")) * 1024


def memory(config: RunConfig) -> None:
    """Print, as JSON, how far the peak of a run exceeds imports, data and window; Linux, in a process of its own."""
    with settings(config):
        data = load_data(config)
        window = torch.ones(config.nb_for_study_past, MNIST_PARAMETERS)
        before = {"peak": resident_bytes("VmHWM"), "resident": resident_bytes("VmRSS")}
        del window
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from here
        simulation = ServerSimulation(config, data, 1)
        for _ in range(2):
            simulation.run(150)
            simulation.evaluate()
            simulation.metrics.flush()
    peak = resident_bytes("VmHWM")
    matrix = config.nb_workers * simulation.model.d * 4
    print(json.dumps({f"over_{name}": peak - size for name, size in before.items()} | {"matrix": matrix}))


def main(argv: list[str] | None = None) -> int:
    """Measure and print; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-directory", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=7, help="turns of the comparison (default 7)")
    parser.add_argument("--steps", type=int, default=30, help="steps per turn (default 30)")
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--processes", type=int, default=3, help="repetitions of whole processes (default 3)")
    parser.add_argument("--output", help="folder for results.json")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    common = {
        "data_directory": str(Path(arguments.data_directory).resolve()),
        "device": arguments.device,
        "threads": arguments.threads,
    }
    configs = {name: on_this_machine(RunConfig(**CELLS[name][0], **common)) for name in arguments.cells}
    if arguments.memory:
        memory(configs["mnist"])
        return 0
    results: dict[str, Any] = {"environment": describe(next(iter(configs.values())), 1), "cells": {}}
    print(f"{results['environment']['device']}, {results['environment']['threads']} threads, torch {torch.__version__}")
    for name, config in configs.items():
        results["cells"][name] = measure(config, CELLS[name][1], arguments.rounds, arguments.steps)
        report(name, results["cells"][name])
    if "mnist" in configs and arguments.processes:
        results["process_s"] = processes(configs["mnist"], arguments.processes)
        print("\nwhole processes, mnist: s, median")
        for name, seconds in results["process_s"].items():
            print(f"  {name:<12}  {statistics.median(seconds):.2f}")
        command = [sys.executable, __file__, "--memory", "--cells", "mnist", "--device", arguments.device]
        command += ["--data-directory", common["data_directory"], "--threads", str(configs["mnist"].threads)]
        results["memory"] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for name, growth in results["memory"].items():
            if name != "matrix":
                times = growth / results["memory"]["matrix"]
                print(f"  {'memory':<12}  {growth / 1e6:.1f} MB {name.replace('_', ' ')}, {times:.2f} (n, d) matrices")
    if arguments.output:
        folder = Path(arguments.output)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("benchmarks/run.py", main))
