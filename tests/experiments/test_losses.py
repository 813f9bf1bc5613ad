import pytest
import torch

from experiments.losses import LOSSES, Loss
from tools.errors import UserError

WORKERS, SIZE = 3, 5
GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(WORKERS * SIZE, 4, generator=GENERATOR, dtype=torch.float64)
CLASSES = torch.randint(4, (WORKERS * SIZE,), generator=GENERATOR)
SIGNS = torch.randint(2, SCORES.shape, generator=GENERATOR).double() * 2 - 1
OF_PAIRS = {  # outputs and targets that suit each loss of two tensors
    "nll": (SCORES.log_softmax(1), CLASSES),
    "crossentropy": (SCORES, CLASSES),
    "multimargin": (SCORES, CLASSES),
    "multilabelmargin": (SCORES, CLASSES.unsqueeze(1).repeat(1, 4)),
    "bce": (SCORES.sigmoid(), (SIGNS + 1) / 2),
    "bcewithlogits": (SCORES, (SIGNS + 1) / 2),
    "multilabelsoftmargin": (SCORES, (SIGNS + 1) / 2),
    "hingeembedding": (SCORES, SIGNS),
    "softmargin": (SCORES, SIGNS),
    "kldiv": (SCORES.log_softmax(1), SCORES.flip(0).softmax(1)),
    "poissonnll": (SCORES, SCORES.flip(0).exp()),
    **dict.fromkeys(("mse", "l1", "smoothl1", "huber"), (SCORES, SCORES.flip(0))),
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("name", OF_PAIRS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_per_worker_is_the_loss_of_each_batch(name: str, reduction: str) -> None:
    outputs, targets = OF_PAIRS[name]
    loss = Loss(name, {"reduction": reduction})
    batches = zip(outputs.chunk(WORKERS), targets.chunk(WORKERS), strict=True)
    expected = torch.stack([LOSSES[name](reduction=reduction)(*batch) for batch in batches])
    torch.testing.assert_close(loss.per_worker(outputs, targets, WORKERS), expected)
    torch.testing.assert_close(loss(outputs[:SIZE], targets[:SIZE]), expected[0])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("nll", {"weight": [1.0, 2.0, 3.0, 4.0]}),
        ("crossentropy", {"ignore_index": 2}),
        ("crossentropy", {"label_smoothing": 0.1}),
        ("kldiv", {"reduction": "batchmean"}),
        ("huber", {"delta": 0.3}),
    ],
)
def test_arguments(name: str, arguments: dict) -> None:
    outputs, targets = (part.float() if part.is_floating_point() else part for part in OF_PAIRS[name])
    tensors = {k: torch.tensor(v) if isinstance(v, list) else v for k, v in arguments.items()}
    batches = zip(outputs.chunk(WORKERS), targets.chunk(WORKERS), strict=True)
    expected = torch.stack([LOSSES[name](**tensors)(*batch) for batch in batches])
    torch.testing.assert_close(Loss(name, arguments).per_worker(outputs, targets, WORKERS), expected)


def test_names_are_those_of_torch() -> None:
    assert {"nll", "crossentropy", "bce", "bcewithlogits", "mse", "l1", "smoothl1", "huber", "ctc"} <= LOSSES.keys()
    assert all(cls.__name__.lower() == f"{name}loss" for name, cls in LOSSES.items())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nl", {}, "unknown loss 'nl', expected one of: bce"),
        ("nll", {"wait": 1}, "nll has no argument 'wait', expected: weight"),
        ("nll", {"reduction": "none"}, "expected reduction:mean or sum"),
        ("huber", {"delta": -1}, None),
    ],
)
def test_bad_arguments(name: str, arguments: dict, message: str | None) -> None:
    if message is None:
        Loss(name, arguments)  # torch checks its value when it is used
        return
    with pytest.raises(UserError, match=message):
        Loss(name, arguments)


@pytest.mark.parametrize("own_rows", [False, True])
def test_regularisation_is_the_gradient_of_the_norms(own_rows: bool) -> None:
    shape = (WORKERS, 6) if own_rows else (6,)
    parameters = torch.randn(shape, generator=GENERATOR, dtype=torch.float64).requires_grad_()
    rows = parameters if own_rows else parameters.expand(WORKERS, 6)
    terms = 0.3 * rows.abs().sum(1) + 0.7 * (rows**2).sum(1).sqrt()
    (expected,) = torch.autograd.grad(terms.sum(), parameters)
    gradients, losses = torch.zeros(WORKERS, 6, dtype=torch.float64), torch.zeros(WORKERS, dtype=torch.float64)
    Loss("nll", l1=0.3, l2=0.7).add_regularisation(parameters.detach(), gradients, losses)
    torch.testing.assert_close(losses, terms.detach())
    torch.testing.assert_close(gradients, expected if own_rows else (expected / WORKERS).expand(WORKERS, 6))


def test_norm_of_zero_has_no_gradient() -> None:
    gradients, losses = torch.zeros(1, 6), torch.zeros(1)
    Loss("nll", l1=1.0, l2=1.0).add_regularisation(torch.zeros(6), gradients, losses)
    assert not gradients.any()
    assert not losses.any()
