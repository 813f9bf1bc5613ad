"""What all rules for decentralised mixing have in common."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from aggregators import gars

N, F, D = 11, 3, 7
WEIGHED = ["clippedgossip", "cs+", "gts", "ios", "rtc"]
CASES = [(name, {}) for name in (*WEIGHED, "ubar")]
CASES += [("clippedgossip", {"tau": "estimate"}), ("clippedgossip", {"tau": 1.5})]
cases = pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)
weighed = pytest.mark.parametrize(("name", "arguments"), [case for case in CASES if case[0] != "ubar"], ids=str)


def first_coordinate(row: Tensor) -> Tensor:
    return row[0] / row.double().norm()


def mix(name: str, rows: Tensor, weights: Tensor, f: int = F, **arguments: Any) -> Tensor:
    return gars[name].aggregate(rows, f=f, weights_row=weights, loss=first_coordinate, **arguments)


@pytest.fixture
def rows(generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randn(2, 3, N, D, generator=generator, device=device, dtype=torch.float64)


@pytest.fixture
def weights(generator: torch.Generator, device: torch.device) -> Tensor:
    weights = 0.5 + torch.rand(2, 3, N, generator=generator, device=device, dtype=torch.float64)
    return weights / weights.sum(dim=-1, keepdim=True)


@cases
def test_batch_equals_loop(name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor) -> None:
    together = mix(name, rows, weights, **arguments)
    one_for_all = mix(name, rows, weights[0, 0], **arguments)
    for i, j in itertools.product(range(2), range(3)):
        assert_close(together[i, j], mix(name, rows[i, j], weights[i, j], **arguments))
        assert_close(one_for_all[i, j], mix(name, rows[i, j], weights[0, 0], **arguments))


@cases
def test_order_of_neighbours_is_irrelevant(name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor) -> None:
    order = torch.tensor([0, *(1 + torch.randperm(N - 1, generator=torch.Generator().manual_seed(0))).tolist()])
    expected = mix(name, rows, weights, **arguments)
    assert_close(mix(name, rows[..., order, :], weights[..., order], **arguments), expected)


@cases
def test_shares_are_those_of_a_weighted_mean(
    name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor
) -> None:
    rule, context = gars[name], {"weights_row": weights[0, 0], "loss": first_coordinate}
    result, shares = rule.aggregate_and_weights(rows[0, 0], f=F, **context, **arguments)
    assert (shares >= 0).all()
    assert_close(float(shares.sum()), 1.0)
    assert_close(shares @ rows[0, 0], result)
    influence = rule.influence(rows[0, 0, :8], rows[0, 0, 8:], f=F, **context, **arguments)
    assert influence == pytest.approx(float(shares[8:].sum()))


@weighed
def test_without_byzantine_neighbours_it_is_plain_mixing(
    name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor
) -> None:
    if arguments.get("tau") == 1.5:
        pytest.skip("a fixed radius clips whatever f is")
    assert_close(mix(name, rows, weights, f=0, **arguments), (weights.unsqueeze(-2) @ rows).squeeze(-2))


@weighed
def test_where_all_neighbours_may_be_byzantine_own_is_left(
    name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor
) -> None:
    if arguments.get("tau") == 1.5:
        pytest.skip("a fixed radius clips whatever f is")
    assert_close(mix(name, rows, weights, f=N - 1, **arguments), rows[..., 0, :])


@cases
def test_alone(name: str, arguments: dict[str, Any], rows: Tensor) -> None:
    result = mix(name, rows[..., :1, :], torch.ones(1), f=0, **arguments)
    assert torch.equal(result, rows[..., 0, :])
    result += 1
    assert not torch.equal(result, rows[..., 0, :])


@cases
def test_rows_alike_stay(name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor) -> None:
    own = rows[..., :1, :]
    assert_close(mix(name, own.expand_as(rows), weights, **arguments), own.squeeze(-2))
    close = (1e3 * own * (1 + 1e-7 * rows)).float()
    assert_close(mix(name, close, weights, **arguments), 1e3 * own.squeeze(-2).float(), rtol=1e-5, atol=0)


@weighed
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_weight_zero_are_no_neighbours(
    name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor, value: float, dtype: torch.dtype
) -> None:
    here = [0, 1, 2, 4, 5, 6, 8, 9]
    weights[..., [3, 7, 10]] = 0
    weights /= weights.sum(dim=-1, keepdim=True)
    expected = mix(name, rows[..., here, :].to(dtype), weights[..., here], **arguments)
    rows[..., 3, :], rows[..., 7, 2] = 1e3, value
    assert_close(mix(name, rows.to(dtype), weights, **arguments), expected)


@cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_non_finite_neighbours_are_infinitely_far(
    name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor, dtype: torch.dtype
) -> None:
    attacked, rows = rows.to(dtype).clone(), rows.to(dtype)
    attacked[..., 2, 4], attacked[..., 7, :], attacked[..., 9, 0] = torch.nan, torch.inf, -torch.inf
    rows[..., [2, 7, 9], :] = 1e15  # far, and clipped to next to nothing where it is not removed
    result = mix(name, attacked, weights, **arguments)
    assert result.isfinite().all()
    _, shares = gars[name].aggregate_and_weights(attacked, f=F, weights_row=weights, loss=first_coordinate, **arguments)
    assert (shares[..., [2, 7, 9]] == 0).all()
    if name in ("gts", "ios", "rtc", "ubar"):
        assert_close(result, mix(name, rows, weights, **arguments))
    else:  # clipped ones still pull
        _, far = gars[name].aggregate_and_weights(rows, f=F, weights_row=weights, **arguments)
        others = [1, 3, 4, 5, 6, 8, 10]
        assert_close(shares[..., others], far[..., others])


@cases
def test_more_non_finite_neighbours_than_declared(
    name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor
) -> None:
    rows[..., 2:9, 3] = torch.nan
    assert mix(name, rows, weights, **arguments).isfinite().all()


@cases
@pytest.mark.parametrize("value", [1e30, -1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_neighbours_pull_no_farther_than_the_farthest_honest_one(
    name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor, value: float, dtype: torch.dtype
) -> None:
    attacked = rows.to(dtype).clone()
    attacked[..., [2, 7, 9], :] = value
    result = mix(name, attacked, weights, **arguments)
    own = attacked[..., 0, :]
    farthest = (attacked[..., [1, 3, 4, 5, 6, 8, 10], :] - own.unsqueeze(-2)).norm(dim=-1).amax(dim=-1)
    radius = farthest * (1.5 if arguments.get("tau") == "estimate" else 1)  # Σ w‖·‖² / b may exceed the largest ‖·‖²
    assert ((result - own).norm(dim=-1) <= radius).all()
    if name in ("gts", "ios", "rtc", "ubar"):
        attacked[..., [2, 7, 9], :] = torch.nan
        assert_close(result, mix(name, attacked, weights, **arguments))


@cases
@pytest.mark.parametrize("scale", [1e20, 1e-25])
def test_scale_at_the_edges_of_float32(
    name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor, scale: float
) -> None:
    rows = rows.float()
    expected = mix(name, rows, weights, **arguments)
    if "tau" in arguments and arguments["tau"] == 1.5:
        arguments = {"tau": 1.5 * scale}
    assert_close(mix(name, rows * scale, weights, **arguments) / scale, expected, rtol=1e-4, atol=1e-4)


@weighed
def test_translation(name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor) -> None:
    shift = torch.linspace(-3, 3, D, dtype=rows.dtype, device=rows.device)
    assert_close(mix(name, rows + shift, weights, **arguments), mix(name, rows, weights, **arguments) + shift)


@cases
def test_known_copies_are_read_once(name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor) -> None:
    rows[..., -F:, :] = rows[..., -F : N - F + 1, :]
    expected = mix(name, rows, weights, **arguments)
    assert_close(mix(name, rows, weights, copies=F, **arguments), expected)
    rows[..., 1 - F :, :] = torch.nan
    assert_close(mix(name, rows, weights, copies=F, **arguments), expected)
    alike = rows[..., :1, :].expand_as(rows)
    assert_close(mix(name, alike, weights, copies=N, **arguments), rows[..., 0, :])


@cases
def test_weights_in_another_dtype(name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor) -> None:
    equal = torch.full((N,), 1 / N)
    expected = mix(name, rows, equal.double(), **arguments)
    for f in range(N):
        assert_close(
            mix(name, rows, equal, f=f, **arguments),
            mix(name, rows, torch.full((N,), 1 / N).double(), f=f, **arguments),
        )
    result = mix(name, rows.float(), equal, **arguments)
    assert result.dtype == torch.float32
    assert_close(result, expected.float(), rtol=1e-4, atol=1e-5)


@cases
def test_inputs_are_unchanged(name: str, arguments: dict[str, Any], rows: Tensor, weights: Tensor) -> None:
    before = rows.clone(), weights.clone()
    mix(name, rows, weights, **arguments).add_(1)
    mix(name, rows.mT.contiguous().mT, weights, **arguments)
    assert torch.equal(rows, before[0])
    assert torch.equal(weights, before[1])


@pytest.mark.parametrize("name", WEIGHED)
def test_conditions(name: str) -> None:
    rows, rule = torch.eye(5, 6), gars[name]
    for f in (0, 4):
        assert rule.aggregate(rows, f=f, weights_row=torch.full((5,), 0.2)).isfinite().all()
    with pytest.raises(ValueError, match=rf"{name.replace('+', '.')}: expected f from 0 to 4 for n = 5, got 5"):
        rule.check(n=5, f=5)
    with pytest.raises(ValueError, match=r"expected weights_row as a tensor \(…, 5\), got shape \(2, 4\)"):
        rule.aggregate(rows, f=1, weights_row=torch.ones(2, 4))
    with pytest.raises(ValueError, match="expected the context 'weights_row', got none"):
        rule.aggregate(rows, f=1)


@pytest.mark.parametrize("name", [name for name in WEIGHED if name != "ios"])
def test_byzantine_weight_is_a_share(name: str) -> None:
    for weight in (0, 0.5, 1):
        gars[name].check(n=5, f=1, byzantine_weight=weight)
    for weight in (-0.1, 1.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="expected byzantine_weight from 0 to 1, got"):
            gars[name].check(n=5, f=1, byzantine_weight=weight)
    for weight in (True, "half"):
        with pytest.raises(TypeError, match="expected a number as byzantine_weight, got"):
            gars[name].check(n=5, f=1, byzantine_weight=weight)


@pytest.mark.parametrize("name", WEIGHED)
def test_weights_are_shares(name: str) -> None:
    rule, rows = gars[name], torch.eye(5, 6, dtype=torch.float64)
    for refused, got in (
        ([0.2, 0.2, 0.2, 0.2, 0.21], "weights from 0.2 and sums from 1.01 to 1.01"),
        ([0.5, 0.5, 0.2, 0.2, -0.4], "weights from -0.4 and sums from 1 to 1"),
        ([[0.2] * 5, [0.1] * 5], "weights from 0.1 and sums from 0.5 to 1"),
        ([0.25, 0.25, 0.25, 0.25, math.nan], "weights from nan and sums from nan to nan"),
    ):
        with pytest.raises(ValueError, match=f"expected weights_row of at least 0 and of sum one, got {got}"):
            rule.aggregate(rows.expand(2, 5, 6), f=1, weights_row=torch.tensor(refused))
    for dtype in (torch.float16, torch.float32, torch.float64):  # as far from one as rounding brings it
        thirds = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0, 0], dtype=dtype)
        assert rule.aggregate(rows, f=1, weights_row=thirds).isfinite().all()
    with pytest.raises(ValueError, match="of sum one"):
        rule.aggregate(rows, f=1, weights_row=torch.full((5,), 0.20001, dtype=torch.float64))
    assert torch.equal(rule.aggregate(rows, f=0, weights_row=torch.tensor([1, 0, 0, 0, 0])), rows[0])
