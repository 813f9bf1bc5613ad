from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from experiments import models
from experiments.batches import Batches
from experiments.losses import Loss
from experiments.model import Model
from tools.errors import UserError

SMALL = {"depth": 10, "widen_factor": 2}
SHAPE = (3, 16, 16)


def small(shape: tuple[int, ...] = SHAPE, **arguments) -> Model:
    model = Model("wide-resnet", {"input_shape": shape, "num_outputs": 10, **SMALL, **arguments}, seed=1)
    return Model(model.module.double())


def images(samples: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(samples, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def formula(module: nn.Module, maps: Tensor, blocks_per_group: int, dropout: float) -> Tensor:
    """Compute the network from its parameters in their order, by functions alone."""
    parameters: Iterator[Tensor] = iter(module.parameters())

    def normalise_and_relu(maps: Tensor) -> Tensor:
        mean, variance = maps.new_zeros(maps.shape[1]), maps.new_ones(maps.shape[1])
        maps = F.batch_norm(maps, mean, variance, next(parameters), next(parameters), training=module.training)
        return F.relu(maps)

    def convolve(maps: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        return F.conv2d(maps, next(parameters), next(parameters), stride, padding)

    maps = convolve(maps)
    for group in range(3):
        for i in range(blocks_per_group):
            stride = 2 if group > 0 and i == 0 else 1
            residual = F.dropout(convolve(normalise_and_relu(maps)), dropout, module.training)
            residual = convolve(normalise_and_relu(residual), stride)
            changed = residual.shape[1:] != maps.shape[1:]
            maps = residual + (convolve(maps, stride, padding=0) if changed else maps)
    features = normalise_and_relu(maps).mean(dim=(2, 3))
    return F.linear(features, next(parameters), next(parameters)).log_softmax(dim=1)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [SHAPE, (1, 7, 6)])
@pytest.mark.parametrize(("depth", "widen_factor"), [(10, 1), (16, 2)])
def test_network_is_its_formula(train: bool, shape: tuple[int, ...], depth: int, widen_factor: int) -> None:
    module = small(shape, depth=depth, widen_factor=widen_factor, dropout=0.4).module.train(train)
    with torch.no_grad():
        for parameter in module.parameters():  # torch's own normalise by 1 and 0, which would hide a mistake
            parameter.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    inputs = images(4, shape)
    torch.manual_seed(0)  # of dropout, which draws in the order of memory
    expected = formula(module, models.channels_last(inputs), (depth - 4) // 6, 0.4)
    torch.manual_seed(0)
    assert_close(module(inputs), expected)


def parameters_by_hand(depth: int, k: int, classes: int = 10) -> int:
    def group(inputs: int, outputs: int, projects: bool) -> int:
        first = 2 * inputs + (9 * inputs + 1) * outputs + 2 * outputs + (9 * outputs + 1) * outputs
        other = 2 * (2 * outputs + (9 * outputs + 1) * outputs)
        return first + projects * (inputs + 1) * outputs + ((depth - 4) // 6 - 1) * other

    groups = group(16, 16 * k, k > 1) + group(16 * k, 32 * k, True) + group(32 * k, 64 * k, True)
    return (9 * 3 + 1) * 16 + groups + 2 * 64 * k + (64 * k + 1) * classes


# Millions as the paper gives them: there, without biases of convolutions, they are fewer by 0.03 % to 0.3 %
@pytest.mark.parametrize(
    ("depth", "widen_factor", "classes", "d", "millions"),
    [
        (28, 10, 10, 36_489_290, 36.5),
        (28, 10, 100, 36_546_980, 36.5),
        (16, 4, 10, 2_751_146, 2.75),
        (40, 4, 10, 8_955_050, 8.9),
        (16, 8, 10, 10_965_866, 11.0),
        (40, 1, 10, 565_386, 0.6),
    ],
)
def test_numbers_of_parameters(depth: int, widen_factor: int, classes: int, d: int, millions: float) -> None:
    with torch.device("meta"):
        module = models.build(
            "wide-resnet", input_shape=(3, 32, 32), num_outputs=classes, depth=depth, widen_factor=widen_factor
        )
    assert sum(parameter.numel() for parameter in module.parameters()) == d
    assert parameters_by_hand(depth, widen_factor, classes) == d
    assert d / 1e6 == pytest.approx(millions, abs=0.06)


def test_default_is_that_of_the_appendix() -> None:
    with torch.device("meta"):
        module = models.build("wide-resnet", input_shape=(3, 32, 32), num_outputs=10)
    assert sum(parameter.numel() for parameter in module.parameters()) == 36_489_290
    assert {layer.p for layer in module.modules() if isinstance(layer, nn.Dropout)} == {0.3}


def test_crossentropy_and_nll_are_the_same() -> None:
    model, out = small(), []
    batch = Batches(images(4), torch.arange(4), (2, 2))
    for loss in ("nll", "crossentropy"):
        rows = torch.empty(2, model.d, dtype=torch.float64)
        out.append((rows, model.gradients(batch, Loss(loss), out=rows, train=False)))
    assert_close(out[0], out[1])
    assert_close(model.predict(batch.inputs).exp().sum(dim=1), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("own_rows", [True, False])
def test_workers_at_once_are_those_one_by_one(train: bool, own_rows: bool) -> None:
    model = small()
    inputs, targets = images(8), torch.arange(8)
    loss = Loss("crossentropy", l2=5e-4)
    model.prepare(inputs, targets, loss, train=train, own_rows=own_rows)
    assert model.one_by_one == ""
    points = torch.stack([model.parameters, 1.1 * model.parameters]) if own_rows else None
    before, results = model.state_dict(), []
    for reason in ("", "to compare"):
        model.one_by_one = reason
        model.load_state_dict(before)
        rows = torch.full((2, model.d), torch.nan, dtype=torch.float64)
        batch = Batches(inputs, targets, (4, 4))
        losses = model.gradients(batch, loss, out=rows, parameters=points, train=train, seeds=lambda worker: 5 + worker)
        results.append((rows, losses, model.state_dict()["buffers"]))
    assert_close(results[0], results[1], rtol=1e-8, atol=1e-10)
    moved = results[0][2]["maps.1.residual.0.running_mean"]
    assert torch.equal(moved, before["buffers"]["maps.1.residual.0.running_mean"]) is not train


def test_dropout_is_each_workers_own_and_only_in_training() -> None:
    model = small()
    model.one_by_one = ""
    batch = Batches(images(2).repeat(2, 1, 1, 1), torch.tensor([1, 2, 1, 2]), (2, 2))
    for train in (True, False):
        rows = torch.empty(2, model.d, dtype=torch.float64)
        model.gradients(batch, Loss("nll"), out=rows, train=train)
        assert torch.allclose(rows[0], rows[1]) is not train


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 27}, "wide-resnet: expected a depth of 6k + 4, such as 10, 16, 22 or 28, got 27"),
        ({"depth": 4}, "expected depth of at least 10, got 4"),
        ({"depth": 16.0}, "expected a whole number as depth, got 16.0"),
        ({"widen_factor": 0}, "expected widen_factor of at least 1, got 0"),
        ({"dropout": 1.5}, "expected dropout from 0 to 1, got 1.5"),
        ({"dropout": "much"}, "expected a number as dropout, got 'much'"),
        ({"width": 2}, "wide-resnet has no argument 'width', expected: depth, widen-factor, dropout"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("+", r"\+")) as caught:
        models.build("wide-resnet", input_shape=(3, 32, 32), num_outputs=10, **arguments)
    assert "\n" not in str(caught.value)


def test_what_is_no_image() -> None:
    with pytest.raises(UserError, match=r"wide-resnet: expected images, got samples of shape \(68,\)"):
        models.build("wide-resnet", input_shape=(68,), num_outputs=10)
