"""What every rule must satisfy, over the whole registry; exceptions are named with their reason."""

import functools
import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import aggregators
from aggregators import Aggregator, gars
from tests.aggregators.context import aggregate, context
from tests.golden import CASES, label, outputs

N, F, D = 15, 3, 7  # enough workers for every rule: bulyan needs 4f + 3
ORDERED = {
    "mom": "groups are of consecutive rows",
    "brute": "many subsets may share the smallest diameter, of which the first by index is taken",
}
OWN_FIRST = {
    "nna": "without a pivot the first row is a worker's own",
    "ubar": "the first row is a worker's own",
    "fltrust": "the first row is what these tests have the server trust",
}
NOT_TRANSLATED = {
    "fltrust": "angles are measured from the origin",
    "ubar": "the loss is not translated",
    "foolsgold": "angles are measured from the origin",
    "signguard": "norms and signs are measured from the origin",
    "clippedclustering": "norms and angles are measured from the origin",
    "cge": "norms are measured from the origin",
}
PULLED = {
    **dict.fromkeys(
        ("geomed", "huber"), "a vector pulls by its direction, however far it is; a non-finite one has none"
    ),
    **dict.fromkeys(
        ("cc", "clippedgossip", "cs+", "clippedclustering", "signguard", "fltrust"),
        "a vector is shortened, however long it is; a non-finite one cannot be",
    ),
    **dict.fromkeys(("caf", "filterl2"), "the step that drops far vectors lowers all weights, and leaves fewer steps"),
}
NOT_SCALED = {"cc": "its radius is a length"}
names = pytest.mark.parametrize("name", sorted(gars))


@pytest.fixture
def gradients(generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.randn(2, 3, N, D, generator=generator, device=device, dtype=dtype)


@names
@pytest.mark.parametrize("dtype_here", [torch.float32, torch.float64])
def test_shape_dtype_and_device(name: str, gradients: Tensor, dtype_here: torch.dtype) -> None:
    for vectors in (gradients, gradients[0], gradients[0, 0]):
        result = aggregate(name, vectors.to(dtype_here), f=F)
        assert result.shape == vectors.shape[:-2] + vectors.shape[-1:]
        assert result.dtype == dtype_here
        assert result.device == vectors.device


@names
def test_batch_equals_loop(name: str, gradients: Tensor) -> None:
    together = aggregate(name, gradients, f=F)
    for i, j in itertools.product(range(2), range(3)):
        assert_close(together[i, j], aggregate(name, gradients[i, j], f=F))


@names
def test_sequence_of_vectors(name: str, gradients: Tensor) -> None:
    matrix = gradients[0, 0]
    assert torch.equal(aggregate(name, list(matrix), f=F), aggregate(name, matrix, f=F))


@names
def test_out_is_written_and_returned(name: str, gradients: Tensor) -> None:
    out = torch.empty(2, 3, D, dtype=gradients.dtype, device=gradients.device)
    assert aggregate(name, gradients, out, f=F) is out
    assert torch.equal(out, aggregate(name, gradients, f=F))


@names
@pytest.mark.parametrize("n", [1, 3, N])
def test_input_is_unchanged_and_not_aliased(name: str, gradients: Tensor, n: int) -> None:
    vectors = gradients[..., :n, :].clone()
    f = F if n == N else 0
    if n == 1 and not accepts(gars[name], n, f):
        pytest.skip("needs more than one worker")
    before = vectors.clone()
    result = aggregate(name, vectors, f=f)
    result += 1
    assert torch.equal(vectors, before)


@names
def test_worker_order_is_irrelevant(name: str, gradients: Tensor) -> None:
    if name in ORDERED:
        pytest.skip(ORDERED[name])
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    if name in OWN_FIRST or "weights_row" in gars[name].needs:
        order = torch.cat([order[order == 0], order[order != 0]])
    rule = functools.partial(aggregate, name)
    assert_close(rule(gradients[..., order, :], f=F), rule(gradients, f=F))


@names
def test_translation(name: str, gradients: Tensor) -> None:
    if name in NOT_TRANSLATED:
        pytest.skip(NOT_TRANSLATED[name])
    shift = torch.linspace(-3, 3, D, dtype=gradients.dtype, device=gradients.device)
    rule = functools.partial(aggregate, name)
    assert_close(rule(gradients + shift, f=F), rule(gradients, f=F) + shift)


@names
@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_scaling(name: str, gradients: Tensor, factor: float) -> None:
    if name in NOT_SCALED:
        pytest.skip(NOT_SCALED[name])
    rule = functools.partial(aggregate, name)
    assert_close(rule(factor * gradients, f=F) / factor, rule(gradients, f=F))


@names
def test_no_byzantine_worker(name: str, gradients: Tensor) -> None:
    assert aggregate(name, gradients, f=0).isfinite().all()


@names
def test_identical_rows_give_that_row(name: str, gradients: Tensor) -> None:
    row = gradients[..., :1, :]
    result = aggregate(name, row.expand(2, 3, N, D), f=F)
    assert_close(result, row.squeeze(-2))


@names
@pytest.mark.parametrize("dtype_here", [torch.float32, torch.float64])
def test_nearly_identical_rows(name: str, gradients: Tensor, dtype_here: torch.dtype) -> None:
    gradients = gradients.to(dtype_here)
    row = (1 if name in NOT_SCALED else 1e3) * gradients[..., :1, :]
    result = aggregate(name, row * (1 + 1e-7 * gradients), f=F)
    assert_close(result, row.squeeze(-2), rtol=1e-5, atol=0)


@names
def test_one_coordinate(name: str, gradients: Tensor) -> None:
    vectors = gradients[..., :1]
    result = aggregate(name, vectors, f=F)
    assert ((vectors.amin(dim=-2) <= result) & (result <= vectors.amax(dim=-2))).all()


@names
def test_input_that_is_not_contiguous(name: str, gradients: Tensor) -> None:
    transposed = gradients.mT.contiguous().mT
    assert not transposed.is_contiguous()
    assert_close(aggregate(name, transposed, f=F), aggregate(name, gradients, f=F))


@names
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["one coordinate", "everywhere", "different ones"])
def test_non_finite_rows_are_infinitely_far(name: str, gradients: Tensor, value: float, where: str) -> None:
    rule = gars[name]
    if rule.keeps_non_finite:
        pytest.skip(rule.keeps_non_finite)
    attacked, far = gradients.clone(), gradients.clone()
    rows = [2, 9, 14]
    for row in rows[:F]:
        coordinates = {"one coordinate": [4], "everywhere": list(range(D)), "different ones": [row % D]}[where]
        for coordinate in coordinates:
            attacked[..., row, coordinate] = value
    far[..., rows[:F], :] = torch.inf
    result = aggregate(name, attacked, f=F)
    assert result.isfinite().all()
    assert_close(result, aggregate(name, far, f=F))


@names
@pytest.mark.parametrize("dtype_here", [torch.float32, torch.float64])
def test_huge_rows_are_infinitely_far(name: str, gradients: Tensor, dtype_here: torch.dtype) -> None:
    if name in PULLED or gars[name].keeps_non_finite:
        pytest.skip(PULLED.get(name, gars[name].keeps_non_finite))
    attacked, far = gradients.to(dtype_here), gradients.to(dtype_here, copy=True)
    attacked[..., -F:, :], far[..., -F:, :] = 1e30, torch.inf
    assert_close(aggregate(name, attacked, f=F), aggregate(name, far, f=F), rtol=1e-4, atol=1e-5)  # some iterate


@names
@pytest.mark.parametrize("value", [1e30, -1e30])
@pytest.mark.parametrize("dtype_here", [torch.float32, torch.float64])
def test_huge_rows_are_bounded_by_the_others(
    name: str, gradients: Tensor, value: float, dtype_here: torch.dtype
) -> None:
    if gars[name].keeps_non_finite:
        pytest.skip("the mean of huge vectors is huge")
    slack = 10 * F / N if name == "cc" else 0.0  # what so many vectors shortened to norm 10 add to the mean
    attacked = gradients.to(dtype_here).clone()
    attacked[..., -F:, :] = value
    honest = attacked[..., :-F, :]
    result = aggregate(name, attacked, f=F)
    assert (honest.amin(dim=-2) - slack <= result).all()
    assert (result <= honest.amax(dim=-2) + slack).all()


@names
@pytest.mark.parametrize("scale", [1e20, 1e-25])
def test_scale_at_the_edges_of_float32(name: str, gradients: Tensor, scale: float) -> None:
    if name in NOT_SCALED:
        pytest.skip(NOT_SCALED[name])
    rule, vectors = gars[name], gradients.float()
    expected = aggregate(name, vectors, f=F)
    assert_close(aggregate(name, vectors * scale, f=F) / scale, expected, rtol=1e-4, atol=1e-4)
    if not rule.keeps_non_finite:
        attacked = vectors * scale
        attacked[..., 3, 2], attacked[..., 4, :], attacked[..., 5, 1] = torch.nan, torch.inf, -torch.inf
        assert aggregate(name, attacked, f=F).isfinite().all()


@names
@pytest.mark.parametrize("f", [1.5, True, "2", None])
def test_number_of_byzantine_workers_is_whole(name: str, gradients: Tensor, f: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name}: expected a whole number as f, got")):
        aggregate(name, gradients, f=f)


@names
def test_bounded_effect_of_far_rows(name: str, gradients: Tensor) -> None:
    if gars[name].keeps_non_finite:
        pytest.skip("one vector moves the mean anywhere")
    attacked = gradients.clone()
    attacked[..., -F:, :] = 1e6
    honest = attacked[..., :-F, :]
    result = aggregate(name, attacked, f=F)
    assert ((honest.amin(dim=-2) <= result) & (result <= honest.amax(dim=-2))).all()


@names
def test_known_copies_are_read_once(name: str, gradients: Tensor) -> None:
    rule = gars[name]
    gradients[..., -F:, :] = gradients[..., -F : N - F + 1, :]
    expected = aggregate(name, gradients, f=F)
    assert_close(aggregate(name, gradients, f=F, copies=F), expected)
    if rule.takes_copies:
        gradients[..., 1 - F :, :] = torch.nan
        assert_close(aggregate(name, gradients, f=F, copies=F), expected)


@names
def test_repeated_calls_give_the_same_bits(name: str, gradients: Tensor) -> None:
    assert torch.equal(aggregate(name, gradients, f=F), aggregate(name, gradients, f=F))


def accepts(rule: type[Aggregator], n: int, f: int) -> bool:
    try:
        rule.check(n=n, f=f)
    except ValueError:
        return False
    return True


REQUIRED = {  # n must be at least a · f + b, where that is not 2f + 1
    "average": (0, 1),
    "krum": (2, 3),
    "krum-iclr21": (2, 3),
    "bulyan": (4, 3),
    "bulyan-iclr21": (4, 3),
    **dict.fromkeys(("cge", "medoid", "fltrust", "foolsgold"), (1, 1)),
    **dict.fromkeys(("clippedgossip", "cs+", "gts", "ios", "rtc", "ubar"), (1, 1)),
}


@names
@pytest.mark.parametrize("f", [0, 1, 2, 5])
def test_required_numbers_of_workers(name: str, f: int) -> None:
    a, b = REQUIRED.get(name, (2, 1))
    least = max(a * f + b, 1)
    gradients = torch.eye(least, least + 1)
    assert aggregate(name, gradients, f=f).isfinite().all()
    with pytest.raises(ValueError, match=re.escape(f"{name}: expected")):
        gars[name].aggregate(gradients[: least - 1], f=f, **context(name, gradients[: least - 1]))
    with pytest.raises(ValueError, match=re.escape(f"{name}: expected")):
        gars[name].check(n=least, f=-1)


@names
def test_empty_input(name: str) -> None:
    given = context(name, torch.ones(N, D))
    for vectors in (torch.empty(0, D), torch.empty(N, 0), []):
        with pytest.raises(ValueError, match=re.escape(f"{name}: expected at least one")):
            gars[name].aggregate(vectors, f=0, **given)


@names
def test_wrong_types(name: str) -> None:
    given = context(name, torch.ones(N, D))
    with pytest.raises(TypeError, match="floating-point"):
        gars[name].aggregate(torch.ones(N, D, dtype=torch.int64), f=F, **given)
    with pytest.raises(TypeError, match="sequence of tensors"):
        gars[name].aggregate([[1.0]], f=F, **given)
    with pytest.raises(ValueError, match="of one size"):
        gars[name].aggregate([torch.ones(3), torch.ones(4)], f=F, **given)


@names
def test_influence(name: str, gradients: Tensor) -> None:
    rule, matrix = gars[name], gradients[0, 0]
    given = functools.partial(context, name, matrix)
    share = rule.influence(matrix[:-F], matrix[-F:], f=F, **given())
    if not rule.is_weighted_mean():
        assert np.isnan(share)
        return
    result, weights = rule.aggregate_and_weights(matrix, f=F, **given())
    assert (weights >= 0).all()
    assert_close(share, float(weights[-F:].sum()))
    assert rule.influence(matrix, matrix[:0], f=F, **given()) == 0
    if rule.form == "combine":
        assert float(weights.sum()) <= 1 + 1e-9
    else:
        assert_close(float(weights.sum()), 1.0)
        assert_close(weights.to(matrix.dtype) @ matrix, result)
    assert_close(rule.unchecked(matrix, f=F, **given()), result)


@names
def test_every_rule_documents_its_source(name: str) -> None:
    import inspect

    assert gars[name].__doc__
    module = inspect.getmodule(gars[name])
    assert "Source:" in module.__doc__ or name == "average"


@pytest.mark.parametrize(("case", "output"), outputs("rules"), ids=label)
def test_agrees_with_other_implementations(case: dict, output: dict) -> None:
    gradients = torch.tensor(case["gradients"], dtype=torch.float64)
    result = gars[output["name"]].aggregate(gradients, f=case["f"], **output["arguments"])
    tolerance = output.get("tolerance", 1e-9)
    np.testing.assert_allclose(result.numpy(), output["value"], rtol=tolerance, atol=tolerance / 1000)


@pytest.mark.parametrize("case", CASES, ids=label)
def test_upper_bound_and_influence_agree_with_other_implementations(case: dict) -> None:
    n, f, gradients = case["n"], case["f"], torch.tensor(case["gradients"], dtype=torch.float64)
    for name, bound in case["upper_bound"].items():
        assert gars[name].upper_bound(n=n, f=f, d=gradients.shape[1]) == pytest.approx(bound, rel=1e-9)
    for name, share in case["influence"].items():
        assert gars[name].influence(gradients[:-f], gradients[-f:], f=f) == pytest.approx(share, rel=1e-9)


def test_unknown_rule_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown aggregation rule 'krumm', expected one of: aksel, autogm, average"):
        aggregators.get("krumm")


def test_missing_context_is_named() -> None:
    class Needy(Aggregator):
        name = "needy"
        needs = ("trusted",)

        @classmethod
        def aggregate(cls, gradients: Tensor, /, *, f: int, trusted: Tensor, **specialized) -> Tensor:
            return trusted.clone()

    with pytest.raises(ValueError, match="needy: expected the context 'trusted', got none"):
        Needy.aggregate(torch.ones(3, 2), f=0)
    assert torch.equal(Needy.aggregate(torch.ones(3, 2), f=0, trusted=torch.zeros(2)), torch.zeros(2))


def test_name_used_twice_is_an_error() -> None:
    with pytest.raises(ImportError, match="'krum' is defined by"):

        class Again(gars["median"], name="krum"):
            pass


def test_what_a_rule_writes_counts_and_not_what_it_inherits() -> None:
    rows = torch.arange(15.0).reshape(5, 3)

    class First(gars["krum"]):
        @classmethod
        def aggregate(cls, gradients: Tensor, /, *, f: int, **specialized: Any) -> Tensor:
            return gradients[..., 0, :]

    class Last(gars["median"]):
        @classmethod
        def weights(cls, gradients: Tensor, /, *, f: int, **specialized: Any) -> Tensor:
            return torch.eye(gradients.shape[-2])[-1].expand(gradients.shape[:-1])

    assert not First.is_weighted_mean()
    result = First.aggregate(rows, f=1)
    result += 1  # no view of the input
    assert result.tolist() == [1.0, 2.0, 3.0]
    assert rows[0].tolist() == [0.0, 1.0, 2.0]
    assert Last.aggregate(rows, f=1).tolist() == Last.unchecked(rows, f=1).tolist() == [12.0, 13.0, 14.0]
    assert Last.influence(rows[:4], rows[4:], f=1) == 1
    with pytest.raises(
        TypeError, match=r"expected one of aggregate, .*weights_by_own_distance, weights_by_number, got none"
    ):

        class Nothing(Aggregator, name="nothing"):
            pass

    with pytest.raises(TypeError, match=r"expected one of .*, got aggregate, weights"):

        class Both(First):
            aggregate, weights = First.unchecked, Last.weights


@names
def test_upper_bound_and_influence_without_byzantine_workers(name: str, gradients: Tensor) -> None:
    bound = gars[name].upper_bound(n=N, f=0, d=D)
    assert bound is None or bound > 0
    share = gars[name].influence(gradients[0, 0], [], f=0, **context(name, gradients[0, 0]))
    assert share == 0 if gars[name].is_weighted_mean() else np.isnan(share)


@names
@pytest.mark.parametrize("attack", [-3.0, 0.0, 1e12, torch.inf])
def test_order_of_workers_beside_equal_attackers(name: str, gradients: Tensor, attack: float) -> None:
    """Attackers that all send the same are the normal case: rounding must not tell them apart."""
    if name in ORDERED or gars[name].keeps_non_finite:
        pytest.skip("see the exceptions above")
    attacked = gradients.clone()
    attacked[..., -F:, :] = attack * attacked[..., :-F, :].mean(dim=-2, keepdim=True).abs()
    order = torch.cat([torch.tensor([0]), 1 + torch.randperm(N - 1, generator=torch.Generator().manual_seed(0))])
    results = [aggregate(name, rows, f=F) for rows in (attacked, attacked[..., order, :])]
    assert_close(*results, rtol=1e-5, atol=1e-5)


@names
def test_out_of_another_shape_or_dtype_is_refused(name: str, gradients: Tensor) -> None:
    for out in (gradients.new_empty(4, D), gradients.new_empty(2, 3, D).half(), gradients.new_empty(2, 3, D + 1)):
        with pytest.raises(ValueError, match=re.escape(f"{name}: expected out of shape (2, 3, {D})")):
            aggregate(name, gradients, out, f=F)


@names
def test_gradients_that_require_grad(name: str, gradients: Tensor) -> None:
    assert not aggregate(name, gradients.requires_grad_(), f=F).requires_grad


@names
@pytest.mark.parametrize("dtype_here", [torch.float16, torch.bfloat16])
def test_too_few_digits_are_refused(name: str, gradients: Tensor, dtype_here: torch.dtype) -> None:
    with pytest.raises(TypeError, match="expected values in float32 or float64, got torch"):
        aggregate(name, gradients.to(dtype_here), f=F)


def test_context_that_does_not_go_with_the_vectors() -> None:
    rows = torch.randn(5, 7)
    for name, given, words in (
        ("cc", {"pivot": torch.zeros(1)}, "pivot as a tensor (…, 7), got shape (1,)"),
        ("fltrust", {"trusted": torch.zeros(6)}, "trusted as a tensor (…, 7), got shape (6,)"),
        ("gts", {"weights_row": [0.2] * 5}, "weights_row as a tensor (…, 5), got [0.2"),
        ("krum", {"copies": 6}, "copies from 1 to n = 5, got 6"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"{name}: expected {words}")):
            gars[name].aggregate(rows, f=1, **given)
