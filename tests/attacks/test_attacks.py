"""What every attack must satisfy, over the whole registry; exceptions are named with their reason."""

import functools
import inspect
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import attacks
from aggregators import gars
from attacks import Attack
from tests.attacks.context import context, generate
from tests.golden import label, outputs

H, F, D = 9, 3, 7
SEND_NAN = {"nan": "it sends NaN"}
ORDERED: dict[str, str] = {}
DIFFERENT_ROWS = dict.fromkeys(("gaussian", "fang"), "every worker draws its own noise")
NOT_TRANSLATED = {
    **dict.fromkeys(("empire", "empire-strict", "signflip", "ipm", "optimal-ipm", "worst-of"), "it scales the mean"),
    **dict.fromkeys(("zero", "gaussian", "full-gradient-negation"), "it does not look at honest vectors"),
    "anticge": "norms are measured from the origin",
    "mimic": "its products are with vectors from the origin",
    "rop": "without a previous aggregate it starts from the origin",
    "sparse": "which coordinates are sensitive depends on the mean",
    "fang": "its interval depends on the sign of the values",
    **SEND_NAN,
}
NOT_SCALED = {
    "bulyan": "its factor is absolute",
    "rop": "the norm of its perturbation is absolute",
    **dict.fromkeys(("gaussian", "full-gradient-negation"), "it does not look at honest vectors"),
    **SEND_NAN,
}
everything = pytest.mark.parametrize("name", sorted(attacks.attacks))
names = pytest.mark.parametrize("name", sorted(n for n, attack in attacks.attacks.items() if not attack.poisons()))
poisons = pytest.mark.parametrize("name", sorted(n for n, attack in attacks.attacks.items() if attack.poisons()))


@pytest.fixture
def honest(generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.randn(2, 3, H, D, generator=generator, device=device, dtype=dtype) + 1


def shape(name: str, honest: Tensor, f: int) -> tuple[int, ...]:
    """Return the shape of what f workers send, a set for each honest recipient where they may differ."""
    recipients = (H,) if attacks.get(name).per_recipient else ()
    return (*honest.shape[:-2], *recipients, f, D)


@names
@pytest.mark.parametrize("dtype_here", [torch.float32, torch.float64])
def test_shape_dtype_and_device(name: str, honest: Tensor, dtype_here: torch.dtype) -> None:
    for vectors in (honest, honest[0], honest[0, 0]):
        for f in (0, 1, F):
            result = generate(name, vectors.to(dtype_here), f=f)
            assert result.shape == shape(name, vectors, f)
            assert result.dtype == dtype_here
            assert result.device == vectors.device


@names
def test_batch_equals_loop(name: str, honest: Tensor) -> None:
    together = generate(name, honest, f=F)
    for i, j in itertools.product(range(2), range(3)):
        assert_close(together[i, j], generate(name, honest[i, j], f=F), equal_nan=True)


@names
def test_sequence_of_vectors(name: str, honest: Tensor) -> None:
    matrix = honest[0, 0]
    given = functools.partial(context, name, matrix, F)
    from_list = attacks.get(name).generate(list(matrix), f=F, **given())
    assert_close(from_list, attacks.get(name).generate(matrix, f=F, **given()), rtol=0, atol=0, equal_nan=True)


@names
def test_out_is_written_and_returned(name: str, honest: Tensor) -> None:
    out = torch.empty(shape(name, honest, F), dtype=honest.dtype, device=honest.device)
    assert generate(name, honest, out, f=F) is out
    assert_close(out, generate(name, honest, f=F), rtol=0, atol=0, equal_nan=True)


@names
def test_input_is_unchanged_and_rows_are_independent(name: str, honest: Tensor) -> None:
    before = honest.clone()
    result = generate(name, honest, f=F)
    first = result[..., 0, :].clone()
    result[..., 1:, :] = 7
    assert torch.equal(honest, before)
    assert_close(result[..., 0, :], first, rtol=0, atol=0, equal_nan=True)


@names
def test_same_generator_state_gives_the_same_bits(name: str, honest: Tensor) -> None:
    assert_close(generate(name, honest, f=F), generate(name, honest, f=F), rtol=0, atol=0, equal_nan=True)


@names
def test_worker_order_is_irrelevant(name: str, honest: Tensor) -> None:
    if name in ORDERED or attacks.get(name).per_recipient:
        pytest.skip(ORDERED.get(name, "workers have places in a topology"))
    order = torch.randperm(H, generator=torch.Generator().manual_seed(0))
    assert_close(generate(name, honest[..., order, :], f=F), generate(name, honest, f=F), equal_nan=True)


@names
def test_translation(name: str, honest: Tensor) -> None:
    if name in NOT_TRANSLATED:
        pytest.skip(NOT_TRANSLATED[name])
    shift = torch.linspace(-3, 3, D, dtype=honest.dtype, device=honest.device)
    assert_close(generate(name, honest + shift, f=F), generate(name, honest, f=F) + shift)


@names
@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_scaling(name: str, honest: Tensor, factor: float) -> None:
    if name in NOT_SCALED:
        pytest.skip(NOT_SCALED[name])
    assert_close(generate(name, factor * honest, f=F) / factor, generate(name, honest, f=F), rtol=1e-5, atol=1e-5)


@names
@pytest.mark.parametrize("scale", [1e20, 1e-25])
def test_scale_at_the_edges_of_float32(name: str, honest: Tensor, scale: float) -> None:
    if name in NOT_SCALED:
        pytest.skip(NOT_SCALED[name])
    single = honest.float()
    assert_close(generate(name, scale * single, f=F) / scale, generate(name, single, f=F), rtol=1e-4, atol=1e-4)


@names
def test_identical_and_nearly_identical_workers(name: str, honest: Tensor) -> None:
    """Attackers of workers who agree send numbers, too."""
    for noise in (0.0, 1e-7):
        result = generate(name, honest[..., :1, :] * (1 + noise * honest.float()), f=F)
        assert not result.isnan().any() or name in SEND_NAN


@names
def test_one_coordinate(name: str, honest: Tensor) -> None:
    result = generate(name, honest[..., :1], f=F)
    assert result.shape[-2:] == (F, 1)
    assert not result.isnan().any() or name in SEND_NAN


@names
def test_input_that_is_not_contiguous(name: str, honest: Tensor) -> None:
    transposed = honest.mT.contiguous().mT
    assert_close(generate(name, transposed, f=F), generate(name, honest, f=F), equal_nan=True)


@names
def test_moments_passed_along_change_nothing(name: str, honest: Tensor) -> None:
    moments = honest.mean(dim=-2), honest.var(dim=-2, correction=0) * H
    assert_close(generate(name, honest, f=F, moments=moments), generate(name, honest, f=F), equal_nan=True)


@names
def test_unchecked_says_by_its_strides_that_rows_are_equal(name: str, honest: Tensor) -> None:
    matrix = honest[0, 0]
    raw = attacks.get(name).unchecked(matrix, f=F, **context(name, matrix, F))
    assert_close(raw, generate(name, matrix, f=F), equal_nan=True)
    assert (raw.stride(-2) == 0) == (name not in DIFFERENT_ROWS)


@names
def test_bad_input(name: str, honest: Tensor) -> None:
    make = functools.partial(attacks.get(name).generate, **context(name, honest, 1))
    with pytest.raises(ValueError, match="f of at least 0, got -1"):
        make(honest, f=-1)
    with pytest.raises(ValueError, match=f"{name}: expected at least one"):
        make(honest[..., :0, :], f=1)
    with pytest.raises(ValueError, match=f"{name}: expected at least one"):
        make([], f=1)
    with pytest.raises(TypeError, match="floating-point"):
        make(torch.ones(H, D, dtype=torch.int64), f=1)


@names
def test_missing_context_is_named(name: str, honest: Tensor) -> None:
    for piece in attacks.get(name).needs:
        given = {key: value for key, value in context(name, honest, F).items() if key != piece}
        with pytest.raises(ValueError, match=f"{name}: expected the context '{piece}', got none"):
            attacks.get(name).generate(honest, f=F, **given)


@poisons
@pytest.mark.parametrize("floating", [False, True])
def test_poison_keeps_shapes_and_its_input(name: str, floating: bool) -> None:
    inputs = torch.randn(2, 50, 3)
    targets = torch.randint(10, (2, 50)).to(torch.float32 if floating else torch.int64)
    before = inputs.clone(), targets.clone()
    results = [
        attacks.get(name).poison(inputs, targets, num_classes=10, generator=torch.Generator().manual_seed(1))
        for _ in range(2)
    ]
    for (first, second), original in zip(zip(*results, strict=True), before, strict=True):
        assert torch.equal(first, second)
        assert first.shape == original.shape
        assert first.dtype == original.dtype
    assert torch.equal(inputs, before[0])
    assert torch.equal(targets, before[1])
    poisoned = results[0][1]
    assert not torch.equal(poisoned, targets) or not torch.equal(results[0][0], inputs)
    assert ((poisoned >= 0) & (poisoned < 10) & (poisoned == poisoned.round())).all()


@poisons
def test_poison_makes_no_vectors(name: str, honest: Tensor) -> None:
    with pytest.raises(TypeError, match=f"{name}: it poisons data"):
        attacks.get(name).generate(honest, f=1)


@names
def test_signature_has_out_after_the_gradients(name: str) -> None:
    parameters = list(inspect.signature(attacks.get(name).generate).parameters)
    assert parameters[:3] == ["honest_gradients", "out", "f"]
    assert parameters[-1] == "specialized"


@everything
def test_every_attack_documents_itself(name: str) -> None:
    assert attacks.get(name).__doc__
    assert "Source:" in inspect.getmodule(attacks.get(name)).__doc__ or name == "nan"


@pytest.mark.parametrize(("case", "output"), outputs("attacks"), ids=label)
def test_agrees_with_other_implementations(case: dict, output: dict) -> None:
    n, f = case["n"], case["f"]
    honest = torch.tensor(case["gradients"], dtype=torch.float64)[: n - f]
    result = attacks.get(output["name"]).generate(honest, f=1, f_declared=f, **output["arguments"])
    tolerance = output.get("tolerance", 1e-9)
    np.testing.assert_allclose(result[0].numpy(), output["value"], rtol=tolerance, atol=tolerance / 1000)


SEARCHES = {"little": "factor", "empire": "factor", "empire-strict": "epsilon", "bulyan": "factor", "ipm": "tau"}


@pytest.mark.parametrize(("name", "parameter"), SEARCHES.items())
@pytest.mark.parametrize("rule", ["krum", "median", "average"])
def test_search_spends_its_evaluations_and_keeps_the_strongest(name: str, parameter: str, rule: str) -> None:
    honest = torch.randn(9, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.5
    tried = []

    def aggregate(vectors: Tensor) -> Tensor:
        assert torch.equal(vectors[:9], honest)
        tried.append(gars[rule].aggregate(vectors, f=2))
        return tried[-1]

    attack = attacks.get(name)
    for evaluations in (1, 4, 16):
        tried.clear()
        byzantine = attack.generate(honest, f=2, aggregate=aggregate, **{parameter: -evaluations})
        assert len(tried) == evaluations
        reached = gars[rule].aggregate(torch.cat([honest, byzantine]), f=2)
        damage = float((reached - honest.mean(dim=0)).square().sum())
        best_tried = max(float((vector - honest.mean(dim=0)).square().sum()) for vector in tried)
        assert damage == pytest.approx(best_tried)
    assert damage > float((tried[1] - honest.mean(dim=0)).square().sum())  # than with a factor of 0


def test_search_takes_what_is_not_a_number_for_no_damage_and_goes_far() -> None:
    honest = torch.ones(3, 1, dtype=torch.float64)

    def damage_grows_until(limit: float) -> Callable[[Tensor], Tensor]:
        return lambda vectors: vectors[3].where(vectors[3].abs() <= limit, torch.nan)

    for limit, least in ((10.0, 8.0), (3_000.0, 2_000.0)):
        byzantine = attacks.get("empire-strict").generate(honest, f=1, aggregate=damage_grows_until(limit), epsilon=-40)
        assert -limit <= float(byzantine) <= -least


def test_search_ends_once_it_cannot_get_closer() -> None:
    honest = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    tried = []

    def peak_at_three(vectors: Tensor) -> Tensor:
        tried.append(vectors[3])
        return vectors[:3].mean(dim=0) + 1 / (1 + (vectors[3] - 3).abs())

    byzantine = attacks.get("empire-strict").generate(-honest, f=1, aggregate=peak_at_three, epsilon=-10_000)
    assert len(tried) < 200
    assert float(byzantine) == pytest.approx(3, abs=1e-4)


@pytest.mark.parametrize(("name", "parameter"), SEARCHES.items())
def test_search_of_a_batch_is_that_of_each(name: str, parameter: str) -> None:
    honest = torch.randn(2, 2, 9, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    generate = functools.partial(
        attacks.get(name).generate, f=2, aggregate=functools.partial(gars["krum"].aggregate, f=2), **{parameter: -8}
    )
    together = generate(honest)
    for i, j in itertools.product(range(2), range(2)):
        assert_close(together[i, j], generate(honest[i, j]))


@pytest.mark.parametrize(("name", "parameter"), SEARCHES.items())
def test_bad_factors(name: str, parameter: str) -> None:
    attack = attacks.get(name)
    for value, error in ((-1.5, ValueError), (float("nan"), ValueError), (float("inf"), ValueError), ("x", TypeError)):
        with pytest.raises(error, match=f"{name}: expected .*{parameter}"):
            attack.generate(torch.ones(5, 2), f=1, **{parameter: value})
    with pytest.raises(ValueError, match="expected the context 'aggregate'"):
        attack.generate(torch.ones(5, 2), f=1, **{parameter: -4})


def test_unknown_attack_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown attack 'x', expected one of: alie, anticge, bulyan"):
        attacks.get("x")


def test_attack_without_formula_and_attack_that_returns_its_input() -> None:
    with pytest.raises(TypeError, match="expected generate or poison, got none"):

        class Nothing(Attack, name="nothing-for-a-test"):
            pass

    class Copy(Attack):
        name = "copy"

        @classmethod
        def generate(cls, honest_gradients: Tensor, /, *, f: int, **specialized) -> Tensor:
            return honest_gradients[..., :f, :]

    honest = torch.ones(3, 2, requires_grad=True)
    result = Copy.generate(honest, f=2)
    result += 1
    assert honest.sum() == 6


@names
def test_gradients_that_require_grad(name: str, honest: Tensor) -> None:
    result = generate(name, honest.requires_grad_(), f=F)
    assert not result.requires_grad


def test_new_attack_is_registered_and_checked() -> None:
    class Mine(Attack, name="mine-for-a-test"):
        @classmethod
        def generate(cls, honest_gradients: Tensor, /, *, f: int, scale: float = 1.0, **specialized) -> Tensor:
            return attacks.repeat(scale * honest_gradients[..., 0, :], f)

    try:
        assert attacks.get("mine-for-a-test") is Mine
        assert torch.equal(Mine.generate([torch.ones(3)], f=2, scale=2.0), torch.full((2, 3), 2.0))
    finally:
        attacks.attacks._classes.pop("mine-for-a-test")
