import pytest
import torch

from experiments.criteria import criteria
from tools.errors import UserError

OUTPUTS = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])


@pytest.mark.parametrize(("k", "right"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1])])
def test_top_k(k: int, right: list[int]) -> None:
    assert criteria["top-k"](k=k)(OUTPUTS, torch.tensor([1, 1, 0])).tolist() == right


def test_sigmoid() -> None:
    outputs = torch.tensor([[0.1], [0.6], [0.4], [0.9]])
    targets = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    assert criteria["sigmoid"]()(outputs, targets).tolist() == [1, 1, 0, 0]
    assert criteria["sigmoid"]()(torch.tensor([[0.1, 0.9]]), torch.tensor([[0.0, 0.0]])).tolist() == [0.5]


def test_not_a_number_is_never_right() -> None:
    assert criteria["sigmoid"]()(torch.tensor([[torch.nan]]), torch.tensor([[0.0]])).tolist() == [0]


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "a"])
def test_bad_k(k: object) -> None:
    with pytest.raises(UserError, match="top-k: expected k of at least 1, got"):
        criteria["top-k"](k=k)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="top-k: expected at least 4 outputs"):
        criteria["top-k"](k=4)(OUTPUTS, torch.tensor([1, 1, 0]))
    with pytest.raises(UserError, match=r"sigmoid: expected outputs and targets of one shape, got \(3, 3\) and \(3,\)"):
        criteria["sigmoid"]()(OUTPUTS, torch.tensor([1, 1, 0]))
