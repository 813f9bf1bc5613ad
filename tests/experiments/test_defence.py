"""Pre-aggregators before the rule, what attackers know of both, poisoned workers, and the gradient a server trusts."""

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from aggregators import gars
from aggregators.pre import pre_gars
from attacks import attacks
from experiments.command_line import parse
from experiments.config import RunConfig
from experiments.defence import Defender, Rehearsal
from experiments.sampling import SampleStream
from experiments.server import ServerSimulation
from tests.experiments.test_server import configure, loss_and_gradient, make_data
from tools.errors import UserError


def defender(**options: Any) -> Defender:
    config = configure(**options)
    result = Defender(config.defences(), config.nb_decl_byz, 1, torch.device("cpu"))
    result.draw()
    return result


@pytest.fixture
def vectors(generator: torch.Generator) -> Tensor:
    return torch.randn(7, 40, generator=generator).double() + 1


def test_pre_aggregators_come_before_the_rule_in_their_order(vectors: Tensor) -> None:
    nnm, arc = (functools.partial(pre_gars[name].transform, f=2) for name in ("nnm", "arc"))
    krum = functools.partial(gars["krum"].aggregate, f=2, m=1)
    settings = {"gar": "krum", "gar_args": {"m": 1}}
    for names, expected in ((["nnm", "arc"], krum(arc(nnm(vectors)))), (["arc", "nnm"], krum(nnm(arc(vectors))))):
        result, shares = defender(pre_gar=names, **settings)(vectors)
        assert torch.equal(result, expected)
        assert shares is None
    assert not torch.equal(krum(arc(nnm(vectors))), krum(nnm(arc(vectors))))


def test_arguments_reach_the_pre_aggregators_that_have_them(vectors: Tensor) -> None:
    line = "--nb-workers 33 --pre-gar bucketing clipping nnm --gar krum --pre-gar-args s:3 c:0.5"
    config = parse(line.split())
    assert parse(config.to_argv()) == config
    assert RunConfig.from_dict(config.to_dict()) == config
    (defence,) = config.defences()
    assert [(pre.name, arguments) for pre, arguments in defence.before] == [
        ("bucketing", {"s": 3}),
        ("clipping", {"c": 0.5}),
        ("nnm", {}),
    ]
    assert config.name == "digits-bucketing-clipping-nnm-krum-n_33-lr_0.01-at_update-1"
    assert defence.takes_copies is False
    assert parse(["--gar", "krum"]).defences()[0].takes_copies


BAD = [
    ("--pre-gar nmm", "unknown pre-aggregator 'nmm', expected one of: arc, bucketing, clipping, nnm"),
    ("--pre-gar-args s:2", "--pre-gar-args: expected --pre-gar as well"),
    ("--pre-gar nnm bucketing --pre-gar-args c:2", "--pre-gar-args: nnm, bucketing have no argument 'c', expected: s"),
    ("--pre-gar nnm --pre-gar-args out:2", "--pre-gar-args: nnm has no argument 'out', expected: no arguments"),
    ("--pre-gar bucketing --pre-gar-args s:0", "--pre-gar, --pre-gar-args"),
    ("--pre-gar bucketing --gar krum", "krum: expected f from 0 to 1 for n = 6, got 4"),
    ("--gar ubar", "--gar: expected a rule for a server, got ubar, which needs 'loss'"),
    (
        "--topology ring --nb-decl-byz 0 --gar cs+ --gar-args byzantine-weight:-1",
        "--gar, --gar-args, --nb-workers: cs+: expected byzantine_weight from 0 to 1, got -1",
    ),
    (
        "--topology ring --nb-decl-byz 1 --pre-gar bucketing --pre-gar-args s:0",
        "--pre-gar, --pre-gar-args, --gar, --gar-args, --nb-workers: bucketing: expected s",
    ),
    ("--topology ring --nb-decl-byz 1 --gar krum --gar-args m:50", "krum: expected m from 1 to n - f - 2 = 9, got 50"),
    ("--gars krum,1;ios,1", "--gar: expected a rule for a server, got ios, which needs 'weights_row'"),
    ("--attack dissensus", "--attack: expected one that works against a server, got dissensus, which needs a topology"),
    ("--attack worst-of --attack-args attacks:alie,dissensus", "expected attacks that make vectors for a server"),
    ("--attack worst-of --attack-args attacks:alie,x", "unknown attack 'x'"),
    ("--attack optimal-alie --attack-args evaluations:1", "expected at least 2 evaluations"),
    ("--gar fltrust --gar-args root:0", "fltrust: expected root"),
    ("--attack labelflip --attack-args num_classes:3", "labelflip has no argument 'num_classes'"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_command_lines(line: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(line.split())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_study_knows_no_shares_after_a_pre_aggregator() -> None:
    simulation = ServerSimulation(configure(gar="krum", pre_gar=["nnm"]), make_data(), 1)
    simulation.step()
    assert math.isnan(simulation.metrics.flush()[0][-1])


def test_attackers_rehearse_the_whole_defence_without_a_trace(vectors: Tensor) -> None:
    ours = defender(pre_gar=["bucketing"], gar="average")
    rehearsal = Rehearsal(ours, 5, {"n": 7})
    tried = [rehearsal(vectors) for _ in range(3)]
    result, _ = ours(vectors)
    assert all(torch.equal(one, result) for one in tried)  # the permutation to come
    assert rehearsal.damage_along(vectors[:5], vectors[5], vectors[6], 2) is None


def test_attackers_who_differ_are_not_taken_for_copies(vectors: Tensor) -> None:
    ours = defender(gar="krum", gar_args={"m": 1})
    for closest in (5, 6):
        rows = vectors.clone()
        rows[closest] = vectors[:5].mean(dim=0)
        assert torch.equal(Rehearsal(ours, 5, {"n": 7})(rows), gars["krum"].aggregate(rows, f=2, m=1))


def test_copies_are_none_any_more_after_a_pre_aggregator(vectors: Tensor) -> None:
    vectors[6] = vectors[5]
    settings = {"pre_gar": ["bucketing"], "pre_gar_args": {"s": 1}, "gar": "krum"}  # buckets of one: another order
    known, unknown = defender(**settings), defender(**settings)
    for _ in range(5):
        assert_close(known(vectors, copies=2)[0], unknown(vectors)[0])


@pytest.mark.parametrize("after", ["nnm", "clipping"])
def test_mixing_weights_end_with_the_vectors_that_had_them(vectors: Tensor, after: str) -> None:
    settings = {"pre_gar": ["bucketing", after], "gar": "average", "nb_decl_byz": 1}
    weights = torch.full((7,), 1 / 7, dtype=torch.float64)
    known, unknown = defender(**settings), defender(**settings)
    assert_close(known(vectors, weights_row=weights)[0], unknown(vectors)[0])


def test_each_of_several_rules_remembers_its_own_steps(vectors: Tensor) -> None:
    ours, states = defender(gars="foolsgold,1;foolsgold,1"), {0: {}, 1: {}}
    for step in range(8):
        ours.draw()
        rows = vectors + step * vectors.roll(step)
        assert_close(ours(rows)[0], gars["foolsgold"].aggregate(rows, f=2, state=states[ours._drawn]))
    assert all(states.values())


@pytest.mark.parametrize("rule", [name for name, rule in gars.items() if rule.form == "weights_by_distance"])
@pytest.mark.parametrize("before", [[], ["nnm"], ["nnm", "nnm"]], ids=" ".join)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_damage_by_distances_is_the_damage(rule: str, before: list[str], dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(3)
    honest = torch.randn(9, 20_000, generator=draw, dtype=torch.float64).to(dtype) + 5
    base, direction = honest.mean(dim=0), honest.std(dim=0)
    known = defender(nb_workers=12, gar=rule, pre_gar=before)
    damage = Rehearsal(known, 9, {}).damage_along(honest, base, direction, 3)
    for factor in (0.0, 0.3, 1.0, -0.7, 20.0):
        result, _ = known(torch.cat([honest, (base + factor * direction).expand(3, -1)]))
        expected = float((result.double() - honest.double().mean(dim=0)).square().sum())
        assert damage(factor) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert known.damage_along(honest.float() * 1e25, base.float(), direction.float(), 3) is None  # overflows


def test_searches_look_at_vectors_once_where_distances_tell_all(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(3)
    honest = torch.randn(12, 50, generator=draw, dtype=torch.float64) + 0.5
    krum = gars["krum"]
    by_vectors = attacks["optimal-alie"].generate(honest, f=4, aggregate=lambda rows: krum.aggregate(rows, f=4))
    monkeypatch.setattr(krum, "aggregate_and_weights", None)
    quick = attacks["optimal-alie"].generate(honest, f=4, aggregate=functools.partial(krum.aggregate, f=4))
    assert_close(quick, by_vectors)


@pytest.mark.parametrize("momentum_at", ["update", "server", "worker"])
@pytest.mark.parametrize("options", [{}, {"nb_local_steps": 2}, {"momentum_nesterov": True}], ids=str)
def test_poisoners_do_what_honest_workers_do(momentum_at: str, options: dict[str, Any]) -> None:
    """Their vectors are those of honest workers who were given the opposite labels."""
    config = configure(
        gar="average", attack="labelflip", momentum_at=momentum_at, gradient_clip=0.5, dampening=0.1, **options
    )
    data = make_data()
    simulation, clean = ServerSimulation(config, data, 1), SampleStream(data.train, 1, "poison")
    momenta, mu = torch.zeros(2, simulation.model.d), config.momentum
    server_momentum = torch.zeros(simulation.model.d)
    for _ in range(3):
        theta = simulation.model.parameters.clone()
        rate = simulation.learning_rate()
        for worker in range(2):
            own = momenta[worker] if momentum_at == "worker" else server_momentum
            position = theta - (mu * rate * own if config.momentum_nesterov else 0)
            total = torch.zeros_like(theta)
            for _ in range(config.nb_local_steps):
                batch = clean.take(config.batch_size, 1)
                _, gradient = loss_and_gradient(position, batch.inputs, 2 - batch.targets, config)
                total, position = total + gradient, position - rate * gradient
            momenta[worker] = total * 0.9 + mu * own if momentum_at != "update" else total
        simulation.step()
        assert_close(simulation._vectors[simulation.h :], momenta, rtol=1e-4, atol=1e-6)
        if momentum_at == "update":
            server_momentum = mu * server_momentum + 0.9 * simulation._previous_defense
        elif momentum_at == "server":
            server_momentum = simulation._previous_defense.clone()


def test_poisoners_take_no_sample_from_honest_workers() -> None:
    honest = []
    for attack in ("empire", "labelflip", "random-labels"):
        simulation = ServerSimulation(configure(attack=attack), make_data(), 1)
        simulation.step()
        honest.append(simulation._honest.clone())
    assert torch.equal(honest[0], honest[1])
    assert torch.equal(honest[0], honest[2])


def trusted_vectors(config: RunConfig, steps: int, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Return what a run's rule was given as trusted."""
    seen, weigh = [], gars["fltrust"].combine.__func__

    @functools.wraps(weigh)
    def spy(cls: Any, gradients: Tensor, /, *, trusted: Tensor, **context: Any) -> Any:
        seen.append(trusted.clone())
        return weigh(cls, gradients, trusted=trusted, **context)

    monkeypatch.setattr(gars["fltrust"], "combine", classmethod(spy))
    ServerSimulation(config, make_data(), 1).run(steps)
    monkeypatch.undo()
    return seen


@pytest.mark.parametrize("momentum_at", ["update", "server", "worker"])
def test_the_server_trusts_its_own_samples(momentum_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(gar="fltrust", gar_args={"root": 9}, momentum_at=momentum_at, gradient_clip=0.5)
    seen = trusted_vectors(config, 3, monkeypatch)
    simulation, data = ServerSimulation(config, make_data(), 1), make_data()
    root = SampleStream(data.train, 1, "root").take(9, 1)
    momentum = torch.zeros(simulation.model.d)
    for trusted in seen:
        theta = simulation.model.parameters.clone()
        _, gradient = loss_and_gradient(theta, root.inputs, root.targets, config)
        expected = gradient if momentum_at == "update" else gradient + config.momentum * momentum
        assert_close(trusted, expected, rtol=1e-4, atol=1e-6)
        simulation.step()
        momentum = expected if momentum_at == "worker" else simulation._previous_defense.clone()


def test_root_batch_of_more_samples_than_there_are() -> None:
    with pytest.raises(UserError, match=r"--gar-args: expected root:1 to root:37, samples of the data, got 38"):
        ServerSimulation(configure(gar="fltrust", gar_args={"root": 38}), make_data(), 1)
    with pytest.raises(UserError, match=r"--gars: expected root:1 to root:37, samples of the data, got 100"):
        ServerSimulation(configure(gars="fltrust,1"), make_data(), 1)
    with pytest.raises(UserError, match=r"--gars: expected one size of the root batch, got 5, 6"):
        ServerSimulation(configure(gars='fltrust,1,{"root": 5};fltrust,1,{"root": 6}'), make_data(), 1)


@pytest.mark.parametrize(
    "options",
    [
        {"attack": "labelflip", "momentum_at": "worker", "gar": "fltrust", "gar_args": {"root": 6}},
        {"attack": "random-labels", "momentum_at": "update", "gar": "krum", "pre_gar": ["nnm"]},
        {"attack": "mimic", "gars": "clippedclustering,1;foolsgold,1;dnc,2"},
        {"attack": "worst-of", "gar": "average", "pre_gar": ["bucketing", "clipping"]},
        {"attack": "gaussian", "gar": "signguard", "momentum_at": "server"},
    ],
    ids=lambda options: options["attack"],
)
def test_runs_continue_with_the_same_bits(options: dict[str, Any]) -> None:
    config = configure(nb_workers=9, **options)
    whole, start, rest = (ServerSimulation(config, make_data(), 1) for _ in range(3))
    whole.run(6)
    start.run(3)
    rest.load_state_dict(start.state_dict())
    rest.run(3)
    assert torch.equal(rest.model.parameters, whole.model.parameters)
    assert repr(rest.metrics.flush()) == repr(whole.metrics.flush()[3:])
