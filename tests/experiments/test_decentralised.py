"""The library's contract, by a simulation that somebody wrote by hand, and an oracle in NumPy."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from aggregators.nna import NearestNeighbourAverage
from attacks.signflip import SignFlip
from experiments.decentralised import DecentralisedSimulation, StepResult

N, F, D = 6, 2, 3
RATE = 0.1


class AllToAll(DecentralisedSimulation[StepResult]):
    """Plain SGD, then everybody hears everybody."""

    def local_update(self, gradients: Tensor) -> Tensor:
        return self.parameters - RATE * gradients

    def gather_received_models(
        self, honest_vectors: Tensor, byzantine_parameters: Tensor, *, worker_index: int
    ) -> Tensor:
        others = [vector for index, vector in enumerate(honest_vectors) if index != worker_index]
        return torch.stack([honest_vectors[worker_index], *others, *byzantine_parameters])

    def build_step_result(self, **parts: Tensor) -> StepResult:
        copies = {name: part.clone() for name, part in parts.items()}
        return {**copies, "parameters": self.parameters.clone(), "step": self.step_index}


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(dim=1).mean()


def batches(worker: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(worker)
    return [(torch.eye(D, dtype=torch.float64), torch.randn(D, 1, generator=generator).double()) for _ in range(3)]


def make(**changes: Any) -> AllToAll:
    module = nn.Linear(D, 1, bias=False).double()
    nn.init.zeros_(module.weight)
    arguments: dict[str, Any] = {
        "model": module,
        "data": [itertools.cycle(batches(worker)) for worker in range(N - F)],
        "loss_fn": squares,
        "n": N,
        "f": F,
        "attack": SignFlip,
        "attack_kwargs": {"scale": 2.0},
        "aggregator": NearestNeighbourAverage,
        "seed": 1,
    }
    return AllToAll(**arguments | changes)


def oracle(rounds: int) -> numpy.ndarray:
    """The same by hand: the gradient of mean((θ − y)²) is 2(θ − y)/D, the model being linear in the unit vectors."""
    parameters = numpy.zeros((N - F, D))
    for number in range(rounds):
        targets = numpy.stack([batches(worker)[number % 3][1].numpy()[:, 0] for worker in range(N - F)])
        local = parameters - RATE * 2 * (parameters - targets) / D
        byzantine = numpy.repeat(-2 * local.mean(axis=0, keepdims=True), F, axis=0)
        mixed = []
        for own in local:
            received = numpy.concatenate([local, byzantine])
            nearest = numpy.linalg.norm(received - own, axis=1).argsort(kind="stable")[: N - F]
            mixed.append(received[nearest].mean(axis=0))
        parameters = numpy.stack(mixed)
    return parameters


def test_rounds_agree_with_an_oracle_and_go_on_from_call_to_call() -> None:
    simulation = make()
    results = simulation.run(2) + simulation.run(3)
    assert [result["step"] for result in results] == [1, 2, 3, 4, 5]
    assert simulation.step_index == 5
    assert_close(simulation.parameters, torch.from_numpy(oracle(5)), rtol=1e-12, atol=1e-12)
    for rounds, result in enumerate(results, 1):
        assert_close(result["parameters"], torch.from_numpy(oracle(rounds)), rtol=1e-12, atol=1e-12)


def test_snapshots_are_whole_and_copies() -> None:
    simulation = make()
    (result,) = simulation.run(1)
    assert set(result) == set(StepResult.__annotations__)
    shapes = {name: tuple(value.shape) for name, value in result.items() if isinstance(value, Tensor)}
    honest = (N - F, D)
    assert shapes == {
        "byzantine_parameters": (F, D),
        "honest_gradients": honest,
        "local_parameters": honest,
        "losses": (N - F,),
        "mixed_parameters": honest,
        "parameters": honest,
    }
    kept = {name: value.clone() for name, value in result.items() if isinstance(value, Tensor)}
    simulation.run(2)
    assert all(torch.equal(result[name], value) for name, value in kept.items())
    assert_close(result["local_parameters"], -RATE * result["honest_gradients"])
    assert torch.equal(result["mixed_parameters"], result["parameters"])


def test_a_round_without_byzantine_workers() -> None:
    simulation = make(f=0, n=N - F, attack=None, attack_kwargs=None, aggregator="average")
    (result,) = simulation.run(1)
    assert result["byzantine_parameters"].shape == (0, D)
    assert_close(result["parameters"], result["local_parameters"].mean(dim=0).expand(N - F, -1))


def test_negative_rounds() -> None:
    with pytest.raises(ValueError, match="expected at least 0 rounds, got -1"):
        make().run(-1)
    assert make().run(0) == []


def test_a_stream_that_ends_names_its_worker_and_the_way_out() -> None:
    streams = [iter(batches(worker)[: 1 if worker == 2 else 3]) for worker in range(N - F)]
    simulation = make(data=streams)
    simulation.run(1)
    with pytest.raises(ValueError, match=r"batch of worker 2 for round 2, but its stream has ended; .*itertools.cycle"):
        simulation.run(1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"f": 6}, ValueError, "expected f from 0 to 5 for n = 6, at least one worker being honest, got 6"),
        ({"f": -1}, ValueError, "expected f from 0 to 5"),
        ({"attack": None}, ValueError, "expected an attack for 2 Byzantine workers, got none"),
        ({"data": []}, ValueError, "one stream of batches per honest worker, 4 for n = 6 and f = 2, got 0"),
        ({"model": 3}, TypeError, "expected a Model or a module as model, got 3"),
        ({"loss_fn": 3}, TypeError, "expected a function of outputs and targets as loss_fn, got 3"),
        ({"attack": NearestNeighbourAverage}, TypeError, "expected an Attack or its name"),
        ({"aggregator": int}, TypeError, "expected an Aggregator or its name"),
        ({"aggregator": None}, TypeError, "expected an Aggregator or its name, got None"),
        ({"n": 6.0}, TypeError, "expected a whole number as n, got 6.0"),
        ({"f": 2.0}, TypeError, "expected a whole number as f, got 2.0"),
        ({"aggregator": "nnaa"}, ValueError, "unknown aggregation rule 'nnaa'"),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**changes)


def test_it_goes_on_from_a_state() -> None:
    def noisy() -> AllToAll:
        return make(attack="gaussian", attack_kwargs={})

    whole, first, second = noisy(), noisy(), noisy()
    whole.run(4)
    first.run(3)
    second.load_state_dict(first.state_dict())
    first.run(1)
    for stream in second.data:
        next(itertools.islice(stream, 2, 3))
    second.run(1)
    assert torch.equal(whole.parameters, first.parameters)
    assert torch.equal(whole.parameters, second.parameters)


@pytest.mark.parametrize("name", ["collect_worker_batches", "commit_state", "aggregate_received_models"])
def test_every_method_may_be_replaced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original: Callable[..., Any] = getattr(AllToAll, name)
    monkeypatch.setattr(AllToAll, name, lambda self, *a, **k: calls.append(name) or original(self, *a, **k))
    make().run(1)
    assert len(calls) == (N - F if name == "aggregate_received_models" else 1)


def test_every_worker_has_running_statistics_of_its_own() -> None:
    module = nn.Sequential(nn.BatchNorm1d(D), nn.Linear(D, 1)).double()
    data = [
        itertools.cycle([(torch.randn(8, D).double() + 10 * worker, torch.zeros(8, 1).double())]) for worker in range(4)
    ]
    simulation = make(model=module, data=data)
    simulation.run(1)
    means = simulation.buffers["0.running_mean"].mean(dim=1)
    assert_close(means, torch.arange(4).double(), rtol=0, atol=0.3)


def test_evaluation() -> None:
    inputs = torch.eye(D, dtype=torch.float64)
    simulation = make(test_data=(inputs, torch.zeros(D, dtype=torch.int64)))
    assert simulation.evaluate() == (1.0,) * (N - F)
    with pytest.raises(ValueError, match="expected test_data to evaluate on, got none"):
        make().evaluate()
