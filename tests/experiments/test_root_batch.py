"""What the server trusts, beside what workers do; see also test_defence.py, where whole runs use it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from aggregators import Aggregator, gars
from experiments.batches import Batches
from experiments.config import RunConfig
from experiments.datasets import Augmentation
from experiments.models import Architecture, architectures
from experiments.root_batch import RootBatch, root_size
from experiments.sampling import SampleStream
from experiments.server import ServerSimulation
from tests.experiments.test_server import configure, loss_and_gradient, make_data
from tools.errors import UserError

IMAGES = {"shape": (1, 4, 4), "augmentation": Augmentation(flip=True, crop=1, fill=(0.0,))}


@pytest.fixture
def normalised() -> Iterator[dict[str, Any]]:
    """Yield options of a run whose model has batch normalisation."""

    class Normalised(Architecture, name="normalised-for-a-test"):
        def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.BatchNorm1d(input_shape[0]), nn.Linear(input_shape[0], num_outputs))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.layers(inputs).log_softmax(dim=1)

    yield {"model": "normalised-for-a-test", "model_args": {}}
    architectures._classes.pop("normalised-for-a-test")


class Recorder:
    """Stands for the gradients of workers: remembers what is asked for, and sends ones."""

    def __init__(self) -> None:
        self.asked: list[tuple[Batches, dict[str, Any]]] = []

    def __call__(self, batches: Batches, out: Tensor, **given: Any) -> Tensor:
        self.asked.append((batches, given))
        out.fill_(1)
        return out.new_zeros(1)


def update(root: RootBatch, recorder: Recorder, step: int) -> None:
    root.update(recorder, lambda rate, sent: sent + rate, lambda gradient, sent: sent.add_(gradient), step, 0.5)


def test_size_is_that_of_the_rule_or_a_hundred() -> None:
    def size(**options: Any) -> int | None:
        return root_size(RunConfig(nb_decl_byz=2, **options).defences())

    assert size(gar="krum") is None
    assert size(gar="fltrust") == 100
    assert size(gar="fltrust", gar_args={"root": 7}, pre_gar=["nnm"]) == 7
    assert size(gars='krum,1;fltrust,1,{"root": 100};fltrust,2') == 100
    with pytest.raises(UserError, match="--gars: expected one size of the root batch, got 7, 100"):
        size(gars='fltrust,1,{"root": 7};fltrust,2')


def test_all_samples_may_be_trusted_and_no_more() -> None:
    recorder = Recorder()
    config = configure()
    root = RootBatch(config, make_data(), 1, 37, 5)
    update(root, recorder, 0)
    assert sorted(recorder.asked[0][0].targets.tolist()) == sorted(make_data().train.targets.tolist())
    with pytest.raises(UserError, match="--gar-args: expected root:1 to root:37"):
        RootBatch(config, make_data(), 1, 38, 5)


@pytest.mark.parametrize("momentum_at", ["update", "worker"])
def test_asks_for_the_gradient_as_a_worker_of_its_own_number_would(momentum_at: str) -> None:
    config = configure(nb_local_steps=3, momentum_at=momentum_at)
    recorder, root = Recorder(), RootBatch(config, make_data(), 1, 4, 5)
    for step in (7, 8):
        sent = root.sent.clone()
        update(root, recorder, step)
        batches, given = recorder.asked[-1]
        assert given["step"] == step
        assert given["rate"] == 0.5
        assert torch.equal(given["points"], sent + 0.5)
        assert given["first"] < -config.nb_workers  # poisoners have −n … −1, others 0 and more
        assert batches.sizes == (4, 4, 4)
        assert torch.equal(batches.inputs[:4], batches.inputs[4:8])
        assert torch.equal(batches.inputs, recorder.asked[0][0].inputs)
        assert torch.equal(root.sent, torch.ones(5) if momentum_at == "update" else sent + 1)


def test_rule_without_a_size_of_the_root_batch_gets_a_hundred_samples() -> None:
    class TrustedAlone(Aggregator, name="trusted-alone-for-a-test"):
        needs = ("trusted",)

        @classmethod
        def aggregate(cls, gradients: Tensor, /, *, f: int, trusted: Tensor, **specialized: Any) -> Tensor:
            return trusted

    try:
        config, data = configure(gar="trusted-alone-for-a-test"), make_data(samples=150)
        simulation = ServerSimulation(config, data, 1)
        root = SampleStream(data.train, 1, "root").take(100, 1)
        theta = simulation.model.parameters.clone()
        simulation.step()
        _, gradient = loss_and_gradient(theta, root.inputs, root.targets, config)
        assert_close(simulation._previous_defense, gradient, rtol=1e-4, atol=1e-6)
    finally:
        gars._classes.pop("trusted-alone-for-a-test")


def test_running_statistics_are_those_of_workers(normalised: dict[str, Any]) -> None:
    left = []
    for root in (4, 30):
        simulation = ServerSimulation(configure(**normalised, gar="fltrust", gar_args={"root": root}), make_data(), 1)
        before = simulation.model.state_dict()["buffers"]
        simulation.step()
        left.append(simulation.model.state_dict()["buffers"])
    for name, buffer in left[0].items():
        assert torch.equal(left[1][name], buffer)
        assert not torch.equal(before[name], buffer)


def test_too_few_samples_for_the_model_are_refused_before_the_run(normalised: dict[str, Any]) -> None:
    one = 'fltrust,1,{"root": 1}'
    for flag, rule in (("--gar-args", {"gar": "fltrust", "gar_args": {"root": 1}}), ("--gars", {"gars": one})):
        with pytest.raises(UserError, match=f"{flag}: the server has a root batch of 1, on which"):
            ServerSimulation(configure(**normalised, **rule), make_data(), 1)
    ServerSimulation(configure(**normalised, train_mode="eval", gars=one), make_data(), 1).step()
    ServerSimulation(configure(**normalised, gar="fltrust", gar_args={"root": 2}), make_data(), 1).step()


def test_continues_with_the_same_bits_where_samples_are_augmented() -> None:
    config = configure(gar="fltrust", gar_args={"root": 9}, momentum_at="worker")
    whole, start, rest = (ServerSimulation(config, make_data(**IMAGES), 1) for _ in range(3))
    whole.run(4)
    start.run(2)
    rest.load_state_dict(start.state_dict())
    rest.run(2)
    assert torch.equal(rest.model.parameters, whole.model.parameters)
