"""How fast rules, pre-aggregators and attacks are: `python3 benchmarks/aggregators.py`.

Prints a markdown table per size (n, f, d) of ours beside plain torch operations on the same matrix and what of
`peer_libraries.py` is installed; then one of the rules that may take exponential time. `--sizes 51,12,79510` chooses
the sizes of both; `--rules krum nnm` and `--attacks little` leave out what they do not name; `--no-peers` leaves out
other libraries; `--output FOLDER` also writes all times there as results.json, after each table.

In turns: within one round all that stands in a row is timed once, the references of its ratios included, each by the
mean of as many calls as fill 10 ms. Numbers are medians over `--rounds`, ratios the medians of each round's ratio. All
is called twice before. What takes more than 2 s is called once before, timed at most 3 times, and says so. In brackets:
where another library's definition differs, or why it was not called.

Inside the clock: one call as a user makes it, with all that it checks, and on a GPU the wait for its end. Outside: the
float32 matrix m of standard normal values, whose first n − f rows are the honest vectors that attacks see; its rows as
a list, for libraries that take one; the room that pre-aggregators write to with `out=`; a copy for those that change
what they are given.

Rules that need context are given equal mixing weights, the first row as trusted vector, and squared norms as losses,
whose time counts. Attacks are aimed at krum, and on a complete graph where they need one.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch
from rich.console import Console
from rich.progress import Progress

from aggregators import gars
from aggregators.pre import pre_gars
from attacks import attacks
from benchmarks.aggregator_rows import (
    EXPONENTIAL,
    EXPONENTIAL_SIZES,
    ONE_KRUM,
    SEED,
    SIZES,
    Case,
    Row,
    Size,
    labels,
    limit_of,
    make_row,
)
from benchmarks.peer_libraries import LIBRARIES, Peer, installed
from experiments.config import RunConfig
from experiments.environment import describe, on_this_machine
from tools.errors import UserError, one_line
from tools.program import exit_status

TURN_S, MOST_CALLS = 0.01, 100
SLOW_S, SLOW_ROUNDS = 2.0, 3
SETTLE_S = 0.03  # idle threads of another library wait actively for a while, on cores that the next call needs


@dataclass(frozen=True)
class Contender:
    """A call that takes its turns."""

    call: Callable[[Any], Any]
    prepare: Callable[[], Any]
    """Makes what it is called with, outside the clock."""

    def seconds(self) -> float:
        """Return what one call takes."""
        given = self.prepare()
        wait()
        start = time.perf_counter()
        _ = self.call(given)  # kept, so that the clock stops before it is freed
        wait()
        return time.perf_counter() - start

    def calls_per_turn(self) -> int:
        """Return how many calls fill a turn, after warming up; 0 if one is so slow that it gets few turns."""
        if self.seconds() > SLOW_S:
            return 0
        return min(max(int(TURN_S / self.seconds()), 1), MOST_CALLS)


def wait() -> None:
    """Wait until the GPU has nothing left to do, if one is in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def take_turns(contenders: dict[str, Contender], rounds: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Return the milliseconds of each contender by round, and the errors of those that raised one."""
    calls, errors = {}, {}
    for who, contender in contenders.items():
        try:
            calls[who] = contender.calls_per_turn()
        except Exception as error:  # whatever others' code raises is a result as well
            errors[who] = f"{type(error).__name__}: {one_line(error)}"
    ms: dict[str, list[float]] = {who: [] for who in calls}
    for turn in range(rounds):
        for who, count in calls.items():
            if count or turn < SLOW_ROUNDS:
                time.sleep(SETTLE_S)
                if count:
                    contenders[who].seconds()
                ms[who].append(statistics.fmean(contenders[who].seconds() for _ in range(count or 1)) * 1e3)
    return ms, errors


def measure(case: Case, row: Row, peers: dict[str, dict[str, Peer]], rounds: int) -> dict[str, Any]:
    """Return a row's times beside those of its references and its counterparts in other libraries."""
    limit = limit_of(row.label, case.size)
    beside = {library: offered[row.label] for library, offered in peers.items() if row.label in offered}
    contenders = {"ours": Contender(row.call, lambda: row.vectors)}
    for name in dict.fromkeys(("mean(0)", *(limit.references if limit else ()))):
        contenders[name] = Contender(case.references[name], lambda: case.vectors)
    for library, peer in beside.items():
        if peer.call is not None:
            contenders[library] = Contender(peer.call, lambda peer=peer: peer.takes(row.vectors))
    ms, errors = take_turns(contenders, rounds)
    return {
        "label": row.label,
        "size": case.size,
        "note": row.note,
        "ms": ms,
        "errors": errors,
        "rounds": rounds,
        "limit": {"references": limit.references, "most": limit.most} if limit else None,
        "peer_notes": {library: peer.note for library, peer in beside.items()},
    }


def measure_all(
    case: Case, names: list[str], libraries: Iterable[str], rounds: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the measured rows of a size, and why others cannot take it; says on stderr how far it is."""
    peers = {library: LIBRARIES[library](case.n, case.f) for library in libraries}
    rows, refused = [], {}
    screen = Console(stderr=True)
    quiet = {"auto_refresh": False, "redirect_stdout": False}  # no thread that refreshes while the clock runs
    with Progress(console=screen, transient=True, disable=not screen.is_terminal, **quiet) as progress:
        task = progress.add_task("", total=len(names))
        for label in names:
            progress.update(task, description=f"{case.size} {label}", refresh=True)
            try:
                row = make_row(case, label)
            except ValueError as error:
                refused[label] = one_line(error)
            else:
                rows.append(measure(case, row, peers, rounds))
            progress.advance(task)
    return rows, refused


def measure_plain(case: Case, rounds: int) -> dict[str, list[float]]:
    """Return the times of plain torch operations on the matrix."""
    plain = {name: call for name, call in case.references.items() if name != ONE_KRUM}
    return take_turns({name: Contender(call, lambda: case.vectors) for name, call in plain.items()}, rounds)[0]


def digits(value: float) -> str:
    """Return a number with three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def ratio(row: dict[str, Any], references: Iterable[str]) -> float:
    """Return the median, over rounds, of ours over the sum of references."""
    sums = (sum(ms) for ms in zip(*(row["ms"][name] for name in references), strict=False))
    return statistics.median(ours / total for ours, total in zip(row["ms"]["ours"], sums, strict=False))


def cells(row: dict[str, Any], libraries: Iterable[str], with_size: bool) -> list[str]:
    """Return a measured row as the cells of a table."""

    def time_of(who: str) -> str:
        if who not in row["ms"]:
            return "error" if who in row["errors"] else "—" if who in row["peer_notes"] else ""
        times = row["ms"][who]
        return digits(statistics.median(times)) + (f" ({len(times)} rounds)" if len(times) < row["rounds"] else "")

    def of_limit() -> str:
        limit = row["limit"]
        if not limit or not row["ms"].get("ours"):
            return ""
        found = ratio(row, limit["references"])
        references = " + ".join(limit["references"])
        text = f"{digits(found)} × {references if len(limit['references']) == 1 else f'({references})'}"
        if limit["most"] is None:
            return text
        return f"{text}, {'**exceeds**' if found > limit['most'] else 'at most'} {limit['most']:g}"

    def of_library(library: str) -> str:
        note = row["peer_notes"].get(library)
        return f"{time_of(library)} [{note}]" if note else time_of(library)

    label = f"{row['label']} {tuple(row['size'])}" if with_size else row["label"]
    times_mean = digits(ratio(row, ["mean(0)"])) if row["ms"].get("ours") else ""
    return [label, row["note"], time_of("ours"), times_mean, of_limit(), *map(of_library, libraries)]


def report(
    title: str, rows: list[dict[str, Any]], refused: dict[str, str], versions: dict[str, str], with_size: bool = False
) -> None:
    """Print measured rows as a markdown table, and below it what is not in it."""
    print(f"\n## {title}\n")
    head = ["rule", "definition", "ours, ms", "/ mean(0)", "limit", *(f"{k} {v}, ms" for k, v in versions.items())]
    for line in (head, ["---"] * len(head), *(cells(row, versions, with_size) for row in rows)):
        print(f"| {' | '.join(line)} |")
    errors = [f"{row['label']}, {who}: {text}" for row in rows for who, text in row["errors"].items()]
    others = [f"{label} ({text})" for label, text in refused.items()]
    for what, texts in (("Not for this size", others), ("Errors", errors)):
        if texts:
            print(f"\n{what}: {'; '.join(texts)}.", flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the options, with names and sizes filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each row (default 7)")
    parser.add_argument("--sizes", nargs="+", type=parse_size, metavar="n,f,d", help="instead of the default ones")
    known = [*gars, *pre_gars]
    parser.add_argument("--rules", nargs="*", choices=known, metavar="NAME", help="rules and pre-aggregators")
    parser.add_argument("--attacks", nargs="*", choices=list(attacks), metavar="NAME")
    parser.add_argument("--no-peers", action="store_true", help="ours and plain torch only")
    parser.add_argument("--output", metavar="FOLDER", help="folder for results.json")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1:
        parser.error(f"argument --rounds: expected at least 1, got {arguments.rounds}")
    if arguments.rules is None and arguments.attacks is None:
        arguments.rules, arguments.attacks = known, list(attacks)
    return arguments


def parse_size(text: str) -> Size:
    """Read n,f,d."""
    try:
        n, f, d = map(int, text.split(","))
    except ValueError:
        n = f = d = 0
    if not (0 <= f < n and d > 0):
        raise argparse.ArgumentTypeError(f"expected n,f,d such as 51,12,79510 with f below n, got {text!r}")
    return n, f, d


def tables(
    arguments: argparse.Namespace, device: str, names: list[str], versions: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Measure, print and yield one table after another."""
    for size in arguments.sizes or SIZES:
        case = Case(size, device)
        plain = measure_plain(case, arguments.rounds)
        bounded = [name for name in names if name not in EXPONENTIAL]
        rows, refused = measure_all(case, bounded, versions, arguments.rounds)
        report(f"n, f, d = {size}", rows, refused, versions)
        line = ", ".join(f"{name} {digits(statistics.median(ms))}" for name, ms in plain.items())
        print(f"\nPlain torch, ms: {line}", flush=True)
        yield {"size": size, "plain_ms": plain, "rows": rows, "refused": refused}
    exponential = [name for name in names if name in EXPONENTIAL]
    if not exponential:
        return
    all_rows, all_refused = [], {}
    for size in arguments.sizes or EXPONENTIAL_SIZES:
        rows, refused = measure_all(Case(size, device), exponential, versions, arguments.rounds)
        all_rows += rows
        all_refused |= {f"{label} {size}": text for label, text in refused.items()}
    report("Exponential in the worst case", all_rows, all_refused, versions, with_size=True)
    yield {"rows": all_rows, "refused": all_refused}


def write(folder: str, text: str, mode: str = "w") -> None:
    """Write results.json; UserError where that cannot be."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with (Path(folder) / "results.json").open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--output: cannot write results.json in {folder}: {reason}; name another folder") from error


def main(argv: list[str] | None = None) -> int:
    """Measure and print; see the module's text."""
    arguments = parse(argv)
    if arguments.output:
        write(arguments.output, "", mode="a")  # now rather than after the first table
    config = on_this_machine(RunConfig(device=arguments.device, threads=arguments.threads))
    torch.set_num_threads(config.threads)
    versions, missing = ({}, {}) if arguments.no_peers else installed()
    results: dict[str, Any] = {"environment": describe(config, SEED), "libraries": versions, "tables": []}
    print(f"{results['environment']['device']}, {config.threads} threads, torch {torch.__version__}")
    print(f"medians of {arguments.rounds} rounds", *(f"{k} {v}" for k, v in versions.items()), sep=", ")
    for library, error in missing.items():
        print(f"{library}: not compared, {error}")
    names = labels(arguments.rules or (), arguments.attacks or ())
    for table in tables(arguments, config.device, names, versions):
        results["tables"].append(table)
        if arguments.output:
            write(arguments.output, json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("benchmarks/aggregators.py", main))
