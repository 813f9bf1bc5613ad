"""Rounds without a server: against the server, against themselves node by node, and what is measured."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from aggregators import gars
from experiments.config import RunConfig
from experiments.network_simulation import NetworkSimulation
from experiments.protocols import protocols
from experiments.server import ServerSimulation
from tests.experiments.test_server import make_data
from tools.errors import UserError


def configure(**options: Any) -> RunConfig:
    defaults = {
        "topology": "complete",
        "nb_workers": 9,
        "nb_decl_byz": 2,
        "attack": "alie",
        "batch_size": 5,
        "model": "simples-full",
        "model_args": {"hidden": 4},
        "learning_rate": 0.2,
    }
    return RunConfig(**{**defaults, **options})


def simulate(rounds: int, **options: Any) -> NetworkSimulation:
    simulation = NetworkSimulation(configure(**options), make_data(60), 1)
    simulation.run(rounds)
    return simulation


def parameters(rounds: int, **options: Any) -> Tensor:
    return simulate(rounds, **options).protocol.parameters


HONEST = {"nb_decl_byz": 0, "attack": None}
WAYS: dict[str, dict[str, Any]] = {
    "dpsgd": {"protocol": "dpsgd", "topology": "two-worlds"},
    "dpsgd over time": {"protocol": "dpsgd", "topology": "one-peer-exponential", "topology_args": {"connected": False}},
    "gossip": {"protocol": "gossip", "topology": "exponential", "weight_decay": 0.01},
    "gossip at update": {"protocol": "gossip", "topology": "ring", "momentum_at": "update", **HONEST},
    "clipped gossip": {"protocol": "clipped-gossip", "protocol_args": {"tau": 0.1}},
    "clipped adaptively": {"protocol": "clipped-gossip", "topology": "exponential", "attack": "dissensus"},
    "monna": {"protocol": "monna", "weight_decay": 0.01},
    "monna, sampled": {"protocol": "monna", "protocol_args": {"reach": "sampled"}, "gar": "trmean"},
    "pull": {"protocol": "epidemic", "protocol_args": {"peers": 5}, "gar": "median"},
    "push": {"protocol": "epidemic", "protocol_args": {"mode": "push", "peers": 4}, "gar": "trmean"},
    "krum": {"gar": "krum", "momentum_nesterov": True, "gradient_clip": 0.5},
    "weak": {
        "gar": "trmean",
        "topology": "erdos-renyi",
        "topology_args": {"allow_weak": True, "connected": False, "byzantine": "random"},
    },
    "private": {"gar": "geomed", "attack": "spectral"},
    "mean at its own": {
        "gar": "geomed",
        "attack": "dissensus",
        "topology": "regular",
        "topology_args": {"k": 4},
        "nb_decl_byz": 1,
    },
    "poison": {"gar": "krum", "attack": "labelflip", "nb_local_steps": 2},
    "random": {"gar": "dnc", "topology": "two-worlds", "topology_args": {"allow_weak": True, "connected": False}},
    "history": {"gar": "clippedclustering", "nb_decl_byz": 3},
    "loss": {"gar": "ubar"},
    "nnm": {"gar": "krum", "pre_gar": ["nnm"], "nb_decl_byz": 1},
    "buckets": {"gar": "median", "pre_gar": ["bucketing"]},
    "mixture": {"gars": "krum,1;median,1;ios,1"},
    "ring": {"topology": "ring", "protocol": "robust", "gar": "gts", **HONEST},
}
"""Runs of all kinds, of which each finds some part of the code alone."""


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_batches_of_nodes_agree_with_nodes_one_by_one(way: dict[str, Any]) -> None:
    on, off = (simulate(20, **way, batching=batching) for batching in ("on", "off"))
    assert on.model.one_by_one == ""
    assert off.model.one_by_one == "--batching is off"
    x, y = on.protocol.parameters, off.protocol.parameters
    assert x.isfinite().all()
    assert float((x - y).norm() / y.norm()) < 1e-5
    rows = [np.array(simulation.metrics.flush()) for simulation in (on, off)]
    assert np.isnan(rows[0]).tolist() == np.isnan(rows[1]).tolist()
    np.testing.assert_allclose(rows[0][:, 23:], rows[1][:, 23:], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("gar", [name for name, rule in gars.items() if "trusted" not in rule.needs])
@pytest.mark.parametrize("before", [[], ["nnm"]], ids=str)
def test_every_rule_mixes_models_however_many_at_a_time(
    gar: str, before: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if gar == "bulyan-iclr21" and before:
        pytest.skip("scores of vectors that nnm makes equal are ties, which rounding breaks in its plain distances")
    options = {"gar": gar, "pre_gar": before, "nb_decl_byz": 1}
    off = parameters(5, **options, batching="off")
    assert off.isfinite().all()
    assert_close(parameters(5, **options), off, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("experiments.mixing.CPU_GATHERED_VALUES", 3 * 9 * off.shape[1])  # three nodes of nine models
    monkeypatch.setattr("experiments.mixing.DISTANCES_AT_ONCE", 2 * 9**2)
    simulation = simulate(0, **options)
    for _ in range(5):
        simulation.protocol.nodes.mixed.fill_(torch.nan)
        simulation.step()
    assert_close(simulation.protocol.parameters, off, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_it_goes_on_from_its_state_with_the_same_bits(way: dict[str, Any]) -> None:
    whole, first, rest = (NetworkSimulation(configure(**way), make_data(60), 1) for _ in range(3))

    def advance(simulation: NetworkSimulation, rounds: int) -> list[tuple[float, ...]]:
        log: list[tuple[float, ...]] = []
        for _ in range(rounds):
            log.append(simulation.evaluate())
            simulation.step()
        return log + simulation.metrics.flush()

    expected = advance(whole, 5)
    advance(first, 2)
    rest.load_state_dict(first.state_dict())
    assert repr(advance(rest, 3)) == repr([*expected[2:5], *expected[7:]])
    assert torch.equal(rest.protocol.parameters, whole.protocol.parameters)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay", [0, 0.01])
def test_complete_averaging_without_attackers_is_the_server(clip: float | None, nesterov: bool, decay: float) -> None:
    common = {
        **HONEST,
        "partition": "shared",
        "momentum_at": "worker",
        "weight_decay": decay,
        "gradient_clip": clip,
        "momentum_nesterov": nesterov,
    }
    server = ServerSimulation(configure(**common, topology="server"), make_data(60), 1)
    network = NetworkSimulation(configure(**common, protocol="dpsgd"), make_data(60), 1)
    for simulation in (server, network):
        simulation.run(15)
    for row in network.protocol.parameters:
        assert_close(row, server.model.parameters, rtol=1e-5, atol=1e-6)
    if decay:  # which is part of the step between two models, but not of what is sent to a server
        return
    ours, theirs = (np.array(simulation.metrics.flush())[:, :24] for simulation in (network, server))
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("protocol", [name for name in protocols if name != "monna"])
def test_a_ring_of_three_is_a_complete_graph(protocol: str) -> None:
    options = {**HONEST, "nb_workers": 3, "protocol": protocol}
    ring, complete = (parameters(5, topology=topology, **options) for topology in ("ring", "complete"))
    assert torch.equal(ring, complete)


@pytest.mark.parametrize("protocol", ["dpsgd", "robust"])
def test_where_attackers_sit_does_not_matter_on_a_complete_graph(protocol: str) -> None:
    ways = ({}, {"byzantine": [0, 4]}, {"byzantine": "random"})
    found = [parameters(3, protocol=protocol, partition="shared", topology_args=way) for way in ways]
    assert_close(found[0], found[1])
    assert_close(found[0], found[2])


def test_shards_belong_to_nodes_wherever_attackers_sit() -> None:
    last, first = (simulate(0, topology_args={"byzantine": nodes}) for nodes in ([7, 8], [0, 1]))
    assert [torch.equal(x, y) for x, y in zip(last.shards, first.shards, strict=True)] == [True] * 9
    assert torch.equal(last._stream.take(5, 1).inputs[10:], first._stream.take(5, 1).inputs[:25])


def test_no_stream_depends_on_how_many_nodes_there_are_beside_the_partition() -> None:
    noise = [simulate(0, partition_args={}, nb_workers=n, **HONEST) for n in (4, 4)]
    assert torch.equal(noise[0]._stream.take(5, 2).inputs, noise[1]._stream.take(5, 2).inputs)


def test_columns_are_what_they_say() -> None:
    """From snapshots of the same rounds, by their definitions, in NumPy."""
    options = {"protocol": "dpsgd", "topology": "two-worlds", "attack": "signflip", "weight_decay": 0.1}
    options["learning_rate_decay"] = 0.0
    measured = NetworkSimulation(configure(**options), make_data(60), 1)
    told = NetworkSimulation(configure(**options), make_data(60), 1)
    weights, h, rate = told.network.weights(0), 7, 0.2
    before = told.protocol.parameters.double().numpy().copy()
    origin = before.mean(axis=0)
    for step in range(4):
        measured.step()
        result = {
            name: part.double().numpy() if isinstance(part, Tensor) else part
            for name, part in told.protocol.step().items()
        }
        told.step_index += 1
        (row,) = measured.metrics.flush()
        row = dict(zip(measured.metrics.columns, row, strict=True))
        local, after = result["local_parameters"], result["parameters"]
        sampled, honest = result["honest_gradients"], (before - local) / rate
        attack = (before.mean(axis=0) - result["byzantine_parameters"]) / rate
        defense = (before.mean(axis=0) - after.mean(axis=0)) / rate
        spread = {"Consensus distance": after, "Consensus distance before mixing": local}
        accepted = weights[:h, h:].sum(axis=1)
        expected = {
            "Step number": step,
            "Training point count": step * 5 * h,
            "Average loss": result["losses"].mean(),
            "l2 from origin": np.linalg.norm(before.mean(axis=0) - origin),
            "Sampled gradient deviation": scatter(sampled, h - 1),
            "Honest gradient deviation": scatter(honest, h - 1),
            "Sampled gradient norm": np.linalg.norm(sampled.mean(axis=0)),
            "Honest gradient norm": np.linalg.norm(honest.mean(axis=0)),
            "Attack gradient norm": np.linalg.norm(attack.mean(axis=0)),
            "Defense gradient norm": np.linalg.norm(defense),
            "Honest-defense cosine": honest.mean(axis=0)
            @ defense
            / np.linalg.norm(honest.mean(axis=0))
            / np.linalg.norm(defense),
            "Attack acceptation ratio": accepted.mean(),
            **{name: scatter(models, h) for name, models in spread.items()},
            "Byzantine weight": accepted.mean(),
            "Largest Byzantine weight": accepted.max(),
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
        before = after


def scatter(rows: np.ndarray, over: int) -> float:
    return math.sqrt(((rows - rows.mean(axis=0)) ** 2).sum() / over)


def test_columns_where_gradients_are_exchanged() -> None:
    options = {"protocol": "gossip", "topology": "ring", "momentum": 0.5, "weight_decay": 0.1, **HONEST}
    options["learning_rate_decay"] = 0.0
    simulation = NetworkSimulation(configure(**options), make_data(60), 1)
    simulation.run(3)
    simulation.metrics.flush()
    protocol = simulation.protocol
    before, momenta = protocol.parameters.clone().double().numpy(), protocol.nodes.momenta.clone().double().numpy()
    simulation.step()
    row = dict(zip(simulation.metrics.columns, simulation.metrics.flush()[0], strict=True))
    sent = protocol.nodes.momenta.double().numpy()
    gradients, after = sent - 0.5 * momenta, protocol.parameters.double().numpy()
    mixed = simulation.network.weights(0) @ sent
    np.testing.assert_allclose(after, (1 - 0.2 * 0.1) * before - 0.2 * mixed, rtol=1e-4, atol=1e-6)
    expected = {
        "Sampled gradient norm": np.linalg.norm(gradients.mean(axis=0)),
        "Honest gradient norm": np.linalg.norm(sent.mean(axis=0)),
        "Honest gradient deviation": scatter(sent, 8),
        "Defense gradient norm": np.linalg.norm(mixed.mean(axis=0)),
        "Consensus distance": scatter(after, 9),
        "Consensus distance before mixing": scatter(before, 9),
        "Byzantine weight": 0.0,
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


def test_attackers_that_nobody_hears_are_not_measured() -> None:
    options = {"topology": "star", "topology_args": {"byzantine": [8]}, "nb_decl_byz": 1, "attack": "dissensus"}
    simulation = simulate(2, **options, protocol="dpsgd")
    heard = simulation.protocol.heard_byzantine()
    assert heard.sum() == 1
    rows = np.array(simulation.metrics.flush())
    assert np.isfinite(rows[:, simulation.metrics.columns.index("Attack gradient norm")]).all()


def test_evaluation_is_of_every_node_and_of_their_mean() -> None:
    simulation = simulate(30, topology="ring", protocol="dpsgd", **HONEST)
    test = simulation.data.test

    def accuracy(row: Tensor) -> float:
        simulation.model.parameters.copy_(row)
        return float((simulation.model.predict(test.inputs).argmax(dim=1) == test.targets).double().mean())

    values = dict(zip(simulation.evaluation_columns, simulation.evaluate(), strict=True))
    nodes = [accuracy(row) for row in simulation.protocol.parameters]
    assert len(set(nodes)) > 1
    assert values["Cross-accuracy"] == pytest.approx(np.mean(nodes))
    assert values["Node minimum"] == pytest.approx(min(nodes))
    assert values["Node maximum"] == pytest.approx(max(nodes))
    assert values["Node deviation"] == pytest.approx(np.std(nodes, ddof=1))
    assert values["Averaged model"] == pytest.approx(accuracy(simulation.protocol.parameters.mean(dim=0)))
    alone = simulate(1, nb_workers=2, nb_decl_byz=1, attack="signflip", protocol="dpsgd")
    assert math.isnan(alone.evaluate()[3])


def test_evaluating_and_studying_never_change_training() -> None:
    plain, studied = (simulate(0, nb_for_study=number) for number in (0, 20))
    for _ in range(4):
        plain.step()
        studied.evaluate()
        studied.step()
    assert torch.equal(plain.protocol.parameters, studied.protocol.parameters)
    assert float(plain.loss) != float(studied.loss)


@pytest.mark.parametrize("protocol", ["dpsgd", "gossip"])
def test_a_run_stops_when_nothing_moves(protocol: str) -> None:
    options = {"protocol": protocol, "topology": "ring", "stop_below": 1e-4, **HONEST}
    assert not simulate(2, **options).stopped
    options["learning_rate_schedule"] = "0.1,2,0"
    assert simulate(3, **options).stopped == (protocol == "gossip")  # models go on mixing when steps have ended
    assert simulate(200, **options).stopped


def test_every_node_learns_from_its_own_samples() -> None:
    simulation = simulate(1, partition="extreme", **HONEST)
    losses = simulation.protocol.nodes.batches.targets.view(9, 5)
    assert all(len(set(row.tolist())) <= 2 for row in losses)
    with pytest.raises(UserError, match="--partition: expected samples for every node that trains, got none for node"):
        simulate(0, partition="dirichlet", partition_args={"alpha": 1e-6}, nb_workers=40, **HONEST)


def test_poisoners_train_on_their_own_samples_and_need_some() -> None:
    simulation = simulate(2, attack="labelflip", protocol="dpsgd")
    assert len(simulation.protocol.nodes.rows) == 9
    assert len(simulation.protocol.parameters) == 7
    own = {tuple(row.tolist()) for shard in simulation.shards[7:] for row in simulation.data.train.inputs[shard]}
    poisoned = simulation.protocol.nodes.batches.inputs[35:]
    assert {tuple(row.tolist()) for row in poisoned} <= own


@pytest.mark.parametrize(
    "options", [{"gar": "trmean"}, {"gar": "krum"}, {"gar": "median", "protocol": "epidemic"}], ids=str
)
def test_poisoners_that_hear_too_few_keep_their_own(options: dict[str, Any], tmp_path: Path) -> None:
    leaf, clique = ["0 8"], [f"{i} {j}" for i in range(8) for j in range(i)]  # node 8 poisons
    (tmp_path / "graph").write_text("\n".join(leaf + clique))
    given = {"topology": "file", "topology_args": {"path": str(tmp_path / "graph")}, "attack": "labelflip"}
    on, off = (simulate(3, **given, **options, nb_decl_byz=1, batching=batching) for batching in ("on", "off"))
    assert on.protocol.refused == off.protocol.refused == {2}
    assert_close(on.protocol.nodes.rows, off.protocol.nodes.rows, rtol=1e-4, atol=1e-5)
    protocol = on.protocol
    local = protocol.local_update(protocol.compute_honest_worker_gradients(protocol.collect_worker_batches())[0])
    mixed = protocol.aggregate_over_received_nodes(local, protocol.generate_byzantine_models(local))
    assert torch.equal(mixed[8], local[8])
    assert not torch.equal(mixed[7], local[7])


def test_the_gradient_over_all_samples_is_that_of_the_mean_model() -> None:
    simulation = simulate(5, attack="full-gradient-negation", protocol="dpsgd", topology="two-worlds")
    samples = simulation.data.train
    simulation.model.parameters.copy_(simulation.protocol.parameters.mean(dim=0))
    with torch.enable_grad():
        simulation.model.module.train(False)
        loss = simulation._loss_function(simulation.model.module(samples.inputs), samples.targets)
        (*parts,) = torch.autograd.grad(loss, [*simulation.model.module.parameters()])
    expected = torch.cat([part.flatten() for part in parts])
    assert_close(simulation.protocol.nodes.full_gradient(samples), expected, rtol=1e-4, atol=1e-5)


def test_a_stopped_run_is_stopped_after_its_checkpoint_as_well() -> None:
    simulation = simulate(2, stop_below=1e9)
    assert simulation.stopped
    again = simulate(0, stop_below=1e9)
    again.load_state_dict(simulation.state_dict())
    assert again.stopped


@pytest.mark.parametrize("protocol", ["dpsgd", "gossip"])
def test_attackers_know_what_is_declared_and_where_nodes_went_before(protocol: str) -> None:
    simulation = simulate(2, protocol=protocol, topology="two-worlds", nb_decl_byz=3, nb_real_byz=2)
    known = simulation.protocol.known_to_attackers()
    assert known["f_declared"] == 3
    if protocol == "gossip":
        column = simulation.metrics.columns.index("Defense gradient norm")
        assert float(known["pivot"].norm()) == pytest.approx(simulation.metrics.flush()[-1][column], rel=1e-5)
    else:
        assert_close(known["pivot"], simulation.protocol.parameters.mean(dim=0))
    again = simulate(0, protocol=protocol, topology="two-worlds", nb_decl_byz=3, nb_real_byz=2)
    again.load_state_dict(simulation.state_dict())
    assert torch.equal(again.protocol.known_to_attackers()["pivot"], known["pivot"])


def test_gradients_of_the_study_are_taken_where_the_mean_momentum_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = simulate(2, momentum_nesterov=True, nb_for_study=12, protocol="dpsgd", learning_rate_decay=0.0)
    protocol, points = simulation.protocol, []
    expected = protocol.parameters.mean(dim=0) - 0.9 * 0.2 * protocol.nodes.momenta[:7].mean(dim=0)
    original = simulation._worker_gradients
    monkeypatch.setattr(
        simulation, "_worker_gradients", lambda *a, **k: points.append(k["points"].clone()) or original(*a, **k)
    )
    simulation.step()
    assert_close(points[0], expected)
