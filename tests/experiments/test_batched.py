"""Rounds of all nodes at once, of a subclass that says who hears whom and nothing else."""

from itertools import cycle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from experiments.batched import BatchedSimulation
from experiments.exchange import Exchange
from experiments.network import Neighbourhoods, Network
from experiments.optimiser import Optimiser

N, D = 5, 3


class Ring(BatchedSimulation):
    """Everybody hears two others: always the same, or, if `redrawn`, a new object in every round."""

    redrawn = False
    asked = 0

    def neighbourhoods(self) -> Neighbourhoods:
        self.asked += 1
        if self.redrawn or self.asked == 1:
            self._around = Network("ring", {}, n=self.n, f=self.f, seed=1).neighbourhoods(0)
        return self._around


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(dim=1).mean()


def make(kind: type[BatchedSimulation] = Ring, f: int = 0, **options: Any) -> BatchedSimulation:
    module = nn.Linear(D, 1, bias=False).double()
    nn.init.zeros_(module.weight)
    generator = torch.Generator().manual_seed(1)
    data = [
        cycle([(torch.eye(D).double(), torch.randn(D, 1, generator=generator, dtype=torch.float64))])
        for _ in range(N - f)
    ]
    given = {"model": module, "data": data, "loss_fn": squares, "aggregator": "average", "seed": 1}
    return kind(n=N, f=f, optimiser=Optimiser(learning_rate=0.1), **given | options)


@pytest.mark.parametrize("batching", [True, False])
def test_nodes_mix_by_weights_unless_told_otherwise(batching: bool) -> None:
    simulation = make(f=1, attack="signflip", batching=batching)
    weights = torch.from_numpy(Network("ring", {}, n=N, f=1, seed=1).weights(0))
    for result in simulation.run(3):
        sent = torch.cat([result["local_parameters"], result["byzantine_parameters"]])
        assert_close(result["parameters"], (weights @ sent)[:4])
        assert_close(simulation.byzantine_weight, weights[:4, 4])


@pytest.mark.parametrize("redrawn", [False, True])
def test_who_hears_whom_is_asked_once_a_round_and_prepared_once_if_it_is_the_same(
    redrawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []
    original = Exchange.__init__
    monkeypatch.setattr(Exchange, "__init__", lambda self, *a: prepared.append(1) or original(self, *a))
    monkeypatch.setattr(Ring, "redrawn", redrawn)
    simulation = make(f=1, attack="dissensus", batching=False)
    simulation.run(3)
    assert simulation.asked == 3
    assert len(prepared) == (3 if redrawn else 1)


def test_weight_of_byzantine_nodes_is_not_defined_where_one_node_mixes_in_its_own_way() -> None:
    class Own(Ring):
        def aggregate_received_models(self, candidates: Tensor, *, pivot: Tensor) -> Tensor:
            if self._node == 2:
                return pivot
            return super().aggregate_received_models(candidates, pivot=pivot)

    simulation = make(Own, f=1, attack="signflip", batching=False)
    (result,) = simulation.run(1)
    assert simulation.byzantine_weight is None
    assert_close(result["parameters"][2], result["local_parameters"][2])


def test_the_gradient_over_all_samples_needs_them() -> None:
    simulation = make(f=1, attack="full-gradient-negation")
    with pytest.raises(ValueError, match="full-gradient-negation: expected the samples of all, as `training`, got non"):
        simulation.run(1)


def test_equal_byzantine_vectors_are_seen_to_be_equal() -> None:
    simulation = make(f=2, attack="signflip")
    byzantine = simulation.generate_byzantine_models(torch.ones(3, D).double())
    assert byzantine.tolist() == [[-1.0] * D] * 2
    assert byzantine.stride(0) == 0
    assert byzantine.data_ptr() == simulation.nodes.vectors[3:].data_ptr()


def test_moments_are_those_of_one_round() -> None:
    simulation = make(f=1, attack="signflip")
    simulation.moments = torch.ones(D), torch.ones(D)
    assert simulation.known_to_attackers()["moments"] is simulation.moments
    simulation.begin_round()
    assert "moments" not in simulation.known_to_attackers()


def test_parameters_of_honest_nodes_can_be_set() -> None:
    simulation = make()
    simulation.parameters = torch.arange(D).double()
    assert simulation.nodes.rows.tolist() == [[0.0, 1.0, 2.0]] * N
