"""The command line of `python3 -m peers`."""

import argparse
import dataclasses
import re
import typing
from pathlib import Path
from typing import Any

from zmq.utils import z85

from peers.keys import PUBLIC, SECRET, create_several, own_names, read_certificates, read_identity
from peers.secure_aggregation.demo.run import run_demo
from peers.secure_aggregation.demo.settings import DemoSettings
from peers.secure_aggregation.profiles import (
    AggregationProfile,
    AverageAdditiveSharingModelProfile,
    AverageTorchAdditiveSharingModelProfile,
)
from peers.secure_aggregation.server import SchedulingServer
from peers.secure_aggregation.serving import serve
from tools.arguments import parse_pairs
from tools.console import Console, make_tree
from tools.errors import UserError
from tools.program import Parser

EXAMPLES = """examples:
  python3 -m peers demo
  python3 -m peers keys create server
  python3 -m peers server --port 5555 --target-size 6 --group-size 3 --num-actors 2

Who learns what, and how programs take part: docs/secure_aggregation.md."""
PROFILES = {"torch": AverageTorchAdditiveSharingModelProfile, "numpy": AverageAdditiveSharingModelProfile}
FLAGS = {
    "target_size": "--target-size",
    "group_size": "--group-size",
    "num_actors": "--num-actors",
    "min_size": "--min-size",
    "timeout_s": "--timeout",
    "digits_to_keep": "--digits",
    "clip": "--clip",
    "max_weight": "--max-weight",
}
"""What numbers of the library are called here."""
DEMO = {
    "total": (int, "N", "peers"),
    "epochs": (int, "N", "of each peer"),
    "client_start_port": (int, "N", "where the first peer listens"),
    "client_port_dif": (int, "N", "from one peer's port to the next one's"),
    "server_port": (int, "N", "where the server listens"),
    "server_target_size": (int, "N", "peers that begin a round (default: all)"),
    "server_group_size": (int, "N", "about how many peers a group has"),
    "server_num_actors": (int, "N", "peers of a group who hold the shares of its sum"),
    "data_skip": (int, "N", "use every N-th sample, to train and to test (default 1 for digits, 25 for others)"),
    "dataset": (str, "NAME", "as of attack.py: digits, mnist …"),
    "data_directory": (str, "PATH", "folder of all datasets, in torchvision's layout"),
    "benchmark_server_port": (int, "N", "where measurements are collected from peers"),
    "keys_directory": (str, "PATH", "use keys of this folder, and keep them (default: fresh ones)"),
    "timeout": (float, "S", "seconds until a silent peer is lost, and the others go on"),
    "seed": (int, "N", "of the training"),
}
"""Settings of the demo that have a value: of what type, what stands for it in the help, and what the help says."""
FIRST_WORDS = {"port": "--port", "address": "--host", "combine": "--combine"}
"""What else its errors begin with."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; every command has a function `run` of the parsed arguments that returns the exit status."""
    parser = Parser(
        prog="python3 -m peers",
        description="Processes that average their models so that nobody sees another's.",
        epilog=EXAMPLES,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_keys(commands)
    _add_server(commands)
    _add_demo(commands)
    return parser


def _add_keys(commands: Any) -> None:
    keys = commands.add_parser(
        "keys",
        help="make or list the keys by which processes know each other",
        description="Keys by which processes know each other. Whoever takes part has a folder of keys: with its own "
        "secret\nkeys, and the certificates of all whom it may talk to. Nobody else gets a byte through.",
    )
    actions = keys.add_subparsers(title="commands", required=True, metavar="COMMAND")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("--directory", default="./keys", metavar="PATH", help="folder of keys (default ./keys)")
    create = actions.add_parser(
        "create", parents=[folder], help="make new keys", description="Make new keys, for each name or for none."
    )
    create.add_argument("names", nargs="+", metavar="NAME", help="whose: server, or any name for a peer")
    create.set_defaults(run=_create_keys)
    listing = actions.add_parser(
        "list",
        parents=[folder],
        help="show whose certificates are in a folder",
        description="Show who may talk to the owner of a folder, with public keys that people can compare.",
    )
    listing.set_defaults(run=_list_keys)


def _add_server(commands: Any) -> None:
    server = commands.add_parser(
        "server",
        help="bring peers together; sees no model",
        description="Bring peers together, round after round, until Ctrl-C. The server sees no model and no share of "
        "one.",
    )
    option = server.add_argument
    option("--port", type=int, default=5555, metavar="N", help="where to listen (default 5555)")
    option("--host", default="*", help="interface to listen on (default: all)")
    option("--keys", default="./keys", metavar="PATH", help="folder of keys (default ./keys)")
    option("--name", default="server", help="of its secret keys there (default server)")
    option("--target-size", type=int, required=True, metavar="N", help="peers that begin a round")
    option("--group-size", type=int, default=3, metavar="N", help="about how many peers a group has (default 3)")
    option(
        "--num-actors",
        type=int,
        default=2,
        metavar="N",
        help="peers of a group who together could see its members' models, and alone nothing (default 2)",
    )
    option(
        "--min-size",
        type=int,
        metavar="N",
        help="with how few peers a round is repeated when others are lost (default: as --group-size)",
    )
    option(
        "--timeout",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds after which who is silent is lost (default 30)",
    )
    option("--profile", choices=PROFILES, default="torch", help="what models are dictionaries of (default torch)")
    option("--digits", type=int, default=6, metavar="N", help="decimals kept of each value (default 6)")
    option("--clip", type=float, default=1e6, metavar="X", help="largest magnitude of a value (default 1e6)")
    option("--max-weight", type=int, default=1, metavar="N", help="largest weight of a peer (default 1)")
    option("--combine", metavar="RULE", help="let means of groups meet this rule, a --gar of attack.py, such as krum")
    option("--combine-f", type=int, metavar="N", help="groups that may be poisoned (default 1)")
    option("--combine-args", nargs="*", metavar="key:value", help="of the rule, as --gar-args of attack.py")
    server.set_defaults(run=_run_server)


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="a server and peers that train together, on this machine",
        description="A server and peers as processes on this machine. Each peer trains a small network on samples of "
        "its\nown; after each epoch all average their networks, and nobody sees another's.",
    )
    default = DemoSettings()
    for name, (kind, metavar, text) in DEMO.items():
        value = getattr(default, name)
        shown = "" if value is None else f" (default {value:g})" if kind is float else f" (default {value})"
        demo.add_argument("--" + name.replace("_", "-"), type=kind, default=value, metavar=metavar, help=text + shown)
    demo.add_argument("--no-cuda", action="store_true", help="compute on the CPU even if there is a GPU")
    demo.add_argument(
        "--debug", action="store_true", help="write what server and peers count, and their errors, to stderr"
    )
    demo.set_defaults(run=_run_demo)


def _create_keys(arguments: argparse.Namespace) -> int:
    directory, console = Path(arguments.directory), Console()
    create_several(arguments.names, directory)
    for name in arguments.names:
        secret, public = directory / (name + SECRET), directory / (name + PUBLIC)
        console.say(f"{name}: keep {secret} to yourself; copy {public} to all who may talk to {name}")
    return 0


def _list_keys(arguments: argparse.Namespace) -> int:
    directory, console = Path(arguments.directory), Console()
    own, certificates = own_names(directory), read_certificates(directory).values()
    width = max((len(certificate.name) for certificate in certificates), default=0)
    for certificate in certificates:
        mark = "  secret keys are here" if certificate.name in own else ""
        console.say(f"{certificate.name:{width}}  {z85.encode(certificate.key).decode()}{mark}")
    if not certificates:
        console.say(f"no certificates in {directory}")
    return 0


def _run_server(arguments: argparse.Namespace) -> typing.NoReturn:
    if arguments.min_size is None:
        arguments.min_size = arguments.group_size
    try:
        combine = _combination(arguments)
        server = SchedulingServer(
            arguments.port,
            arguments.target_size,
            arguments.group_size,
            arguments.num_actors,
            _profile(arguments),
            keys=arguments.keys,
            name=arguments.name,
            host=arguments.host,
            min_size=arguments.min_size,
            timeout_s=arguments.timeout,
            **combine,
        )
        serve(server, Console(), lambda console: _introduce(arguments, console))
    except UserError as error:
        raise _in_flags(error) from error


def _combination(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the command line says of a rule, as arguments of a server."""
    given = {name: getattr(arguments, name) for name in ("combine", "combine_f", "combine_args")}
    given = {name: value for name, value in given.items() if value is not None}
    if given and arguments.combine is None:
        raise UserError(f"--{next(iter(given)).replace('_', '-')}: expected --combine as well")
    if "combine_args" in given:
        try:
            given["combine_args"] = parse_pairs(arguments.combine_args)
        except UserError as error:
            raise UserError(f"--combine-args: {error}") from None
    return given


def _profile(arguments: argparse.Namespace) -> AggregationProfile:
    try:
        return PROFILES[arguments.profile](arguments.digits, arguments.clip, arguments.max_weight)
    except ValueError as error:
        raise UserError(str(error)) from error


def _introduce(arguments: argparse.Namespace, console: Console) -> None:
    """Say what a server does, and who may take part."""
    keys = Path(arguments.keys)
    own = read_identity(keys, arguments.name)
    others = [each.name for each in read_certificates(keys).values() if each.key != own.key]
    groups = {
        "rounds": ("target_size", "group_size", "num_actors", "min_size", "timeout"),
        "models": ("profile", "digits", "clip", "max_weight", "combine", "combine_f", "combine_args"),
    }
    shown: dict[str, dict[str, Any]] = {"listening": {"host": arguments.host, "port": arguments.port}}
    for group, names in groups.items():
        values = {name.replace("_", "-"): getattr(arguments, name) for name in names}
        shown[group] = {name: value for name, value in values.items() if value is not None}
    shown["keys"] = {
        "folder": keys,
        arguments.name: z85.encode(own.key).decode(),
        "permitted": f"{len(others)}: {', '.join(others)}",
    }
    console.show(make_tree("server", shown))
    if not others:
        console.warn(f"peers: nobody may connect yet: copy the certificates of peers, NAME{PUBLIC}, to {keys}")


def _in_flags(error: UserError) -> UserError:
    """Return an error of the library in the words of the command line."""
    first, colon, rest = str(error).removeprefix("aggregation_profile: ").partition(":")
    if first == "keys":
        return error
    words = FIRST_WORDS.get(first, first) + colon + rest
    return UserError(re.sub(rf"(?<!-)\b({'|'.join(FLAGS)})\b", lambda match: FLAGS[match[0]], words))


def _run_demo(arguments: argparse.Namespace) -> int:
    values = vars(arguments)
    return run_demo(DemoSettings(**{field.name: values[field.name] for field in dataclasses.fields(DemoSettings)}))
