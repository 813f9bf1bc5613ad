"""The command line of attack.py, built from the fields of RunConfig."""

import argparse
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import Any

from aggregators import CONTEXT as RULE_CONTEXT
from aggregators import gars
from aggregators.pre import CONTEXT as PRE_CONTEXT
from aggregators.pre import pre_gars
from attacks import CONTEXT as ATTACK_CONTEXT
from attacks import attacks
from experiments import datasets, models
from experiments.config import SECTIONS, RunConfig, flag_of, kind_of
from experiments.criteria import criteria
from experiments.network import CommonArguments
from experiments.partitions import CONTEXT as PARTITION_CONTEXT
from experiments.partitions import partitions
from experiments.protocols import Protocol, protocols
from experiments.topologies import CONTEXT as TOPOLOGY_CONTEXT
from experiments.topologies import topologies
from tools.arguments import explicit_parameters, parse_pairs, spelled
from tools.errors import UserError
from tools.program import Parser


def make_parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of a program's command line; its errors are UserErrors."""
    parser = _Parser(
        program,
        usage=f"{program} [--flag value …]",
        description="One seeded training run under attack: from these flags to a folder with every metric.",
        formatter_class=_Formatter,
    )
    for field in dataclasses.fields(RunConfig):
        kind, flag = kind_of(field), flag_of(field)
        if field.name in SECTIONS:
            group = parser.add_argument_group(SECTIONS[field.name])
        if kind is bool:
            group.add_argument(flag, action="store_true", help=field.metadata["help"])
            continue
        settings: dict[str, Any] = {"help": _help(field), "default": argparse.SUPPRESS}
        if kind is dict:
            settings |= {"nargs": "*", "metavar": "key:value"}
        elif kind is list:
            settings |= {"nargs": "+", "metavar": "NAME"}
        else:
            settings |= {"type": kind, "metavar": _metavar(field)}
        group.add_argument(flag, **settings)
    return parser


def parse(argv: Sequence[str] | None, program: str = "attack.py") -> RunConfig:
    """Return the configuration that a command line asks for; --help prints and exits."""
    values = vars(make_parser(program).parse_args(argv))
    for field in dataclasses.fields(RunConfig):
        if kind_of(field) is dict and field.name in values:
            try:
                values[field.name] = parse_pairs(values[field.name])
            except UserError as error:
                raise UserError(f"{flag_of(field)}: {error}") from None
    return RunConfig(**values)


class _Parser(Parser):
    def format_help(self) -> str:
        return f"{super().format_help()}\n{_arguments_text()}"


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # names can be copied whole


def _arguments_text() -> str:
    """Return what key:value arguments everything registered has, with their defaults."""
    having: dict[str, tuple[Mapping[str, Callable], Collection[str]]] = {
        "pre-gar": ({name: pre.unchecked for name, pre in pre_gars.items()}, PRE_CONTEXT),
        "gar": ({name: rule.formula() for name, rule in gars.items()}, RULE_CONTEXT),
        "attack": ({name: attack.formula() for name, attack in attacks.items()}, ATTACK_CONTEXT),
        "topology": (
            {"all": CommonArguments, **{name: topology.graph for name, topology in topologies.items()}},
            TOPOLOGY_CONTEXT,
        ),
        "protocol": ({name: protocol.check for name, protocol in protocols.items()}, Protocol.CONTEXT),
        "partition": ({name: partition.split for name, partition in partitions.items()}, PARTITION_CONTEXT),
        "dataset": ({name: dataset.load for name, dataset in datasets.datasets.items()}, datasets.CONTEXT),
        "model": (models.architectures, models.CONTEXT),
        "criterion": (criteria, ()),
    }
    lines = ["arguments, with their defaults:"]
    for kind, (functions, context) in having.items():
        lines.append(f"  --{kind}-args")
        for name, function in functions.items():
            if parameters := explicit_parameters(function, context):
                lines.append(f"    {name}: {', '.join(map(describe_argument, parameters.values()))}")
    return "\n".join(lines) + "\n"


def describe_argument(parameter: inspect.Parameter) -> str:
    """Return how a parameter is given on a command line, with its default if it has one: `z:max`."""
    name, default = spelled(parameter.name), parameter.default
    if default in (None, parameter.empty):
        return name
    return f"{name}:{default.name.lower() if isinstance(default, Enum) else default}"


def _metavar(field: dataclasses.Field) -> str:
    if _few(field):
        return f"{{{','.join(field.metadata['choices'])}}}"
    return field.metadata["metavar"] or {int: "N", float: "X", str: "NAME"}[kind_of(field)]


def _few(field: dataclasses.Field) -> bool:
    """Return whether the words a field allows are written down with it, and explained by its help."""
    return isinstance(field.metadata["choices"], tuple) and bool(field.metadata["choices"])


def _help(field: dataclasses.Field) -> str:
    text = field.metadata["help"]
    if field.metadata["choices"] and not _few(field):
        text += f": {', '.join(field.metadata['choices'])}"
    limits = ", ".join(f"{sign} {limit:g}" for sign, limit in field.metadata["limits"].items())
    default = "" if field.default in (None, dataclasses.MISSING) else f"default {field.default}"
    notes = "; ".join(note for note in (limits, default) if note)
    return (f"{text} ({notes})" if notes else text).replace("%", "%%")
