"""The command line of study.py."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studies import figures, gallery
from studies.frame import Study
from studies.partitions import plot_partition
from studies.tables import FORMATS
from tools.arguments import parse_pairs
from tools.console import warnings_as_lines
from tools.errors import UserError
from tools.program import Parser, exit_status

EXAMPLES = """examples:
  python3 study.py table results-data
  python3 study.py table results-data --only 'mnist-*' --columns gar,momentum_at,accuracy_max --format latex
  python3 study.py table results-data --over seed,learning_rate --format csv -o accuracies.csv
  python3 study.py plot results-data -o results-plot --only '*-krum-*'
  python3 study.py topology ring --nodes 20 --byzantine 3 -o ring.png
  python3 study.py partition results-data/my-run -o partition.png

As a library: import study, see docs/study.md."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; every command has a function `run` of the parsed arguments."""
    parser = Parser(
        prog="study.py",
        description="Tables and figures of the runs in a folder of result directories; drawings of topologies.",
        epilog=EXAMPLES,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    runs = argparse.ArgumentParser(add_help=False)
    runs.add_argument("directory", nargs="?", default="results-data", help="folder of the runs (default: results-data)")
    runs.add_argument("--only", metavar="PATTERN", default="*", help="runs whose names match, with wildcards * ? […]")
    _add_table(commands, runs)
    _add_plot(commands, runs)
    _add_topology(commands)
    _add_partition(commands)
    return parser


def _add_table(commands: Any, runs: argparse.ArgumentParser) -> None:
    table = commands.add_parser(
        "table", parents=[runs], help="statistics over seeds as text", description="Statistics over seeds as text."
    )
    table.add_argument("--format", choices=FORMATS, default="markdown", help="default: markdown; csv has all digits")
    table.add_argument(
        "--over", type=_names, default=["seed"], metavar="FIELDS", help="what may differ in a row (default: seed)"
    )
    table.add_argument(
        "--columns",
        type=_names,
        default=[],
        metavar="NAMES",
        help="flags of attack.py, and values: accuracy_final, accuracy_max, accuracy_last, loss_final, ratio_honest, "
        "seconds, … (default: all flags that differ, accuracy_max, accuracy_final)",
    )
    table.add_argument("-o", "--output", metavar="FILE", help="write there instead of printing")
    table.set_defaults(run=_table)


def _add_plot(commands: Any, runs: argparse.ArgumentParser) -> None:
    plot = commands.add_parser(
        "plot", parents=[runs], help="all figures that the runs suggest", description="All figures the runs suggest."
    )
    plot.add_argument(
        "-o", "--output", metavar="FOLDER", default="results-plot", help="where to write (default: results-plot)"
    )
    plot.set_defaults(run=_plot)


def _add_topology(commands: Any) -> None:
    topology = commands.add_parser(
        "topology", help="drawing of who hears whom", description="Drawing of who hears whom, and who is Byzantine."
    )
    topology.add_argument("name", metavar="NAME", help="as --topology of attack.py")
    topology.add_argument("--nodes", type=int, metavar="N", default=11, help="how many there are (default: 11)")
    topology.add_argument("--byzantine", type=int, metavar="F", default=0, help="how many attack (default: 0)")
    topology.add_argument(
        "--topology-args", nargs="*", metavar="key:value", default=[], help="as of attack.py, such as byzantine:random"
    )
    topology.add_argument("--seed", type=int, metavar="N", default=1, help="of the run (default: 1)")
    topology.add_argument("--step", type=int, metavar="N", default=0, help="round, of graphs that vary (default: 0)")
    topology.add_argument(
        "-o", "--output", metavar="FILE", help="where to write: .png, .pdf or .svg (default: NAME.png)"
    )
    topology.set_defaults(run=_topology)


def _add_partition(commands: Any) -> None:
    partition = commands.add_parser(
        "partition",
        help="drawing of who has which samples",
        description="Drawing of how samples are spread over nodes.",
    )
    partition.add_argument("directory", help="result directory of a run with --partition, or its partition.csv")
    partition.add_argument(
        "-o", "--output", metavar="FILE", default="partition.png", help=".png, .pdf or .svg (default: partition.png)"
    )
    partition.set_defaults(run=_partition)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit status: 0, 2 for a user's error, 130 for Ctrl-C."""

    def work() -> int:
        arguments = make_parser().parse_args(argv)
        try:
            with warnings_as_lines("study.py"):
                arguments.run(arguments)
        except BrokenPipeError:  # nobody reads on, as in `study.py table | head`
            sys.stdout = None
        return 0

    return exit_status("study.py", work)


def _table(arguments: argparse.Namespace) -> None:
    text = _read(arguments).table(arguments.format, over=arguments.over, columns=arguments.columns)
    if arguments.output is None:
        print(text, end="", flush=True)
        return
    try:
        Path(arguments.output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output: cannot write {arguments.output}: {error.strerror}; name another file") from error


def _plot(arguments: argparse.Namespace) -> None:
    for path in gallery.save(_read(arguments), Path(arguments.output)):
        print(path, flush=True)


def _topology(arguments: argparse.Namespace) -> None:
    from studies.topology import draw_topology  # the other commands need no networkx

    try:
        topology_args = parse_pairs(arguments.topology_args)
    except UserError as error:
        raise UserError(f"--topology-args: {error}") from None
    figure = draw_topology(
        arguments.name,
        topology_args,
        nodes=arguments.nodes,
        byzantine=arguments.byzantine,
        seed=arguments.seed,
        step=arguments.step,
    )
    path = Path(arguments.output or f"{arguments.name}.png")
    figures.save(figure, path)
    print(path, flush=True)


def _partition(arguments: argparse.Namespace) -> None:
    path = Path(arguments.output)
    figures.save(plot_partition(arguments.directory), path)
    print(path, flush=True)


def _read(arguments: argparse.Namespace) -> Study:
    study = Study(arguments.directory, progress=_progress if sys.stderr.isatty() else None)
    part = study.only(arguments.only)
    for state, names in (("failed", study.failed), ("not finished", study.pending)):
        if names:
            print(f"study.py: {state}, left out: {', '.join(names)}", file=sys.stderr)
    if len(part) == 0:
        found = f"{len(study)} of other names" if len(study) else "none"
        raise UserError(f"expected finished runs in {arguments.directory} that match {arguments.only!r}, found {found}")
    return part


def _progress(done: int, total: int) -> None:
    if done % 50 == 0 or done == total:
        print(f"\rreading runs: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _names(text: str) -> list[str]:
    """Read names parted by commas, also with the dashes that they have as flags of attack.py."""
    return [name.strip().replace("-", "_") for name in text.split(",") if name.strip()]
