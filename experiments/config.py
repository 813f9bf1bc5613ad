"""All that a run is told: one frozen dataclass, from which `command_line` is built."""

import copy
import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aggregators
from aggregators.pre import CONTEXT as PRE_CONTEXT
from aggregators.pre import PreAggregator, pre_gars
from attacks import CONTEXT as ATTACK_CONTEXT
from attacks import Attack, attacks
from experiments import datasets, losses, models
from experiments.criteria import Criterion, criteria
from experiments.defence import Defence
from experiments.initialisation import initialisers
from experiments.network import check_arguments as check_network
from experiments.partitions import partitions
from experiments.protocols import Protocol, protocols
from experiments.shards import check_arguments as check_partition
from experiments.topologies import topologies
from tools.arguments import bind, explicit_parameters, format_pairs, spelled
from tools.errors import UserError
from tools.registry import Registry
from tools.schedule import parse_schedule

SECTIONS = {
    "seed": "run",
    "nb_workers": "workers",
    "topology": "topology",
    "pre_gar": "rule",
    "attack": "attack",
    "dataset": "data",
    "model": "model",
    "loss": "loss",
    "learning_rate": "optimisation",
    "nb_for_study": "study and results",
}
"""Groups of fields, by the first field of each."""
SERVER = "server"
"""The topology in which all workers talk to one server, and no protocol is needed."""
SHARED = "shared"
"""The partition that is none: all workers read one stream."""
RULE_CONTEXT = {True: {"trusted", "state", "generator"}, False: {"weights_row", "loss", "state", "generator"}}
"""What rules can be given, of what they may need: with a server, and without."""
KNOWN_AT_A_SERVER = ATTACK_CONTEXT - {"weights", "adjacency"}
"""What attackers of a server know, of what attacks may need."""


def option(
    default: Any,
    help: str,
    *,
    metavar: str = "",
    decides: bool = True,
    choices: Sequence[str] | Mapping[str, Any] = (),
    at_least: float = -math.inf,
    at_most: float = math.inf,
    more_than: float = -math.inf,
    below: float = math.inf,
) -> Any:
    """Declare a field of RunConfig.

    Args:
        help: for the command line.
        metavar: what stands for the value in the help, if not N, X or NAME by type.
        decides: whether it decides any number of the results.
        choices: allowed words, if not all; a registry raises its own error for others.
        at_least, at_most, more_than, below: the range of a number.
    """
    limits = {"≥": at_least, "≤": at_most, ">": more_than, "<": below}
    metadata = {
        "help": help,
        "metavar": metavar,
        "decides": decides,
        "choices": choices,
        "limits": {sign: limit for sign, limit in limits.items() if math.isfinite(limit)},
    }
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that decides a run's numbers, and where they go; saved as config.json beside them.

    Constructing one checks everything that can be checked without data, model or device, and fills in the defaults that
    depend on other fields.

    Raises:
        UserError: a number out of range, an unknown name, an argument that a rule does not have, numbers of workers
            that the rule or the attack cannot take.
    """

    seed: int = option(1, "seed of all randomness; negative: a fresh one, recorded")
    device: str = option("auto", "where the run computes: auto, cpu, cuda or cuda:<index>", metavar="DEVICE")
    device_gar: str = option("same", "where the rule computes: same, cpu, cuda or cuda:<index>", metavar="DEVICE")
    threads: int | None = option(None, "CPU threads; by default as many as cores", at_least=1, at_most=1024)
    nb_steps: int = option(300, "training steps, after those of a checkpoint; negative: no limit", decides=False)

    nb_workers: int = option(11, "workers, Byzantine ones included", at_least=1, at_most=10**6)
    nb_decl_byz: int = option(4, "Byzantine workers the rule must tolerate", at_least=0)
    nb_real_byz: int | None = option(
        None,
        "Byzantine workers that really attack; by default as many as declared with --attack, 0 without",
        at_least=0,
    )
    participation: float = option(
        1.0, "share of the workers that take part in a step, drawn anew", more_than=0, at_most=1
    )

    topology: str = option(SERVER, "who hears whom", choices=topologies)
    topology_args: dict[str, Any] = option(
        {},
        "arguments of the topology, and what all have: weights (metropolis, uniform, max-degree, lazy), byzantine "
        "(last, random or a list of nodes), connected, allow-weak; see below",
    )
    protocol: str | None = option(
        None, "what nodes without a server exchange, and how they mix it; by default robust", choices=protocols
    )
    protocol_args: dict[str, Any] = option({}, "arguments of the protocol, see below")
    nb_local_byz: int | None = option(
        None,
        "Byzantine neighbours a node must tolerate; by default the declared number on complete graphs, elsewhere the "
        "largest that an honest node has",
        at_least=0,
    )
    batching: str = option(
        "on",
        "off: compute worker by worker and node by node, as processes of their own would",
        choices=("on", "off"),
    )
    stop_below: float | None = option(
        None, "end the run when no honest worker's parameters moved that far in a step", more_than=0
    )

    pre_gar: list[str] = option([], "what happens to vectors before the rule, in this order", choices=pre_gars)
    pre_gar_args: dict[str, Any] = option({}, "arguments of the pre-aggregators, see below; each takes those it has")
    gar: str | None = option(
        None, "aggregation rule; by default average, or what the protocol suggests", choices=aggregators.gars
    )
    gar_args: dict[str, Any] = option({}, "arguments of the rule, see below")
    gars: str | None = option(
        None,
        'rules drawn at random, one per step: "name,frequency[,{json arguments}];…"; replaces --gar',
        metavar="RULES",
    )
    attack: str | None = option(None, "what Byzantine workers send", choices=attacks)
    attack_args: dict[str, Any] = option({}, "arguments of the attack, see below")

    dataset: str = option("digits", "data", choices=datasets.datasets)
    dataset_args: dict[str, Any] = option({}, "arguments of the dataset, see below")
    data_directory: str = option(
        str(datasets.DEFAULT_DIRECTORY),
        "folder of all datasets, in torchvision's layout",
        metavar="PATH",
        decides=False,
    )
    partition: str | None = option(
        None,
        "which samples each worker has; by default all the same ones at a server, equal random parts elsewhere",
        choices=partitions,
    )
    partition_args: dict[str, Any] = option({}, "arguments of the partition, see below")
    batch_size: int = option(25, "training samples per worker and step", at_least=1)
    batch_size_test: int = option(100, "test samples per batch of an evaluation", at_least=1)
    batch_size_test_reps: int | None = option(
        None, "batches per evaluation; by default as many as the test set has", at_least=1, at_most=10**6
    )
    no_transform: bool = option(False, "leave out the dataset's normalisation and random flips")
    test_augment: bool = option(False, "also change test samples at random, as the ICLR 2021 code did")

    model: str | None = option(
        None,
        f"model: {', '.join(models.architectures)}, or torchvision-<name>; by default what suits the dataset",
    )
    model_args: dict[str, Any] = option({}, "arguments of the model, see below; of torchvision's: as it documents them")
    train_mode: str = option(
        "train",
        "mode of batch normalisation and dropout in training; the ICLR 2021 code trained in eval mode",
        choices=("train", "eval"),
    )
    init_multi: str | None = option(
        None, "torch.nn.init function for parameters of several dimensions", choices=initialisers
    )
    init_multi_args: dict[str, Any] = option({}, "its arguments, as torch.nn.init documents them")
    init_mono: str | None = option(None, "torch.nn.init function for parameters of one dimension", choices=initialisers)
    init_mono_args: dict[str, Any] = option({}, "its arguments, as torch.nn.init documents them")
    loss: str | None = option(None, "training loss; by default what suits the dataset", choices=losses.LOSSES)
    loss_args: dict[str, Any] = option({}, "its arguments, as torch.nn documents them")
    criterion: str | None = option(None, "what counts as right; by default what suits the dataset", choices=criteria)
    criterion_args: dict[str, Any] = option({}, "arguments of the criterion, see below")
    l1_regularize: float = option(0.0, "λ of the term λ‖θ‖₁ of the loss", at_least=0)
    l2_regularize: float = option(0.0, "λ of the term λ‖θ‖₂ of the loss, the norm not squared", at_least=0)

    learning_rate: float = option(0.01, "learning rate at the start", at_least=0)
    learning_rate_decay: float = option(
        5000.0, "steps in which the rate halves, hyperbolically: rate / (t / decay + 1); not positive: never"
    )
    learning_rate_decay_delta: int = option(1, "steps between two changes of the rate", at_least=1)
    learning_rate_schedule: str | None = option(
        None, 'explicit rates "rate[,step,rate]*", instead of the decay', metavar="RATES"
    )
    momentum: float = option(0.9, "momentum μ", at_least=0, below=1)
    dampening: float = option(0.0, "dampening δ of the momentum", at_least=0, at_most=1)
    momentum_nesterov: bool = option(False, "compute gradients where the momentum leads (Nesterov)")
    momentum_at: str | None = option(
        None,
        "update: of what the rule returns; server: one added to every gradient; worker: one per worker; by default "
        "update at a server, worker elsewhere",
        choices=("update", "server", "worker"),
    )
    weight_decay: float = option(0.0, "λ of the step −ηλθ, never clipped", at_least=0)
    gradient_clip: float | None = option(None, "largest norm of a sampled gradient", more_than=0)
    nb_local_steps: int = option(1, "SGD steps of each worker per step", at_least=1)

    nb_for_study: int = option(
        1, "gradients sampled per step for the study, at least the honest ones; 0: no study", at_least=0, at_most=10**6
    )
    nb_for_study_past: int = option(1, "past average gradients that the curvature looks at", at_least=1)
    evaluation_delta: int = option(10, "steps between evaluations; 0: none", at_least=0)
    checkpoint_delta: int = option(0, "steps between checkpoints; 0: only when interrupted", decides=False, at_least=0)
    checkpoint_keep: int | None = option(
        None, "checkpoints that are kept, the latest; by default all", decides=False, at_least=1
    )
    user_input_delta: int = option(0, "steps between prompts; 0: none", decides=False, at_least=0)
    load_checkpoint: str | None = option(None, "checkpoint to continue from", metavar="PATH", decides=False)
    result_directory: str | None = option(
        None, "folder of this run's results; by default results-data/<name of the run>", metavar="PATH", decides=False
    )
    tensorboard: bool = option(False, "also write TensorBoard event files", decides=False)

    def __post_init__(self) -> None:
        for name in ("init_multi", "init_mono"):  # torch's own names end in an underscore
            object.__setattr__(self, name, getattr(self, name) and getattr(self, name).removesuffix("_"))
        for field in dataclasses.fields(self):
            _check_field(field, getattr(self, field.name))
        self._set_defaults()
        self._check_topology()
        self._check_workers()
        self._check_model()
        if self.learning_rate_schedule is not None:
            parse_schedule(self.learning_rate_schedule)
        if self.folder().name in ("", ".."):
            raise UserError(f"--result-directory: expected the name of a folder, got {self.result_directory!r}")
        for flag, name in (("--device", self.device), ("--device-gar", self.device_gar)):
            _check_device_name(flag, name)

    def _set_defaults(self) -> None:
        suited = datasets.datasets[self.dataset]
        defaults = {"model": suited.model, "loss": suited.loss, "criterion": suited.criterion}
        defaults |= {"nb_real_byz": self.nb_decl_byz if self.attack else 0}
        if self.has_server:
            defaults |= {"gar": "average", "momentum_at": "update", "partition": SHARED}
        else:
            defaults |= {"protocol": "robust", "momentum_at": "worker", "partition": "iid"}
            defaults |= {"gar": protocols[self.protocol or "robust"].rule or "average"}
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @property
    def has_server(self) -> bool:
        """Whether workers talk to a server, and not to each other."""
        return self.topology == SERVER

    @property
    def nb_present(self) -> int:
        """Workers that take part in a step."""
        return math.ceil(round(self.participation * self.nb_workers, 9))

    def _check_topology(self) -> None:
        if self.has_server:
            for name in ("topology_args", "protocol", "protocol_args", "nb_local_byz"):
                if (given := getattr(self, name)) not in (None, {}):
                    flag = "--" + name.replace("_", "-")
                    raise UserError(f"{flag}: expected --topology as well, other than {SERVER}, got {given}")
            return
        check_network(self.topology, self.topology_args, self.nb_workers, self.nb_real_byz)
        if self.participation != 1:
            raise UserError(f"--participation: expected 1 without a server, got {self.participation:g}")
        protocol, arguments = self.protocol_and_arguments()
        protocol.check(n=self.nb_workers, f=self.nb_decl_byz, f_real=self.nb_real_byz, **arguments)
        if self.momentum_at not in protocol.momentum_places:
            places = " or ".join(protocol.momentum_places)
            raise UserError(f"--momentum-at: expected {places} with --protocol {self.protocol}, got {self.momentum_at}")
        if protocol.dampens and self.dampening not in (0, self.momentum):
            raise UserError(
                f"--dampening: expected none with --protocol {self.protocol}, whose momentum is dampened by "
                f"itself, got {self.dampening:g}"
            )
        own = protocol.rule or "average"
        if protocol.rule is None and not protocol.takes_rules:
            for flag, given in (("--nb-local-byz", self.nb_local_byz), ("--device-gar", self.device_gar)):
                if given not in (None, "same"):
                    raise UserError(
                        f"{flag}: expected none with --protocol {self.protocol}, which has no rule, got {given}"
                    )
        if not protocol.takes_rules and (self.gar != own or self.gars or self.pre_gar or self.gar_args):
            raise UserError(
                f"--gar, --gar-args, --gars, --pre-gar: expected none with --protocol {self.protocol}, which mixes "
                f"in its own way; use --protocol robust"
            )

    def protocol_and_arguments(self) -> tuple[type[Protocol], dict[str, Any]]:
        """Return the protocol with its arguments, of a run without a server."""
        protocol = protocols[self.protocol]
        return protocol, bind(protocol.check, self.protocol_args, f"--protocol-args: {self.protocol}", Protocol.CONTEXT)

    def _check_workers(self) -> None:
        n, f = self.nb_workers, self.nb_decl_byz
        for flag, number in (("--nb-real-byz", self.nb_real_byz), ("--nb-decl-byz", f)):
            if number >= n:
                raise UserError(f"{flag}: expected 0 to {n - 1}, at least one worker being honest, got {number}")
        if self.nb_real_byz and self.attack is None:
            raise UserError(f"--attack: expected one of {', '.join(attacks)} for {self.nb_real_byz} Byzantine workers")
        for defence in self.defences():
            self._check_defence(defence)
        if (
            self.has_server
            and self.attack is not None
            and (missing := set(attacks[self.attack].needs) - KNOWN_AT_A_SERVER)
        ):
            raise UserError(
                f"--attack: expected one that works against a server, got {self.attack}, which needs a topology "
                f"(its {' and '.join(sorted(missing))})"
            )
        if self.nb_present <= self.nb_real_byz:
            raise UserError(
                f"--participation: expected a share of more than {self.nb_real_byz} of {n} workers, or a step may have "
                f"no honest one, got {self.participation:g}, which is {self.nb_present}"
            )
        check_partition(self.partition, self.partition_args, n)
        if self.attack is None:
            if self.attack_args:
                raise UserError("--attack-args: expected --attack as well")
            return
        if self.participation < 1 and "state" in explicit_parameters(attacks[self.attack].formula()):
            raise UserError(
                f"--participation: expected 1 with --attack {self.attack}, which remembers who sent what, got "
                f"{self.participation:g}"
            )
        self.check_attack()

    def _check_defence(self, defence: Defence) -> None:
        for piece in sorted(defence.needs - RULE_CONTEXT[self.has_server]):
            if self.has_server:
                expected, who = "a rule for a server", "workers that mix their vectors with those of neighbours have"
            else:
                expected, who = "a rule for workers without a server", "a server has"
            raise UserError(
                f"--gar: expected {expected}, got {defence.rule.name}, which needs {piece!r}: only {who} that"
            )
        if self.participation < 1 and "state" in explicit_parameters(defence.rule.formula()):
            raise UserError(
                f"--participation: expected 1 with {defence.rule.name}, which remembers what each worker sent, got "
                f"{self.participation:g}"
            )
        if not self.has_server and "weights_row" in defence.rule.needs and defence.changes_rows(10, 0):
            raise UserError(
                f"--pre-gar: expected one that keeps every vector before {defence.rule.name}, which has a weight "
                f"for each, got {', '.join(self.pre_gar)}"
            )
        flags = "--gars" if self.gars is not None else "--gar, --gar-args"
        flags = f"--pre-gar, --pre-gar-args, {flags}" if self.pre_gar else flags
        flags = f"--participation, {flags}" if self.participation < 1 else flags
        flags = f"{flags}, --nb-workers{', --nb-decl-byz' * self.has_server}"
        # Without a server, what nodes receive is known when there is a network: at best all vectors, none Byzantine
        try:
            defence.check(n=self.nb_present, f=self.nb_decl_byz if self.has_server else 0)
        except (ValueError, TypeError) as error:
            raise UserError(f"{flags}: {error}") from error

    def check_attack(self, **specialized: Any) -> None:
        """Raise a UserError if the attack cannot take its arguments and numbers, and what else is known, such as d."""
        attack, arguments = self.attack_and_arguments()
        absent, most = self.nb_workers - self.nb_present, self.nb_real_byz
        for present in range(max(most - absent, min(most, 1)), most + 1):  # attackers in a step, those that may be
            try:
                attack.check(
                    h=self.nb_present - present, f=present, f_declared=self.nb_decl_byz, **arguments, **specialized
                )
            except (ValueError, TypeError) as error:
                flags = "--participation, --attack" if absent else "--attack"
                raise UserError(f"{flags}, --attack-args: {error}") from error

    def _check_model(self) -> None:
        models.check(self.model, self.model_args)
        datasets.bind_arguments(self.dataset, self.dataset_args)
        losses.Loss(self.loss, self.loss_args)
        self.make_criterion()
        for which in ("multi", "mono"):
            name, arguments = getattr(self, f"init_{which}"), getattr(self, f"init_{which}_args")
            if name is not None:
                bind(initialisers[name], arguments, f"--init-{which}-args: {name}", {"tensor", "generator"})
            elif arguments:
                raise UserError(f"--init-{which}-args: expected --init-{which} as well")

    def defences(self) -> list[Defence]:
        """Return the defences that may be drawn: the rules, each after the pre-aggregators."""
        before = self._pre_aggregators()
        if self.gars is not None and self.gar_args:
            raise UserError("--gar-args: expected none with --gars, whose rules bring their own")
        if self.gars is None:
            arguments = _rule_arguments(self.gar, self.gar_args, "--gar-args")
            if not self.has_server:
                protocol, own = self.protocol_and_arguments()
                arguments |= protocol.rule_arguments(**own)
            return [Defence(aggregators.get(self.gar), arguments, before)]
        defences = []
        for part in self.gars.split(";"):
            name, *rest = (text.strip() for text in part.split(",", maxsplit=2))
            try:
                frequency = float(rest[0])
                arguments = json.loads(rest[1]) if len(rest) > 1 else {}
            except (IndexError, ValueError):
                frequency, arguments = 0, None
            if not 0 < frequency < math.inf or not isinstance(arguments, dict):
                raise UserError(
                    f'--gars: expected "name,frequency[,{{json}}]" parted by ";", frequencies above 0, got {part!r}'
                )
            arguments = _rule_arguments(name, arguments, "--gars")
            defences.append(Defence(aggregators.get(name), arguments, before, frequency))
        return defences

    def _pre_aggregators(self) -> tuple[tuple[type[PreAggregator], dict[str, Any]], ...]:
        flag, named = "--pre-gar-args", [pre_gars[name] for name in self.pre_gar]
        own = [explicit_parameters(pre.unchecked, PRE_CONTEXT) for pre in named]
        known = set().union(*own)
        for key in self.pre_gar_args:
            if not named:
                raise UserError(f"{flag}: expected --pre-gar as well")
            if key not in known:
                expected = ", ".join(map(spelled, sorted(known))) or "no arguments"
                verb = "has" if len(named) == 1 else "have"
                raise UserError(f"{flag}: {', '.join(self.pre_gar)} {verb} no argument {key!r}, expected: {expected}")
        given = [{key: value for key, value in self.pre_gar_args.items() if key in parameters} for parameters in own]
        return tuple(
            (pre, bind(pre.unchecked, arguments, f"{flag}: {pre.name}", PRE_CONTEXT))
            for pre, arguments in zip(named, given, strict=True)
        )

    def attack_and_arguments(self) -> tuple[type[Attack], dict[str, Any]]:
        """Return the attack with its arguments as `generate` takes them."""
        attack = attacks[self.attack]
        return attack, bind(attack.formula(), self.attack_args, f"--attack-args: {self.attack}", ATTACK_CONTEXT)

    def make_criterion(self) -> Criterion:
        """Return the criterion with its arguments."""
        cls = criteria[self.criterion]
        return cls(**bind(cls, self.criterion_args, f"--criterion-args: {self.criterion}"))

    @property
    def name(self) -> str:
        """The run's name: what is usually varied."""
        parts = [self.dataset, None if self.partition == (SHARED if self.has_server else "iid") else self.partition]
        parts += [self.attack if self.nb_real_byz else None]
        parts += [] if self.has_server else [self.topology, self.protocol]
        if self.has_server or protocols[self.protocol].takes_rules:
            parts += [*self.pre_gar, "mixture" if self.gars else self.gar]
        parts += [f"f_{self.nb_decl_byz}" if self.nb_real_byz else f"n_{self.nb_workers}"]
        parts += [f"lr_{self.learning_rate:g}", f"at_{self.momentum_at}"]
        parts += ["nesterov" if self.momentum_nesterov else None, f"{self.seed}" if self.seed >= 0 else "fresh"]
        return "-".join(part for part in parts if part)

    def folder(self) -> Path:
        """Return the run's own result folder."""
        if self.result_directory is None:
            return Path("results-data") / self.name
        return Path(os.path.normpath(self.result_directory))

    def differences(self, other: "RunConfig") -> list[str]:
        """Return the names of the fields that decide numbers and differ; of devices only the kind decides."""

        def deciding(config: RunConfig, name: str) -> Any:
            value = getattr(config, name)
            return value.split(":")[0] if name in ("device", "device_gar") else value

        names = [field.name for field in dataclasses.fields(self) if field.metadata["decides"]]
        return [name for name in names if deciding(self, name) != deciding(other, name)]

    def to_dict(self) -> dict[str, Any]:
        """Return every field, ready for JSON."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """Return the configuration that `to_dict` gave, or raise a UserError."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise UserError(f"expected the fields of a run's configuration, got also {', '.join(unknown)}")
        return cls(**values)

    def to_argv(self) -> list[str]:
        """Return the command line of attack.py that gives this configuration."""
        argv = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool):
                argv += [flag_of(field)] if value else []
            elif isinstance(value, dict):
                argv += [flag_of(field), *format_pairs(value)] if value else []
            elif isinstance(value, list):
                argv += [flag_of(field), *value] if value else []
            elif value is not None:
                argv += [f"{flag_of(field)}={value}"]
        return argv


def flag_of(field: dataclasses.Field) -> str:
    """Return the flag of the command line that sets a field."""
    return "--" + field.name.replace("_", "-")


def kind_of(field: dataclasses.Field) -> type:
    """Return int, float, str, bool, dict or list, whether or not None is allowed."""
    types_ = typing.get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)
    kind = next(part for part in types_ if part is not types.NoneType)
    return typing.get_origin(kind) or kind


def _check_field(field: dataclasses.Field, value: Any) -> None:
    """Raise a UserError unless a value is of the field's type, in its range and among its choices."""
    flag, kind = flag_of(field), kind_of(field)
    if value is None and types.NoneType in typing.get_args(field.type):
        return
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise UserError(f"{flag}: expected {kind.__name__}, got {value!r}")
    limits = field.metadata["limits"]
    tests = {"≥": lambda limit: value >= limit, "≤": lambda limit: value <= limit}
    tests |= {">": lambda limit: value > limit, "<": lambda limit: value < limit}
    if (kind is float and not math.isfinite(value)) or not all(tests[sign](limit) for sign, limit in limits.items()):
        wanted = " and ".join(f"{sign} {limit:g}" for sign, limit in limits.items())
        finite = "a finite number" if kind is float and not math.isfinite(value) else ""
        raise UserError(f"{flag}: expected {' '.join(filter(None, (finite, wanted)))}, got {value}")
    if kind is int and abs(value) >= 2**63:
        raise UserError(f"{flag}: expected a whole number of at most 63 bits, got one of {value.bit_length()}")
    if kind is str and not value.isprintable():
        raise UserError(f"{flag}: expected printable characters, got {value!r}")
    choices = field.metadata["choices"]
    for word in value if kind is list else [value]:
        if choices and word not in choices:
            if isinstance(choices, Registry):
                choices[word]
            raise UserError(f"{flag}: expected one of {', '.join(choices)}, got {word!r}")


def _check_device_name(flag: str, name: str) -> None:
    if name == ("auto" if flag == "--device" else "same"):
        return
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not index.isdigit()):
        words = "auto" if flag == "--device" else "same"
        raise UserError(f"{flag}: expected {words}, cpu, cuda or cuda:<index>, got {name!r}")


def _rule_arguments(name: str, arguments: dict[str, Any], flag: str) -> dict[str, Any]:
    return bind(aggregators.get(name).formula(), arguments, f"{flag}: {name}", aggregators.CONTEXT)
