import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from experiments import models
from experiments.batches import Batches
from experiments.losses import Loss
from experiments.model import Model
from tools.errors import UserError

SHAPES = {"simples-conv": (1, 28, 28), "empire-cnn": (3, 8, 8)}
SMALLER = {"wide-resnet": {"depth": 10, "widen_factor": 1}}  # than by default, 36 million parameters
NLL = Loss("nll", l2=1e-2)
names = pytest.mark.parametrize("name", sorted(models.architectures))


def batches(shape: tuple[int, ...], sizes: tuple[int, ...], classes: int = 10) -> Batches:
    draw = torch.Generator().manual_seed(3)
    samples = sum(sizes)
    inputs = torch.randn(samples, *shape, generator=draw, dtype=torch.float64)
    return Batches(inputs, torch.randint(classes, (samples,), generator=draw), sizes)


def loss_of(name: str) -> Loss:
    return Loss("crossentropy") if name in ("simples-linear", "simples-logit") else NLL


def make(name: str, **arguments) -> Model:
    shape = SHAPES.get(name, (1, 8, 8))
    model = Model(name, {"input_shape": shape, "num_outputs": 10, **SMALLER.get(name, {}), **arguments}, seed=1)
    return Model(model.module.double())


def both(
    model: Model, batch: Batches, loss: Loss, buffers: dict[str, Tensor] | None = None, **settings
) -> list[tuple[Tensor, Tensor, dict]]:
    """Return gradients, losses and buffers, those given or the model's: all workers at once, and one by one."""
    results = []
    before = model.state_dict()
    for reason in ("", "to compare"):
        model.one_by_one = reason
        out = model.parameters.new_full((len(batch.sizes), model.d), torch.nan)
        rows = copy.deepcopy(buffers)
        losses = model.gradients(batch, loss, out=out, buffers=rows, **settings)
        after = model.state_dict()["buffers"]
        if buffers is not None:
            assert_close(after, before["buffers"], rtol=0, atol=0)
        results.append((out, losses, after if rows is None else rows))
        model.load_state_dict(before)
    return results


def different_buffers(model: Model, h: int) -> dict[str, Tensor]:
    """Return rows of buffers that differ; means and variances stay sensible."""
    rows = model.node_buffers(h)
    for buffer in rows.values():
        buffer.add_(torch.arange(h).view(h, *[1] * (buffer.dim() - 1)))
    return rows


@names
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("own_rows", [False, True])
@pytest.mark.parametrize("sizes", [(4, 4, 4), (4, 3, 4, 4, 2)])
def test_all_at_once_equals_one_by_one(name: str, train: bool, own_rows: bool, sizes: tuple[int, ...]) -> None:
    model = make(name)
    batch = batches(SHAPES.get(name, (1, 8, 8)), sizes)
    points = None
    if own_rows:
        noise = torch.randn(len(sizes), model.d, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        points = model.parameters + 0.05 * noise
    at_once, one_by_one = both(model, batch, loss_of(name), train=train, parameters=points, seeds=lambda w: 100 + w)
    for x, y in zip(at_once[:2], one_by_one[:2], strict=True):
        assert_close(x, y, rtol=1e-8, atol=1e-10)
    assert_close(at_once[2], one_by_one[2], rtol=1e-8, atol=1e-10)


@names
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("update", [True, False])
def test_all_at_once_equals_one_by_one_with_buffers_of_each(name: str, train: bool, update: bool) -> None:
    model, sizes = make(name), (4, 3, 4, 4, 2)
    batch, rows = batches(SHAPES.get(name, (1, 8, 8)), sizes), different_buffers(model, len(sizes))
    points = model.parameters * (1 + 0.05 * torch.arange(len(sizes), dtype=torch.float64).unsqueeze(1))
    settings = {"buffers": rows, "parameters": points, "train": train, "update_statistics": update}
    at_once, one_by_one = both(model, batch, loss_of(name), **settings)
    for x, y in zip(at_once, one_by_one, strict=True):
        assert_close(x, y, rtol=1e-8, atol=1e-10)
    if not (train and update):
        assert_close(at_once[2], rows, rtol=0, atol=0)


@names
def test_every_model_can_be_batched(name: str) -> None:
    model = make(name)
    batch = batches(SHAPES.get(name, (1, 8, 8)), (8,))
    for train, own_rows, own_buffers in itertools.product((False, True), repeat=3):
        settings = {"train": train, "own_rows": own_rows, "own_buffers": own_buffers}
        model.prepare(batch.inputs, batch.targets, loss_of(name), **settings)
        assert model.one_by_one == ""


def test_gradient_is_that_of_autograd() -> None:
    model = make("simples-full")
    batch = batches((1, 8, 8), (3, 3))
    (out, losses, _), _ = both(model, batch, NLL)
    module = copy.deepcopy(model.module)
    for i in range(2):
        part = slice(3 * i, 3 * i + 3)
        norm = torch.cat([p.flatten() for p in module.parameters()]).norm()
        value = F.nll_loss(module(batch.inputs[part]), batch.targets[part]) + 1e-2 * norm
        gradients = torch.autograd.grad(value, list(module.parameters()))
        assert_close(losses[i], value.detach())
        assert_close(out[i], torch.cat([gradient.flatten() for gradient in gradients]))


def test_sizes_of_the_paper() -> None:
    for name, shape, d in (("simples-full", (1, 28, 28), 79_510), ("simples-conv", (1, 28, 28), 431_080)):
        assert Model(name, {"input_shape": shape, "num_outputs": 10}).d == d
    assert Model("empire-cnn", {"input_shape": (3, 32, 32), "num_outputs": 10}).d == 1_310_922
    assert Model("digits-mlp", {"input_shape": (1, 8, 8), "num_outputs": 10}).d == 4_810
    hundred = models.build("empire-cnn", input_shape=(3, 32, 32), num_outputs=100)
    assert hundred.classes[0].out_features == 256


def test_parameters_share_the_memory_of_one_vector() -> None:
    model = make("digits-mlp")
    model.parameters.fill_(0.5)
    assert all((parameter == 0.5).all() for parameter in model.module.parameters())
    next(model.module.parameters()).data.zero_()
    assert (model.parameters == 0).sum() == 64 * 64
    assert_close(torch.cat([p.detach().flatten() for p in model.module.parameters()]), model.parameters)


def test_same_seed_same_parameters_whatever_the_global_generator() -> None:
    drawn = []
    for seed, noise in ((1, 0), (1, 1), (2, 0)):
        torch.manual_seed(noise)
        state = torch.random.get_rng_state()
        drawn.append(Model("digits-mlp", {"input_shape": (1, 8, 8), "num_outputs": 10}, seed=seed).parameters)
        assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_running_statistics_end_as_if_workers_were_visited_in_order(momentum: float | None) -> None:
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, momentum=momentum), nn.LogSoftmax(1)).double()
    reference = copy.deepcopy(module).train()
    model = Model(module)
    batch = batches((5,), (6, 6, 6), 4)
    for _ in range(2):
        for part in batch.inputs.split(6):
            reference(part)
    expected = {k: v for k, v in reference.state_dict().items() if "running" in k or "tracked" in k}
    model.one_by_one = ""
    for _ in range(2):
        model.gradients(batch, NLL, out=torch.empty(3, model.d, dtype=torch.float64))
    assert_close(model.buffers(), expected)


@pytest.mark.parametrize("reason", ["", "one by one"])
@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_running_statistics_of_each_are_those_of_modules_apart(reason: str, momentum: float | None) -> None:
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, momentum=momentum), nn.LogSoftmax(1)).double()
    apart = [copy.deepcopy(module).train() for _ in range(3)]
    for _ in range(2):  # so that one has seen more batches than the others
        apart[1](torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    model = Model(module)
    model.one_by_one = reason
    rows = {name: torch.stack([dict(own.named_buffers())[name] for own in apart]) for name in model.buffers()}
    before, batch = model.state_dict(), batches((5,), (6, 6, 4), 4)
    for train in (False, True, True, False):
        out = torch.empty(3, model.d, dtype=torch.float64)
        losses = model.gradients(batch, Loss("nll"), out=out, buffers=rows, train=train)
        parts = zip(apart, batch.inputs.split(batch.sizes), batch.targets.split(batch.sizes), strict=True)
        for i, (own, inputs, targets) in enumerate(parts):
            value = F.nll_loss(own.train(train)(inputs), targets)
            gradients = torch.autograd.grad(value, list(own.parameters()))
            assert_close(losses[i], value.detach())
            assert_close(out[i], torch.cat([gradient.flatten() for gradient in gradients]))
            assert_close({name: row[i] for name, row in rows.items()}, dict(own.named_buffers()))
    assert rows["1.num_batches_tracked"].tolist() == [2, 4, 2]
    assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_buffers_of_nodes_are_copies_of_the_models() -> None:
    model = make("empire-cnn")
    rows = model.node_buffers(3)
    assert rows.keys() == model.buffers().keys()
    for name, buffer in model.buffers().items():
        assert torch.equal(rows[name], buffer.expand(3, *buffer.shape))
        rows[name][1] += 1
        assert torch.equal(rows[name][0], buffer)
    assert make("simples-full").node_buffers(3) == {}


def test_parameters_and_buffers_can_be_loaded() -> None:
    model = make("empire-cnn")
    before, rows, inputs = model.state_dict(), different_buffers(model, 3), batches((3, 8, 8), (4,)).inputs
    outputs = model.predict(inputs)
    model.load(2 * model.parameters, {name: row[2] for name, row in rows.items()})
    assert_close(model.parameters, 2 * before["parameters"], rtol=0, atol=0)
    assert_close(model.buffers(), {name: row[2] for name, row in rows.items()}, rtol=0, atol=0)
    assert not torch.allclose(model.predict(inputs), outputs)
    model.load(before["parameters"], None)
    assert torch.equal(model.buffers()["maps.0.2.running_mean"], rows["maps.0.2.running_mean"][2])
    model.load(**before)
    assert torch.equal(model.predict(inputs), outputs)


class Counting(nn.Module):
    """Counts its samples in one buffer, in place, and keeps their mean in another, which it replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.seen += len(inputs)
            self.mean = self.mean + inputs.mean(dim=0)
        return self.layer(inputs - self.mean).log_softmax(1)


class Shifted(nn.Module):
    """Reads running statistics itself; its other buffer is a constant."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3)
        self.register_buffer("offset", torch.arange(4.0))
        self.reads = reads

    def forward(self, inputs: Tensor) -> Tensor:
        shift = self.offset + self.norm.running_mean if self.reads else self.offset
        return self.layer(self.norm(inputs) + shift).log_softmax(1)


@pytest.mark.parametrize("update", [True, False])
def test_other_buffers_belong_to_each_worker_one_by_one(update: bool) -> None:
    module = Counting().double()
    model = Model(module)
    batch, rows = batches((4,), (4, 4, 2), 3), different_buffers(model, 3)
    model.prepare(batch.inputs, batch.targets, Loss("nll"), own_buffers=True)
    assert model.one_by_one == "it mixes samples"
    model.prepare(batch.inputs, batch.targets, Loss("nll"), train=False, own_buffers=True)
    assert model.one_by_one == ""
    model.prepare(batch.inputs, batch.targets, Loss("nll"), own_buffers=True)
    before, expected = model.state_dict(), copy.deepcopy(rows)
    out = torch.empty(3, model.d, dtype=torch.float64)
    for _ in range(2):
        model.gradients(batch, Loss("nll"), out=out, buffers=rows, update_statistics=update)
    if update:
        expected["seen"] += torch.tensor([8, 8, 4])
        expected["mean"] += 2 * torch.stack([part.mean(dim=0) for part in batch.inputs.split(batch.sizes)])
    assert_close(rows, expected)
    assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("train", [True, False])
def test_statistics_read_elsewhere_are_noticed_but_constants_do_no_harm(train: bool) -> None:
    batch = batches((4,), (8,), 3)
    for reads in (True, False):
        model = Model(Shifted(reads).double())
        model.prepare(batch.inputs, batch.targets, Loss("nll"), train=train, own_buffers=True)
        assert bool(model.one_by_one) == reads


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("prepared", [True, False])
def test_any_module_will_do(dtype: torch.dtype, prepared: bool) -> None:
    class Bent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.5))

        def forward(self, inputs: Tensor) -> Tensor:
            return (self.scale * inputs).sin().sum(dim=1)

    model = Model(Bent().to(dtype))
    inputs, targets = batches((4,), (6,)).inputs.to(dtype), torch.arange(6, dtype=dtype)
    if prepared:
        model.prepare(inputs, targets, Loss("mse"), own_rows=True, own_buffers=True)
    assert model.one_by_one
    points = torch.tensor([[0.5], [2.0]], dtype=dtype)
    out = torch.empty_like(points)
    batch = Batches(inputs, targets, (4, 2))
    losses = model.gradients(batch, Loss("mse"), out=out, parameters=points, buffers=model.node_buffers(2))
    for i, part in enumerate((slice(4), slice(4, 6))):
        x, y = inputs[part].double().numpy(), targets[part].double().numpy()
        error, scale = np.sin(points[i].item() * x).sum(axis=1) - y, points[i].item()
        assert_close(losses[i].item(), (error**2).mean(), rtol=1e-5, atol=0)
        expected = (2 * error * (np.cos(scale * x) * x).sum(axis=1)).mean()
        assert_close(out[i].item(), expected, rtol=1e-5, atol=1e-6)
    assert model.parameters.tolist() == [0.5]
    assert model.predict(inputs).dtype == losses.dtype == dtype


@pytest.mark.parametrize("reason", ["", "one by one"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_can_be_left_alone(reason: str, momentum: float | None) -> None:
    model = make("empire-cnn")
    for layer in model.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum
    model.one_by_one = reason
    before = model.state_dict()["buffers"]
    batch, out = batches((3, 8, 8), (4, 4)), torch.empty(2, model.d, dtype=torch.float64)
    model.gradients(batch, NLL, out=out, update_statistics=False)
    assert_close(model.buffers(), before, rtol=0, atol=0)
    model.gradients(batch, NLL, out=out)
    assert not torch.equal(model.buffers()["maps.0.2.running_mean"], before["maps.0.2.running_mean"])


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.Dropout1d(0.5), nn.Dropout(0.5, inplace=True)])
def test_dropout_differs_per_worker_and_is_reproducible(layer: nn.Module) -> None:
    module = nn.Sequential(nn.Unflatten(1, (5, 4)), layer, nn.Flatten(), nn.Linear(20, 4), nn.LogSoftmax(1)).double()
    model = Model(module)
    inputs = torch.randn(6, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Batches(inputs.repeat(3, 1), torch.arange(6).remainder(4).repeat(3), (6, 6, 6))
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    at_once, one_by_one = both(model, batch, NLL, seeds=lambda worker: 7 + worker)
    assert_close(at_once, one_by_one)
    rows = at_once[0]
    assert not torch.allclose(rows[0], rows[1])
    again, _ = both(model, batch, NLL, seeds=lambda worker: 7 + worker)
    assert torch.equal(again[0], rows)
    shifted, _ = both(model, batch, NLL, seeds=lambda worker: 8 + worker)
    assert_close(shifted[0][:2], rows[1:])  # a worker's noise is its own
    evaluated, _ = both(model, batch, NLL, train=False)
    assert_close(evaluated[0][0], evaluated[0][1])
    assert torch.equal(torch.random.get_rng_state(), state)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(self.layer(inputs)).log_softmax(1)


class Scaled(Tied):
    def forward(self, inputs: Tensor) -> Tensor:
        return (self.layer(inputs) * self.layer.bias).log_softmax(1)


class MixesSamples(Tied):
    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs - inputs.mean(dim=0)).log_softmax(1)


class DividesByBatchSize(Tied):
    def forward(self, inputs: Tensor) -> Tensor:
        return (self.layer(inputs) / len(inputs)).log_softmax(1)


class Noisy(Tied):
    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs + torch.randn_like(inputs)).log_softmax(1)


class CountsCalls(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(inputs).log_softmax(1)


class Attentive(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = inputs.unsqueeze(1)
        return self.layer(self.attention(tokens, tokens, tokens)[0].squeeze(1)).log_softmax(1)


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (Tied, "a parameter is used twice"),
        (Scaled, "a parameter is used by"),
        (Attentive, "a parameter is used by"),
        (MixesSamples, "it mixes samples"),
        (DividesByBatchSize, "it mixes samples"),
        (Noisy, "draws random numbers of its own"),
        (CountsCalls, "it changes buffers that are no running statistics"),
    ],
)
@pytest.mark.parametrize("own_buffers", [False, True])
def test_what_cannot_be_batched_is_noticed(cls: type[nn.Module], reason: str, own_buffers: bool) -> None:
    model = Model(cls().double())
    batch = batches((4,), (8,), 4)
    before = model.state_dict()
    model.prepare(batch.inputs, batch.targets, NLL, own_buffers=own_buffers)
    assert reason in model.one_by_one
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    out = torch.empty(2, model.d, dtype=torch.float64)
    model.gradients(Batches(batch.inputs, batch.targets, (4, 4)), NLL, out=out)
    first = out.clone()
    model.gradients(Batches(batch.inputs, batch.targets, (4, 4)), NLL, out=out)
    assert torch.equal(out, first)


def test_inputs_are_never_written_to() -> None:
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4), nn.LogSoftmax(1)).double()
    for model, changes in ((Model(module), True), (Model(Tied().double()), False)):
        batch = batches((4,), (4, 4), 4)
        before = batch.inputs.clone()
        model.prepare(batch.inputs, batch.targets, NLL)
        assert model.changes_inputs == changes
        model.gradients(batch, NLL, out=torch.empty(2, model.d, dtype=torch.float64))
        model.predict(batch.inputs)
        assert torch.equal(batch.inputs, before)


def test_parameters_that_are_not_used_have_no_gradient() -> None:
    class Idle(Tied):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.ignored = nn.Linear(4, 3), nn.Linear(4, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            self.ignored(inputs)
            return self.layer(inputs).log_softmax(1)

    model = Model(Idle().double())
    batch = batches((4,), (3, 3), 4)
    model.one_by_one = ""
    out = torch.full((2, model.d), torch.nan, dtype=torch.float64)
    model.gradients(batch, Loss("nll"), out=out)
    assert out[:, :20].any()
    assert not out[:, 20:].any()


def test_prepare_says_what_does_not_fit() -> None:
    batch = batches((1, 8, 8), (8,))
    with pytest.raises(
        UserError, match=r"cannot be trained with this loss on inputs of shape \(1, 8, 8\) and torch.int64"
    ):
        make("simples-full").prepare(batch.inputs, batch.targets, Loss("bce"))
    wide = Batches(torch.randn(8, 1, 9, 9, dtype=torch.float64), batch.targets, (8,))
    with pytest.raises(UserError, match="mat1 and mat2 shapes cannot be"):
        make("simples-full").prepare(wide.inputs, wide.targets, NLL)
    ten = Batches(batch.inputs[:8].repeat(3, 1, 1, 1)[:20], torch.arange(20).double(), (20,))
    with pytest.raises(UserError, match="Using a target size"):
        make("simples-full").prepare(ten.inputs, ten.targets, Loss("mse"))


def test_prediction_is_in_evaluation_mode() -> None:
    model = make("empire-cnn")
    inputs = batches((3, 8, 8), (4,)).inputs
    model.gradients(batches((3, 8, 8), (4,)), NLL, out=torch.empty(1, model.d, dtype=torch.float64))
    assert_close(model.predict(inputs)[:2], model.predict(inputs[:2]))
    assert not model.predict(inputs).requires_grad


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_torchvision_classifiers(name: str) -> None:
    pytest.importorskip("torchvision")
    model = Model(f"torchvision-{name}", {"input_shape": (1, 32, 32), "num_outputs": 10}, seed=1)
    draw = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(8, 1, 32, 32, generator=draw), torch.arange(8)
    assert_close(model.predict(inputs).exp().sum(1), torch.ones(8))
    model.prepare(inputs, targets, Loss("nll"))
    assert model.one_by_one == ""
    out = torch.empty(2, model.d)
    losses = model.gradients(Batches(inputs, targets, (4, 4)), Loss("nll"), out=out)
    assert losses.isfinite().all()
    assert out.isfinite().all()


def test_models_that_cannot_be_built() -> None:
    with pytest.raises(UserError, match=r"unknown model 'x', expected one of: digits-mlp, .*torchvision-<name>"):
        models.build("x", input_shape=(1, 8, 8), num_outputs=10)
    with pytest.raises(UserError, match="simples-conv: expected images of at least 16×16"):
        models.build("simples-conv", input_shape=(1, 8, 8), num_outputs=10)
    with pytest.raises(UserError, match="empire-cnn: expected images of at least 4×4"):
        models.build("empire-cnn", input_shape=(68,), num_outputs=10)
    with pytest.raises(UserError, match="simples-full has no argument 'width', expected: hidden"):
        models.build("simples-full", input_shape=(1, 8, 8), num_outputs=10, width=3)
    with pytest.raises(UserError, match="simples-full cannot be built with"):
        models.build("simples-full", input_shape=(1, 8, 8), num_outputs=10, hidden="wide")
    with pytest.raises(
        UserError, match="unknown model 'torchvision-resnet', expected torchvision- and one of: alexnet"
    ):
        models.build("torchvision-resnet", input_shape=(1, 8, 8), num_outputs=10)
    with pytest.raises(UserError, match="torchvision-resnet18: expected images"):
        models.build("torchvision-resnet18", input_shape=(68,), num_outputs=10)
    with pytest.raises(UserError, match="cannot be built with"):
        models.build("torchvision-resnet18", input_shape=(1, 8, 8), num_outputs=10, depth=3)
    with pytest.raises(UserError, match="expected a model with parameters"):
        Model(nn.Flatten())


def test_linear_sizes_are_those_of_the_data_unless_given() -> None:
    assert models.build("simples-logit", input_shape=(68,), num_outputs=1).linear.weight.shape == (1, 68)
    assert models.build("simples-linear", input_shape=(68,), num_outputs=1, din=60, dout=2).linear.weight.shape == (
        2,
        60,
    )


def test_channels_last_keeps_the_values() -> None:
    for channels in (1, 3):
        images = torch.randn(4, channels, 6, 5)
        result = models.channels_last(images)
        assert torch.equal(result, images)
        assert result.stride() == (30 * channels, 1, 5 * channels, channels)


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)
        self.first.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs).relu()).log_softmax(1)


def test_frozen_parameters_are_not_trained() -> None:
    module = Frozen().double()
    frozen = module.first.weight.clone()
    model = Model(module)
    assert model.d == 5 * 3 + 3
    batch = batches((4,), (4, 4), 3)
    model.prepare(batch.inputs, batch.targets, NLL)
    assert model.one_by_one == "some of its parameters are frozen"
    out = torch.empty(2, model.d, dtype=torch.float64)
    model.gradients(batch, NLL, out=out)
    model.parameters -= out[0]
    assert torch.equal(module.first.weight, frozen)
    assert out.any(dim=1).all()


class Aliased(nn.Module):
    """Keeps a parameter a second time, where no list of parameters shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.cache = [self.layer.weight]

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.cache[0], self.layer.bias).log_softmax(1)


class Recomputed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = checkpoint(lambda x: self.first(x).tanh(), inputs, use_reentrant=False)
        return self.second(hidden).log_softmax(1)


@pytest.mark.parametrize("cls", [Aliased, Recomputed])
def test_loop_over_workers_is_right_for_unusual_modules(cls: type[nn.Module]) -> None:
    model = Model(cls().double())
    batch = batches((4,), (4, 4), 3)
    points = torch.stack([model.parameters + 0.1, model.parameters - 0.2])
    before = model.parameters.clone()
    model.one_by_one = "to test it"
    out = torch.empty_like(points)
    model.gradients(batch, Loss("nll"), out=out, parameters=points)
    assert torch.equal(model.parameters, before)
    for row, point, inputs, targets in zip(out, points, batch.inputs.split(4), batch.targets.split(4), strict=True):
        model.parameters.copy_(point)
        gradients = torch.autograd.grad(F.nll_loss(model.module(inputs), targets), model.module.parameters())
        assert_close(row, torch.cat([gradient.flatten() for gradient in gradients]))


def test_batch_too_small_to_train_on() -> None:
    model = Model(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10), nn.LogSoftmax(1)).double())
    batch = batches((1, 8, 8), (8,))
    model.prepare(batch.inputs, batch.targets, NLL, sizes={"a batch": 2, "another": 4, "a large one": 100})
    model.prepare(batch.inputs, batch.targets, NLL, train=False, sizes={"a batch": 1})
    with pytest.raises(UserError, match=r"--root: a batch of 1, on which this model cannot be trained \(Expected more"):
        model.prepare(batch.inputs, batch.targets, NLL, sizes={"a batch": 2, "--root: a batch": 1})
