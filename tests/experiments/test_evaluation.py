import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close

from experiments.criteria import TopK
from experiments.datasets import Augmentation, Samples
from experiments.evaluation import MANY_PRODUCTS, Evaluator, PixelwiseLinear
from experiments.model import Model
from experiments.sampling import SampleStream

CLASSES = 3


def samples(count: int = 50, dtype: torch.dtype = torch.float32) -> Samples:
    draw = torch.Generator().manual_seed(4)
    inputs = torch.randn(count, 1, 4, 4, generator=draw).to(dtype)
    return Samples(inputs, torch.randint(CLASSES, (count,), generator=draw))


def evaluator(
    batch_size: int = 20,
    repetitions: int | None = None,
    flip: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Evaluator:
    stream = SampleStream(samples(dtype=dtype), 1, "test", Augmentation(flip=True) if flip else None)
    return Evaluator(stream, TopK(), batch_size=batch_size, repetitions=repetitions)


def make(chunk: int = 1_000) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layers = nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(18, CLASSES)
        model = Model(nn.Sequential(*layers))
    model.samples_per_pass = lambda: chunk
    return model


def nodes(model: Model, k: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return parameters and buffers of k nodes that all differ."""
    draw = torch.Generator().manual_seed(6)
    parameters = model.parameters + torch.randn(k, model.d, generator=draw)
    buffers = model.node_buffers(k)
    for name in ("1.running_mean", "1.running_var"):
        buffers[name] += torch.rand(k, 2, generator=draw)
    return parameters, buffers


SETTINGS = pytest.mark.parametrize(
    ("batch_size", "repetitions", "flip"),
    [(20, None, False), (20, 1, False), (50, 1, False), (20, 7, False), (20, None, True), (20, 7, True)],
)


@SETTINGS
@pytest.mark.parametrize("chunk", [1_000, 7])
def test_accuracy_is_the_share_of_right_samples(
    batch_size: int, repetitions: int | None, flip: bool, chunk: int
) -> None:
    model, measured = make(chunk), evaluator(batch_size, repetitions, flip)
    stream = copy.deepcopy(measured.stream)
    for _ in range(2):
        indices, _ = stream.indices(batch_size, repetitions or -(-50 // batch_size))
        right = 0
        for part in itertools.chain(*(one_pass.split(chunk) for one_pass in indices.split(50))):
            batch = stream.gather(part, (len(part),))
            right += (model.predict(batch.inputs).argmax(dim=1) == batch.targets).sum().item()
        assert measured.accuracy(model) == right / len(indices)


@SETTINGS
@pytest.mark.parametrize("chunk", [1_000, 7])
@pytest.mark.parametrize("own_buffers", [False, True])
def test_accuracies_are_those_of_each_node_on_the_same_batches(
    batch_size: int, repetitions: int | None, flip: bool, chunk: int, own_buffers: bool
) -> None:
    model, together = make(chunk), evaluator(batch_size, repetitions, flip)
    parameters, buffers = nodes(model, 5)
    before = model.state_dict()
    for _ in range(2):
        expected = []
        for i in range(5):
            alone = copy.deepcopy(together)
            model.load(parameters[i], {name: rows[i] for name, rows in buffers.items()} if own_buffers else None)
            expected.append(alone.accuracy(model))
        model.load_state_dict(before)
        assert together.accuracies(model, parameters, buffers if own_buffers else None) == expected
        assert len(set(expected)) > 1
        assert_close(model.state_dict(), before, rtol=0, atol=0)
        assert_close(together.stream.state_dict(), alone.stream.state_dict(), rtol=0, atol=0)


def test_nodes_may_come_as_sequences_of_vectors() -> None:
    model = make()
    parameters, buffers = nodes(model, 3)
    expected = evaluator().accuracies(model, parameters, buffers)
    lists = {name: list(rows) for name, rows in buffers.items()}
    assert evaluator().accuracies(model, [*parameters[:2], parameters[2].clone()], lists) == expected
    assert evaluator().accuracies(model, parameters[:0]) == []


def test_model_is_restored_after_an_error() -> None:
    model = make()
    before = model.state_dict()
    parameters, _ = nodes(model, 2)
    with pytest.raises(RuntimeError):
        evaluator(dtype=torch.float64).accuracies(model, parameters)
    assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_double_precision() -> None:
    module = make().module.double()
    model = Model(module)
    parameters, buffers = nodes(model, 2)
    found = evaluator(dtype=torch.float64).accuracies(model, parameters, buffers)
    for i in range(2):
        model.load(parameters[i], {name: rows[i] for name, rows in buffers.items()})
        assert evaluator(dtype=torch.float64).accuracy(model) == found[i]


class Calls(TorchFunctionMode):
    """Notes which functions are called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[Callable] = []

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.called.append(func)
        return func(*args, **(kwargs or {}))


SIDE = 256
ROWS = MANY_PRODUCTS // SIDE**2


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("shape", "dtype", "available", "replaced"),
    [
        ((ROWS, SIDE), torch.float32, True, True),
        ((2, ROWS // 2, SIDE), torch.float32, True, True),
        ((ROWS, SIDE), torch.float32, False, False),
        ((ROWS - 1, SIDE), torch.float32, True, False),
        ((ROWS, SIDE), torch.float64, True, False),
    ],
)
def test_large_linear_layers_become_convolutions(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    available: bool,
    replaced: bool,
    bias: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: available)
    draw = torch.Generator().manual_seed(0)
    layer = nn.Linear(SIDE, SIDE, bias=bias).to(dtype)
    inputs = torch.randn(shape, generator=draw, dtype=dtype)
    with torch.no_grad():
        expected = layer(inputs)
        with Calls() as calls, PixelwiseLinear():
            outputs = layer(inputs)
    assert (F.conv2d in calls.called) == replaced
    assert (F.linear in calls.called) != replaced
    assert outputs.is_contiguous()
    assert_close(outputs, expected, rtol=1e-4 if replaced else 0, atol=1e-5 if replaced else 0)


def test_linear_with_a_vector_of_weights() -> None:
    inputs, weight = torch.randn(2**14, 2**10), torch.randn(2**10)
    with PixelwiseLinear():
        outputs = F.linear(inputs, weight)
    assert torch.equal(outputs, inputs @ weight)
