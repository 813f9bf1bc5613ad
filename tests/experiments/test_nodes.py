"""What nodes do by themselves, against the same in NumPy."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from experiments.batches import Batches
from experiments.losses import FunctionLoss
from experiments.model import Model
from experiments.nodes import Nodes
from experiments.optimiser import Optimiser

N, H, D, RATE, DECAY = 5, 3, 2, 0.1, 0.01


class Point(nn.Module):
    """A model whose output is its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor([3.0, -1.0], dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.point


def quadratic(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (outputs - targets).square().sum(dim=1).mean()


def make(trainers: int = H, **settings: Any) -> Nodes:
    optimiser = Optimiser(learning_rate=RATE, **settings)
    return Nodes(Model(Point()), FunctionLoss(quadratic), optimiser, 1, n=N, honest=H, trainers=trainers)


def batches(trainers: int = H, each: int = 1) -> Batches:
    targets = torch.arange(trainers * each * D, dtype=torch.float64).view(-1, D)
    return Batches(torch.zeros_like(targets), targets, (1,) * trainers * each)


def targets(trainers: int = H) -> np.ndarray:
    return batches(trainers).targets.numpy()


MOMENTA = [
    {},
    {"momentum": 0.9},
    {"dampening": 0.3},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.9, "nesterov": True},
]


@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize("decays_gradient", [False, True])
@pytest.mark.parametrize("momentum", MOMENTA, ids=str)
def test_models_after_a_step(momentum: dict[str, Any], decays_gradient: bool, decay: float) -> None:
    nodes = make(**momentum, weight_decay=decay, decays_gradient=decays_gradient)
    mu, delta = momentum.get("momentum", 0), momentum.get("dampening", 0)
    theta, momenta = nodes.rows.numpy().copy(), np.zeros((H, D))
    for step in range(3):
        gradients, losses = nodes.compute_gradients(batches(), step, RATE)
        where = theta - RATE * mu * momenta if momentum.get("nesterov") else theta
        gradient = where - targets()
        np.testing.assert_allclose(gradients, gradient)
        np.testing.assert_allclose(losses, 0.5 * (gradient**2).sum(axis=1))
        local = nodes.local_models(gradients, RATE)
        momenta = mu * momenta + (1 - delta) * (gradient + decay * theta * decays_gradient)
        taken = momenta + decay * theta * (not decays_gradient)
        np.testing.assert_allclose(nodes.taken_steps(RATE), taken)
        np.testing.assert_allclose(nodes.mean_momentum(), momenta.mean(axis=0) if momentum else np.zeros(D))
        theta = theta - RATE * taken
        np.testing.assert_allclose(local, theta)
        assert local.data_ptr() == nodes.vectors.data_ptr()
        nodes.move_to(local)
        np.testing.assert_allclose(nodes.rows, theta)


@pytest.mark.parametrize("momentum_at", ["worker", "update"])
@pytest.mark.parametrize("momentum", MOMENTA[:4], ids=str)
def test_steps_along_directions(momentum: dict[str, Any], momentum_at: str) -> None:
    nodes = make(**momentum, momentum_at=momentum_at, weight_decay=DECAY)
    mu, delta = momentum.get("momentum", 0), momentum.get("dampening", 0)
    theta, momenta = nodes.rows.numpy().copy(), np.zeros((H, D))
    for step in range(3):
        directions = nodes.directions(nodes.compute_gradients(batches(), step, RATE)[0])
        momenta = mu * momenta + (1 - delta) * (theta - targets())
        np.testing.assert_allclose(directions, momenta if momentum_at == "worker" else theta - targets())
        following = torch.stack([nodes.next_step(directions, node) for node in range(H)])
        nodes.step_along(directions, RATE)
        np.testing.assert_allclose(following, momenta)
        theta = theta - RATE * (momenta + DECAY * theta)
        np.testing.assert_allclose(nodes.rows, theta)


def test_groups_and_poisoners_see_their_own_batches() -> None:
    nodes = make(trainers=N, momentum=0.9)
    whole, losses = nodes.compute_gradients(batches(N), 0, RATE)
    np.testing.assert_allclose(whole, nodes.rows.numpy() - targets(N))
    assert losses.shape == (H,)
    assert nodes.parameters.shape == (H, D)
    parted = Nodes(
        Model(Point()),
        FunctionLoss(quadratic),
        nodes.optimiser,
        1,
        n=N,
        honest=H,
        trainers=N,
        groups=lambda first, last: iter([slice(first, 2), slice(2, last)]),
    )
    assert_close(parted.compute_gradients(batches(N), 0, RATE), (whole, losses))


def test_mixed_models_are_taken_without_a_copy_and_others_are_copied() -> None:
    nodes = make()
    before, mixed = nodes.rows, nodes.mixed.fill_(7)
    nodes.move_to(mixed)
    assert nodes.rows is mixed
    assert nodes.mixed is before
    own = torch.full((2, D), 5.0, dtype=torch.float64)
    nodes.move_to(own)
    assert nodes.rows.tolist() == [[5.0, 5.0], [5.0, 5.0], [7.0, 7.0]]
    assert nodes.rows.data_ptr() != own.data_ptr()


def test_loss_of_a_node_is_on_its_own_batches() -> None:
    nodes = make(local_steps=2)
    nodes.compute_gradients(batches(each=2), 0, RATE)
    point = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert_close(nodes.loss_of(1)(point), quadratic(point.expand(2, -1), batches(each=2).targets[2:4]))


def test_means_are_of_honest_nodes_and_whole_numbers_are_rounded_down() -> None:
    nodes = make(trainers=N)
    nodes.buffers["mean"][:, 0] = torch.tensor([1.0, 2.0, 6.0, 50.0, 50.0])
    nodes.buffers["seen"][:] = torch.tensor([1, 1, 3, 50, 50])
    means = nodes.mean_buffers()
    assert means["mean"].tolist() == [[3.0]]
    assert means["seen"].tolist() == [1]
    assert means["seen"].dtype == torch.int64


@pytest.mark.parametrize("momentum", MOMENTA[:2], ids=str)
def test_they_go_on_from_a_state(momentum: dict[str, Any]) -> None:
    def advance(nodes: Nodes) -> None:
        nodes.move_to(nodes.local_models(nodes.compute_gradients(batches(), 0, RATE)[0], RATE))

    first, second = make(**momentum), make(**momentum)
    advance(first)
    first.buffers["mean"].fill_(4)
    second.load_state_dict(first.state_dict())
    for nodes in (first, second):
        advance(nodes)
    assert torch.equal(first.rows, second.rows)
    assert torch.equal(second.buffers["mean"], torch.full((H, 1), 4.0, dtype=torch.float64))
