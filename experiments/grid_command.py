"""The command line of reproduce.py: which runs, where, and what is said about them at the end."""

import argparse
import fnmatch
import sys
import tempfile
import time
from pathlib import Path

from experiments.config import RunConfig
from experiments.engines import Engine
from experiments.engines.local import LocalEngine, choose_slots
from experiments.engines.ray import RayEngine
from experiments.grids import Grid, find, grids
from experiments.locks import Locks
from experiments.overview import Overview
from experiments.plan import Action, Planned, plan
from experiments.reproduction import Reproduction, place
from tools.console import warnings_as_lines
from tools.errors import UserError
from tools.interruption import Interrupted, Interruption
from tools.program import Parser

MOST_SEEDS = 100_000


def make_parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of a program's command line; its errors are UserErrors."""
    listed = "\n".join(f"  {name:17}{grid.title}; seeds {grid.seeds}" for name, grid in grids.items())
    parser = Parser(
        program,
        description="All runs of a grid, on all devices, then a page with tables and figures about them. What is "
        "finished is skipped, what was interrupted goes on: after Ctrl-C, a crash or a failure repeat the command.",
        epilog=f"grids:\n{listed}",
    )
    option = parser.add_argument
    option("--grid", default="iclr21", metavar="NAME", help="which runs: a grid below, or a .py file (default iclr21)")
    option("--seeds", metavar="SEEDS", help='seeds of every experiment, e.g. "1-5" or "1,2,7-9" (default: the grid\'s)')
    option("--only", nargs="+", metavar="PATTERN", help="only runs whose names match one, e.g. 'mnist-*-krum-*'")
    option("--devices", default="auto", help="auto (all GPUs, or else the CPU), or e.g. cuda:0,cuda:2 (default auto)")
    option(
        "--supercharge",
        type=int,
        metavar="N",
        help="runs side by side on each device (default 1 on a GPU, cores ÷ threads on the CPU)",
    )
    option("--engine", default="local", choices=("local", "ray"), help="where runs are computed (default local)")
    option(
        "--ray-address", metavar="ADDRESS", help="of the Ray cluster (default: the one of this machine, or a new one)"
    )
    option("--data-directory", metavar="PATH", help="folder of all datasets, in torchvision's layout")
    option(
        "--result-directory", default="results-data", metavar="PATH", help="folder of all runs (default results-data)"
    )
    option("--plot-directory", default="results-plot", metavar="PATH", help="folder of the page (default results-plot)")
    option("--dry-run", action="store_true", help="only list what would be run, and why")
    return parser


def reproduce(arguments: argparse.Namespace) -> int:
    """Do what the command line says."""
    grid = find(arguments.grid)
    results, plots = Path(arguments.result_directory), Path(arguments.plot_directory)
    engine = make_engine(arguments, grid)
    named = select(grid, parse_seeds(arguments.seeds or grid.seeds), arguments.only)
    placed = [
        (name, place(name, config, results, arguments.data_directory, min(engine.devices))) for name, config in named
    ]
    runs = [plan(name, config, engine.devices) for name, config in placed]
    if arguments.dry_run:
        show(runs)
        return 0
    for flag, folder in (("--result-directory", results), ("--plot-directory", plots)):
        check_writable(flag, folder)
    start = time.monotonic()
    finished = sum(run.action is Action.SKIP for run in runs)
    overview = Overview(engine.slots, len(runs), finished)
    overview.say(
        f"{grid.name}: {len(runs)} runs, {finished} finished, {len(runs) - finished} to do on {len(engine.slots)} slots"
    )
    with Interruption() as interruption, Locks(results) as locks, engine:
        reproduction = Reproduction(runs, engine, locks, overview)
        with overview:
            reproduction.run(interruption)
    if interruption.signal is not None:
        raise Interrupted(interruption.signal, "interrupted; the same command goes on from here")
    from studies.report import Circumstances  # here, because drawing takes a second to import

    circumstances = Circumstances(
        expected=[run.name for run in runs],
        failed=reproduction.failed,
        skipped=reproduction.skipped,
        seconds=time.monotonic() - start,
        slots=list(engine.slots),
        experiments=[name for name, _ in grid.experiments()],
    )
    overview.say(f"drawing {plots / 'index.html'}")
    try:
        with warnings_as_lines("reproduce.py"):
            grid.report(results, plots, circumstances)
    except OSError as error:
        what = f"cannot write to {plots}: {error.strerror or error}"
        raise UserError(f"--plot-directory: {what}; make room, or name another folder") from error
    overview.say(f"results in {results}, page in {plots / 'index.html'}")
    return conclude(reproduction.failed, reproduction.skipped, results)


def make_engine(arguments: argparse.Namespace, grid: type[Grid]) -> Engine:
    """Return the engine that the command line asks for."""
    if arguments.supercharge is not None and arguments.supercharge < 1:
        raise UserError(f"--supercharge: expected at least 1, got {arguments.supercharge}")
    if arguments.engine == "local":
        if arguments.ray_address is not None:
            raise UserError("--ray-address: expected --engine ray as well")
        return LocalEngine(choose_slots(arguments.devices, arguments.supercharge, grid.threads))
    if arguments.devices != "auto":
        raise UserError(f"--devices: expected auto with --engine ray, whose cluster knows, got {arguments.devices}")
    results = Path(arguments.result_directory)
    return RayEngine(arguments.ray_address, results, arguments.supercharge, grid.threads)


def check_writable(flag: str, folder: Path) -> None:
    """Raise a UserError unless a folder is there, or can be made, and takes files: hours later it would be a pity."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        why = f"expected a folder that can be written to, got {folder}: {error.strerror}"
        raise UserError(f"{flag}: {why}") from error


def parse_seeds(text: str) -> list[int]:
    """Return the seeds in "1-5" or "1,2,7-9"."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and 0 <= int(last) - int(first) < MOST_SEEDS):
            raise UserError(f'--seeds: expected e.g. "1-5" or "1,2,7-9", got {text!r}')
        seeds += range(int(first), int(last) + 1)
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds: expected every seed once, got {text!r}")
    return seeds


def select(grid: type[Grid], seeds: list[int], patterns: list[str] | None) -> list[tuple[str, RunConfig]]:
    """Return the named runs of a grid that match one of the patterns, if there are any."""
    named = list(grid.runs(seeds))
    if patterns is None:
        return named
    chosen = [run for run in named if any(fnmatch.fnmatchcase(run[0], pattern) for pattern in patterns)]
    if not chosen:
        raise UserError(
            f"--only: expected a pattern that matches a run, such as {named[0][0]}, got {' '.join(patterns)}"
        )
    return chosen


def show(runs: list[Planned]) -> None:
    """List what would be done, and why."""
    for run in runs:
        print(f"{run.action.value:9}{run.name}  {run.why}")
    counts = {action: sum(run.action is action for run in runs) for action in dict.fromkeys(run.action for run in runs)}
    print(f"{len(runs)} runs: {', '.join(f'{count} to {action.value}' for action, count in counts.items())}")


def conclude(failed: dict[str, str], skipped: dict[str, str], results: Path) -> int:
    """List what is not there, and return the exit status."""
    for name, reason in failed.items():
        print(f"{name}: {reason}, see {results / name}.failed/stderr.log", file=sys.stderr)
    if skipped:
        print(f"skipped for want of data: {', '.join(skipped)}", file=sys.stderr)
    if failed:
        print(f"failed: {len(failed)}; the same command tries them again", file=sys.stderr)
    return 1 if failed or skipped else 0
