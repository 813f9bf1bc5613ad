import itertools
import math
import re
from collections import OrderedDict
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from peers.secure_aggregation import profiles as module
from peers.secure_aggregation.layout import FLOATS, INTEGERS, Layout
from peers.secure_aggregation.profiles import (
    AggregationProfile,
    AverageAdditiveSharingModelProfile,
    AverageTorchAdditiveSharingModelProfile,
    Prepared,
    Share,
    profiles,
)

LIMIT = 2**63
PROFILES = {"numpy": AverageAdditiveSharingModelProfile, "torch": AverageTorchAdditiveSharingModelProfile}
both = pytest.mark.parametrize("kind", PROFILES)


def array(kind: str, values: Any, dtype: str = "float64") -> Any:
    return np.array(values, dtype) if kind == "numpy" else torch.tensor(values, dtype=getattr(torch, dtype))


def signed(prepared: Prepared) -> list[int]:
    return prepared.values.view(np.int64).tolist()


def fixed_point(profile: AggregationProfile, kind: str, value: float, dtype: str = "float64") -> int:
    return signed(profile.prepare({"a": array(kind, [value], dtype)}))[0]


def average(profile: AggregationProfile, models: list[Any], weights: list[int], k: int) -> Any:
    """Go all the way: every model in k shares, which actors sum, whose sums are a model again."""
    shares = [
        profile.create_shares_on_prepared_data(profile.prepare(model, weight), k)
        for model, weight in zip(models, weights, strict=True)
    ]
    total = profile.aggregate([profile.aggregate(column) for column in zip(*shares, strict=True)])
    return profile.unpack(profile.pack(profile.unprepare(total), total.layout), total.layout, models[0])


# Exactness


@st.composite
def cases(draw: Any) -> tuple[dict[str, Any], int, np.random.Generator]:
    """Draw a profile's arguments whose bound is nearly reached or not at all, a number of peers, and a generator."""
    n, max_weight = draw(st.integers(1, 5)), draw(st.sampled_from([1, 3, 1000]))
    digits = draw(st.integers(0, 18))
    clip = float(Fraction(LIMIT, n * max_weight * 10**digits)) * draw(st.sampled_from([1e-9, 0.01, 0.5, 0.999]))
    return (
        {"digits_to_keep": digits, "clip": clip, "max_weight": max_weight},
        n,
        np.random.default_rng(draw(st.integers(0, 2**32))),
    )


def floats(rng: np.random.Generator, size: int, clip: float, scale: int, dtype: str) -> torch.Tensor:
    """Return values of all magnitudes up to clip, ties between two fixed-point numbers among them, and ±clip."""
    largest = min(clip, torch.finfo(getattr(torch, dtype)).max)
    some = [
        rng.uniform(-largest, largest, size),
        rng.uniform(-1, 1, size) * largest ** rng.uniform(-1, 1, size),
        (rng.integers(-50, 50, size) + 0.5) / scale,
        rng.choice([-largest, 0.0, largest], size),
    ]
    values = torch.from_numpy(rng.choice(some)).to(getattr(torch, dtype))
    return values.where(values.double().abs() <= largest, 0)


def integers(rng: np.random.Generator, size: int, most: int, dtype: str) -> torch.Tensor:
    info = torch.iinfo(getattr(torch, dtype))
    low, high = max(-most, info.min), min(most, info.max)
    some = [rng.integers(low, high, size, endpoint=True), rng.choice([low, high], size), rng.integers(0, 2, size)]
    return torch.from_numpy(rng.choice(some).clip(low, high)).to(getattr(torch, dtype))


@both
@settings(max_examples=150)
@given(case=cases(), k=st.integers(1, 4))
def test_averages_are_those_of_exact_arithmetic(kind: str, case: Any, k: int) -> None:
    arguments, n, rng = case
    profile = PROFILES[kind](**arguments)
    scale, clip = 10 ** arguments["digits_to_keep"], arguments["clip"]
    weights = [int(weight) for weight in rng.integers(1, arguments["max_weight"], n, endpoint=True)]
    dtypes = [d for d in (*FLOATS, *INTEGERS) if kind == "torch" or d != "bfloat16"]
    shapes = {dtype: tuple(rng.integers(0, 3, rng.integers(0, 4)).tolist()) for dtype in dtypes}
    shapes["float64"] = (3, 1, 2)
    tensors = [
        {
            dtype: (
                floats(rng, math.prod(shape), clip, scale, dtype)
                if dtype in FLOATS
                else integers(rng, math.prod(shape), math.floor(Fraction(clip) * scale), dtype)
            ).reshape(shape)
            for dtype, shape in shapes.items()
        }
        for _ in range(n)
    ]
    models = [{d: t.numpy() for d, t in model.items()} if kind == "numpy" else model for model in tensors]
    got = average(profile, models, weights, k)
    assert list(got) == dtypes

    prepared = [profile.prepare(model) for model in models]
    places = {entry.name: place for entry, place in prepared[0].layout.slices()}
    for dtype in dtypes:
        assert tuple(got[dtype].shape) == shapes[dtype]
        assert str(got[dtype].dtype).removeprefix("torch.") == dtype
        columns = np.array([model[dtype].double().numpy().reshape(-1) for model in tensors])
        if dtype in INTEGERS:
            columns = np.array([model[dtype].long().numpy().reshape(-1) for model in tensors])
        result = torch.as_tensor(got[dtype]).reshape(-1)
        for i, column in enumerate(columns.T.tolist()):
            total = sum(w * Fraction(x) for w, x in zip(weights, column, strict=True))
            mean = total / sum(weights)
            if dtype in INTEGERS:
                assert int(result[i]) == math.floor(mean + Fraction(1, 2))
                continue
            shared = [signed(each)[places[dtype]][i] for each in prepared]
            for x, number in zip(column, shared, strict=True):
                assert abs(number - Fraction(x) * scale) <= Fraction(1, 2) + Fraction(scale, 2**54)
                assert abs(number) <= math.ceil(Fraction(clip) * scale)
            allowed = Fraction(1, 2 * scale) + Fraction(1, 2**51)
            assert abs(Fraction(result[i].item()) - mean) <= allowed + rounding(result[i])


def rounding(value: torch.Tensor) -> Fraction:
    """Return half of what lies between a value and the next larger one."""
    beyond = value.abs().double() * (1 + torch.finfo(value.dtype).eps)
    step = max(beyond - value.abs().double(), torch.tensor(torch.finfo(value.dtype).smallest_normal).double())
    return Fraction(step.item()) / 2 * Fraction(1025, 1024)  # torch rounds to 16 bits by way of 32


@both
@pytest.mark.parametrize("digits", [0, 1, 3, 6, 9, 12])
@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_products_of_short_floats_are_exact_and_ties_go_to_the_even(kind: str, digits: int, dtype: str) -> None:
    if kind == "numpy" and dtype == "bfloat16":
        return
    profile = PROFILES[kind](digits, clip=1000.0)
    values = [k / 2 ** (digits + 1) for k in range(-41, 42)] + [0.1, -0.7, 999.9, 1e-5]
    tensor = torch.tensor(values, dtype=getattr(torch, dtype))
    got = signed(profile.prepare({"a": tensor.numpy() if kind == "numpy" else tensor}))[:-1]
    assert got == [round(Fraction(x) * 10**digits) for x in tensor.double().tolist()]  # Python's round is so too


@both
def test_ties_by_value(kind: str) -> None:
    ties = [
        (0.5, 0, 0),
        (1.5, 0, 2),
        (2.5, 0, 2),
        (-0.5, 0, 0),
        (-1.5, 0, -2),
        (0.25, 1, 2),
        (0.75, 1, 8),
        (0.375, 2, 38),
    ]
    for value, digits, expected in ties:
        assert fixed_point(PROFILES[kind](digits), kind, value) == expected
    assert fixed_point(PROFILES[kind](0), kind, math.nextafter(0.5, 1)) == 1  # nearest, not the integer below
    assert fixed_point(PROFILES[kind](6), kind, -1.9999996) == -2_000_000


@both
@pytest.mark.parametrize(
    ("values", "weights", "mean"),
    [
        ([1, 2], [1, 1], 2),
        ([-1, -2], [1, 1], -1),
        ([-1, 0], [1, 1], 0),
        ([0, 1], [1, 1], 1),
        ([-3, -4], [1, 1], -3),
        ([1, 1, 2], [1, 1, 1], 1),
        ([1, 2, 2], [1, 1, 1], 2),
        ([-1, -1, -2], [1, 1, 1], -1),
        ([-1, -2, -2], [1, 1, 1], -2),
        ([10, 0], [1, 3], 3),
        ([-10, 0], [1, 3], -2),
        ([7, 7], [2, 3], 7),
    ],
)
def test_means_of_integers_go_to_the_nearest_and_halves_up(
    kind: str, values: list[int], weights: list[int], mean: int
) -> None:
    profile = PROFILES[kind](3, max_weight=3)
    for dtype in ("int8", "int64"):
        models = [{"n": array(kind, value, dtype)} for value in values]
        assert int(average(profile, models, weights, 2)["n"]) == mean


def test_digits_of_large_values_survive_where_a_plain_product_would_lose_them() -> None:
    profile = AverageAdditiveSharingModelProfile(12, clip=1e6)
    values = [999_900.1 + i / 7 for i in range(200)]
    errors = [abs(fixed_point(profile, "numpy", x) - Fraction(x) * 10**12) for x in values]
    assert max(errors) <= Fraction(1, 2) + Fraction(10**12, 2**54)
    assert max(abs(round(x * 1e12) - Fraction(x) * 10**12) for x in values) > 30  # units of 10^-12


def test_more_than_fifteen_digits_bring_nothing() -> None:
    """What the module's text says of float64: with 18 digits the error is up to 2^-54, not 10^-18 / 2."""
    profile = AverageAdditiveSharingModelProfile(18, clip=4)
    values = [0.3 + i / 1000 for i in range(200)]
    errors = [abs(fixed_point(profile, "numpy", x) - Fraction(x) * 10**18) for x in values]
    assert Fraction(10) < max(errors) <= Fraction(1, 2) + Fraction(10**18, 2**54)


# Overflow


FITTING = [  # n, max_weight, clip, digits: the product is just below 2^63
    (1, 1, LIMIT - 1, 0),
    (7, 7, (LIMIT - 1) // 49, 0),
    (127, 73, (LIMIT - 1) // 127 // 73, 0),
    (2, 1, 2**62 - 1, 0),
    (8, 1, 2**60 - 1, 0),
    (1, 1, (LIMIT - 1) // 10**18, 18),
    (1, 1, math.nextafter(2.0**63, 0), 0),
    (4, 2, math.nextafter(2.0**60, 0), 0),
    (1, 1, 9.223372036854775, 18),
    (3, 1000, 3074457345.618, 6),
    (1, 1, 92233.72, 14),
]
TOO_MUCH = [
    (2, 1, 2**62, 0),
    (8, 1, 2**60, 0),
    (8, 1, 2.0**60, 0),
    (7, 7, (LIMIT - 1) // 49 + 1, 0),
    (2, 1, 9.223372036854775, 18),
    (3, 1000, 3074457345.619, 6),
    (1, 2**62, 1.5, 0),  # a value may be 1.5, and is then counted as 2
    (2**31, 2**31, 2, 0),
]


@both
@pytest.mark.parametrize(("n", "max_weight", "clip", "digits"), FITTING)
def test_sums_that_reach_the_bound_are_right(kind: str, n: int, max_weight: int, clip: float, digits: int) -> None:
    assert n * max_weight * math.ceil(Fraction(clip) * 10**digits) < LIMIT
    profile = PROFILES[kind](digits, clip, max_weight)
    profile.check(n)
    largest = float(clip) if float(clip) <= clip else math.nextafter(float(clip), 0)
    most = math.floor(Fraction(clip) * 10**digits)
    for sign in (1, -1):
        model = {"x": array(kind, [sign * largest]), "i": array(kind, [sign * most], "int64")}
        prepared = profile.prepare(model, max_weight)
        number = max_weight * round(Fraction(sign * largest) * 10**digits)
        slack = max_weight * 10**digits // 2**54
        assert abs(signed(prepared)[1] - number) <= slack
        assert signed(prepared)[0] == sign * max_weight * most
        total = profile.aggregate([prepared] * n)
        assert signed(total)[1] == n * signed(prepared)[1]  # nothing has wrapped around
        assert signed(total) == [n * word for word in signed(prepared)]
        got = average(profile, [model] * n, [max_weight] * n, 3)
        assert int(got["i"][0]) == sign * most
        allowed = Fraction(1, 2 * 10**digits) + Fraction(1, 2**51)
        assert abs(Fraction(float(got["x"][0])) - Fraction(sign * largest)) <= allowed + Fraction(math.ulp(largest)) / 2
    over = math.nextafter(largest, math.inf)
    with pytest.raises(ValueError, match=r"entry 'x': expected finite values of magnitude at most clip = "):
        profile.prepare({"x": array(kind, [0.0, -over])})
    if most < LIMIT - 1:
        with pytest.raises(ValueError, match=rf"at most clip · 10\^digits = {most}, got {most + 1} at \(\)"):
            profile.prepare({"i": array(kind, most + 1, "int64")})
    with pytest.raises(ValueError, match=rf"= {most}, got {-most - 1} at \(1,\)"):
        profile.prepare({"i": array(kind, [0, -most - 1], "int64")})


@both
@pytest.mark.parametrize(("n", "max_weight", "clip", "digits"), TOO_MUCH)
def test_products_of_two_to_the_63_are_refused(kind: str, n: int, max_weight: int, clip: float, digits: int) -> None:
    assert n * max_weight * math.ceil(Fraction(clip) * 10**digits) >= LIMIT
    with pytest.raises(
        ValueError, match=r"expected n · max_weight · clip · 10\^digits below 2\^63 \(9.223e\+18\), got"
    ):
        PROFILES[kind](digits, clip, max_weight).check(n)


def test_the_bound_is_named_with_its_factors() -> None:
    text = (
        "expected n · max_weight · clip · 10^digits below 2^63 (9.223e+18), got 5 · 2 · 1e+06 · 10^12 = 1e+19; lower "
        "digits_to_keep, clip or max_weight"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        AverageAdditiveSharingModelProfile(12, clip=1e6, max_weight=2).check(5)
    AverageAdditiveSharingModelProfile(12, clip=1e6, max_weight=2).check(4)


def test_no_rounding_of_a_product_goes_beyond_the_bound() -> None:
    """With 18 digits float64 products are off by up to 55: what is shared stays within clip all the same."""
    rng = np.random.default_rng(1)
    reached = 0
    for clip in rng.uniform(0.1, 9.2, 500).tolist():
        profile = AverageAdditiveSharingModelProfile(18, clip)
        bound = math.ceil(Fraction(clip) * 10**18)
        assert fixed_point(profile, "numpy", clip) <= bound
        assert fixed_point(profile, "numpy", -clip) >= -bound
        whole = round(clip)
        reached += whole * 10**18 + round((clip - whole) * 1e18) > bound
    assert reached > 50


@both
@pytest.mark.parametrize("clip", [0.75, 0.001, 1e-12])
def test_clips_below_one(kind: str, clip: float) -> None:
    profile = PROFILES[kind](15, clip, max_weight=9000)
    models = [{"x": array(kind, [clip, -clip, clip / 3])}, {"x": array(kind, [clip, -clip, -clip])}]
    got = average(profile, models, [9000, 1], 2)["x"].tolist()
    exact = [clip, -clip, (9000 * clip / 3 - clip) / 9001]
    assert got == pytest.approx(exact, rel=0, abs=1e-15)
    with pytest.raises(ValueError, match="magnitude at most clip = "):
        profile.prepare({"x": array(kind, 2 * clip)})
    small = PROFILES[kind](0, 0.75)
    assert int(average(small, [{"n": array(kind, 0, "int64")}] * 2, [1, 1], 2)["n"]) == 0
    with pytest.raises(
        ValueError, match=r"expected integers of magnitude at most clip · 10\^digits = 0, got 1 at \(\)"
    ):
        small.prepare({"n": array(kind, 1, "int64")})


def test_means_where_the_divisor_takes_more_than_63_bits() -> None:
    profile = AverageAdditiveSharingModelProfile(18, clip=1e-6, max_weight=10**6)
    models = [{"x": np.array([1e-6, -1e-6])}, {"x": np.array([1e-6, 0.5e-6])}]
    got = average(profile, models, [10**6, 10**6], 2)["x"].tolist()
    assert got == pytest.approx([1e-6, -0.25e-6], rel=0, abs=2e-18)


def test_small_negative_means_keep_their_digits() -> None:
    profile = AverageAdditiveSharingModelProfile(15, clip=1)
    got = average(profile, [{"x": np.array([-3e-15, 3e-15])}] * 2, [1, 1], 2)["x"].tolist()
    assert got == pytest.approx([-3e-15, 3e-15], rel=1e-12)


# What is refused


@both
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"digits_to_keep": -1}, "digits_to_keep: expected a whole number from 0 to 18, got -1"),
        ({"digits_to_keep": 19}, "digits_to_keep: expected a whole number from 0 to 18, got 19"),
        ({"digits_to_keep": 6.0}, "digits_to_keep: expected a whole number from 0 to 18, got 6.0"),
        ({"digits_to_keep": True}, "digits_to_keep: expected a whole number from 0 to 18, got True"),
        ({"digits_to_keep": 6, "clip": 0}, "clip: expected a number above 0 and below 2^63, got 0"),
        ({"digits_to_keep": 6, "clip": -1.0}, "clip: expected a number above 0 and below 2^63, got -1.0"),
        ({"digits_to_keep": 6, "clip": math.inf}, "clip: expected a number above 0 and below 2^63, got inf"),
        ({"digits_to_keep": 6, "clip": math.nan}, "clip: expected a number above 0 and below 2^63, got nan"),
        ({"digits_to_keep": 6, "clip": True}, "clip: expected a number above 0 and below 2^63, got True"),
        ({"digits_to_keep": 6, "clip": "1"}, "clip: expected a number above 0 and below 2^63, got '1'"),
        ({"digits_to_keep": 0, "clip": LIMIT}, f"clip: expected a number above 0 and below 2^63, got {LIMIT}"),
        ({"digits_to_keep": 0, "clip": 10**400}, f"clip: expected a number above 0 and below 2^63, got {10**400}"),
        ({"digits_to_keep": 6, "max_weight": 0}, "max_weight: expected a whole number from 1 to below 2^63, got 0"),
        ({"digits_to_keep": 6, "max_weight": 1.0}, "max_weight: expected a whole number from 1 to below 2^63, got 1.0"),
        (
            {"digits_to_keep": 6, "max_weight": 10**400},
            f"max_weight: expected a whole number from 1 to below 2^63, got {10**400}",
        ),
    ],
    ids=lambda x: x[:30] if isinstance(x, str) else "",
)
def test_arguments_are_checked(kind: str, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        PROFILES[kind](**arguments)


@both
@pytest.mark.parametrize(
    ("value", "got"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (1000001.0, "1000001.0")]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_that_are_not_finite_or_too_large_are_named(kind: str, value: float, got: str, dtype: str) -> None:
    values = [[0.0, 1e6, -1e6], [0.5, value, value]]
    text = f"entry 'a.weight': expected finite values of magnitude at most clip = 1e+06, got {got} at (1, 1)"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        PROFILES[kind](6).prepare({"b": array(kind, 1.0), "a.weight": array(kind, values, dtype)})


@both
@pytest.mark.parametrize(
    ("values", "dtype", "text"),
    [
        ([True], "bool", "expected a dtype of float16, bfloat16, .* got bool"),
        ([1j], "complex64", "got complex64"),
        ([1j], "complex128", "got complex128"),
        ([1], "uint16", "got uint16"),
        ([1], "uint64", "got uint64"),
    ],
)
def test_other_dtypes_are_named(kind: str, values: list[Any], dtype: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"entry 'x': .*{text}$"):
        PROFILES[kind](6).prepare({"x": array(kind, values, dtype)})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1.0], "entry 'x': expected a NumPy array of numbers, got list"),
        (1.0, "entry 'x': expected a NumPy array of numbers, got float"),
        (torch.ones(2), "entry 'x': expected a NumPy array of numbers, got torch.float32"),
        (np.array(["a"]), "entry 'x': expected a dtype of float16, .* got str32"),
        (np.array([None]), "entry 'x': expected a dtype of float16, .* got object"),
        (np.array([1], "datetime64[s]"), "entry 'x': expected a dtype of float16, .* got datetime64"),
        (np.array([1], "longdouble"), "entry 'x': expected a dtype of float16, .* got float128"),
        (np.zeros(2, [("bfloat16", "f4")]), "entry 'x': expected a NumPy array of numbers, got "),
    ],
    ids=str,
)
def test_other_values_than_arrays_are_named(value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        AverageAdditiveSharingModelProfile(6).prepare({"x": value})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.ones(2), "entry 'x': expected a dense tensor with values, got ndarray"),
        (1.0, "entry 'x': expected a dense tensor with values, got float"),
        (
            torch.ones(2, device="meta"),
            "entry 'x': expected a dense tensor with values, got one on meta, torch.strided",
        ),
        (torch.eye(2).to_sparse(), "entry 'x': expected a dense tensor with values, got one on cpu, torch.sparse_coo"),
        (torch.ones(2).to(torch.float8_e5m2), "entry 'x': expected a dtype of float16, .* got float8_e5m2"),
    ],
    ids=["array", "number", "meta", "sparse", "8 bits"],
)
def test_other_values_than_tensors_are_named(value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        AverageTorchAdditiveSharingModelProfile(6).prepare({"x": value})


@both
@pytest.mark.parametrize("data", [[1.0], None, 3, nn.Linear(1, 1)], ids=["list", "none", "number", "module"])
def test_other_data_than_dictionaries_are_refused(kind: str, data: Any) -> None:
    with pytest.raises(
        TypeError, match=f"expected a dictionary of arrays or tensors by name, got {type(data).__name__}"
    ):
        PROFILES[kind](6).prepare(data)


@both
def test_models_without_values_and_names_that_are_no_texts_are_refused(kind: str) -> None:
    profile = PROFILES[kind](6)
    for data in ({}, {"x": array(kind, [])}):
        with pytest.raises(ValueError, match="expected a model of at least one value"):
            profile.prepare(data)
    with pytest.raises(ValueError, match="entry 3: expected a text of at most 1024 characters as its name"):
        profile.prepare({3: array(kind, [1.0]), "a": array(kind, [1.0])})


@both
@pytest.mark.parametrize(
    ("weight", "error", "text"),
    [
        (0, ValueError, "weight: expected 1 to 5, the profile's max_weight, got 0; raise max_weight"),
        (6, ValueError, "weight: expected 1 to 5, the profile's max_weight, got 6; raise max_weight"),
        (2.0, TypeError, "weight: expected a whole number, got 2.0"),
        (True, TypeError, "weight: expected a whole number, got True"),
        ("2", TypeError, "weight: expected a whole number, got '2'"),
    ],
)
def test_weights_are_checked(kind: str, weight: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        PROFILES[kind](6, max_weight=5).prepare({"x": array(kind, [1.0])}, weight)


@both
def test_a_weight_is_the_last_word_and_multiplies_the_others(kind: str) -> None:
    profile = PROFILES[kind](2, max_weight=5)
    model = {"x": array(kind, [1.25, -0.5]), "n": array(kind, [-3], "int32")}
    for weight in (1, 5, np.int8(3)):
        assert signed(profile.prepare(model, weight)) == [int(weight) * word for word in (-3, 125, -50, 1)]


# Sums


@pytest.mark.parametrize(("weight", "is_right"), [(2, False), (3, True), (20, True), (21, False), (2**64 - 4, False)])
def test_sums_are_over_as_many_peers_as_there_are(weight: int, is_right: bool) -> None:
    profile = AverageAdditiveSharingModelProfile(0, max_weight=5)
    total = Prepared(profile.prepare({"x": np.array([1.0])}).layout, np.array([5, weight], np.uint64))
    if is_right:
        profile.check_sum(total, 3, 4)
        return
    with pytest.raises(ValueError, match=r"^expected a sum of weights of 3 to 20, got -?\d+: somebody has damaged it"):
        profile.check_sum(total, 3, 4)


def test_sums_wrap_and_damaged_ones_are_refused() -> None:
    profile = AverageAdditiveSharingModelProfile(0)
    layout = profile.prepare({"x": np.array([1.0])}).layout
    parts = [Share(layout, np.array([2**64 - 1, 2**63], np.uint64)), Share(layout, np.array([3, 2**63 + 1], np.uint64))]
    total = profile.aggregate(parts)
    assert signed(total) == [2, 1]
    assert profile.unprepare(total)["x"].tolist() == [2.0]
    for weight in (0, -1, -LIMIT):
        damaged = Prepared(layout, np.array([5, weight % 2**64], np.uint64))
        with pytest.raises(
            ValueError, match=f"expected a sum of weights of at least 1, got {weight}: the sum is damaged"
        ):
            profile.unprepare(damaged)


@pytest.mark.filterwarnings("error")
@both
@given(st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=3), st.integers(1, LIMIT - 1))
def test_any_sum_with_a_positive_weight_is_some_model(kind: str, words: list[int], weight: int) -> None:
    """Peers that lie can make a sum of any words: nothing may go wrong with these but the model."""
    profile = PROFILES[kind](6)
    layout = profile.prepare({"x": array(kind, [1.0, 2.0]), "n": array(kind, 1, "int64")}).layout
    model = profile.unprepare(Prepared(layout, np.array([*words, weight], np.uint64)))
    assert len(profile.pack(model, layout)) == layout.packed_bytes


def test_shares_of_nothing_of_other_layouts_and_of_no_number_are_refused() -> None:
    profile = AverageAdditiveSharingModelProfile(6)
    one, other = profile.prepare({"x": np.ones(2)}), profile.prepare({"x": np.ones((2, 1))})
    with pytest.raises(ValueError, match="expected at least one share, got none"):
        profile.aggregate([])
    with pytest.raises(ValueError, match="expected shares of one layout: entry 'x': the group agreed on float64"):
        profile.aggregate([one, other])
    for k in (0, -1):
        with pytest.raises(ValueError, match=f"expected at least 1 share, got {k}"):
            profile.create_shares_on_prepared_data(one, k)


@both
@pytest.mark.parametrize("k", [1, 2, 5])
def test_vectors_come_before_seeds_and_all_are_fresh(kind: str, k: int) -> None:
    profile = PROFILES[kind](6)
    prepared = profile.prepare({"x": array(kind, [1.0, -2.0])})
    before = prepared.values.copy()
    shares = profile.create_shares_on_prepared_data(prepared, k)
    assert [share.words is None for share in shares] == [False] + [True] * (k - 1)
    assert [share.seed is None for share in shares] == [True] + [False] * (k - 1)
    assert signed(profile.aggregate(shares)) == signed(prepared)
    assert (prepared.values == before).all()
    assert not np.shares_memory(shares[0].values, prepared.values)
    again = profile.create_shares_on_prepared_data(prepared, k)
    for first, second in zip(shares, again, strict=True):
        assert k == 1 or first.values.tolist() != second.values.tolist()


# Forms of models


def strange_arrays() -> dict[str, Any]:
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 8
    return {
        "z": base,
        "transposed": base.T,
        "every second": base[:, ::2, ::-1],
        "fortran": np.asfortranarray(base[0]),
        "big": base.astype(">f4"),
        "big integers": np.arange(3, dtype=">i8"),
        "half": base.astype(np.float16),
        "scalar": np.float32(1.5),
        "integer scalar": np.int16(-7),
        "no axis": np.array(2.5),
        "empty": np.zeros((3, 0, 2), np.float32),
        "read only": np.broadcast_to(np.float64(0.25), (2, 2)),
        "matrix": np.ma.array([[1.0, 2.0]]),
    }


def test_arrays_of_any_memory_layout_come_back_as_they_were() -> None:
    profile = AverageAdditiveSharingModelProfile(6)
    model = OrderedDict(strange_arrays())
    got = average(profile, [model] * 3, [1] * 3, 2)
    assert list(got) == list(model)
    for name, value in model.items():
        assert got[name].shape == np.shape(value), name
        assert got[name].dtype == value.dtype.newbyteorder("="), name
        assert got[name].flags.c_contiguous, name
        assert got[name].flags.writeable, name
        np.testing.assert_array_equal(got[name], np.asarray(value))
    for value, other in itertools.combinations(got.values(), 2):
        assert not np.shares_memory(value, other)
    for value, other in itertools.product(got.values(), model.values()):
        assert not np.shares_memory(value, other)


def strange_tensors(device: str = "cpu") -> dict[str, torch.Tensor]:
    base = torch.arange(24, dtype=torch.float32, device=device).reshape(2, 3, 4) / 8
    return {
        "z": base,
        "transposed": base.permute(2, 0, 1),
        "every second": base[:, ::2],
        "channels last": base.reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        "parameter": nn.Parameter(base[0]),
        "requires grad": base[1].clone().requires_grad_() * 2,
        "negated": torch.complex(base.double(), -base.double()).conj().imag,
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "double": base.double(),
        "expanded": torch.tensor(0.25, device=device).expand(2, 2),
        "no axis": torch.tensor(2.5, dtype=torch.bfloat16, device=device),
        "count": torch.tensor(7, device=device),
        "empty": torch.zeros(3, 0, 2, device=device),
        "bytes": torch.arange(4, dtype=torch.uint8, device=device),
    }


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_tensors_of_any_kind_come_back_as_they_were(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    profile = AverageTorchAdditiveSharingModelProfile(6)
    model = OrderedDict(strange_tensors(device))
    got = average(profile, [model] * 3, [1] * 3, 2)
    assert list(got) == list(model)
    for name, value in model.items():
        assert got[name].shape == value.shape, name
        assert got[name].dtype == value.dtype, name
        assert got[name].device == value.device, name
        assert not got[name].requires_grad, name
        assert torch.equal(got[name], value.detach()), name
    memory = [tensor.untyped_storage().data_ptr() for tensor in got.values() if tensor.numel()]
    assert len(set(memory)) == len(memory)
    assert not set(memory) & {tensor.untyped_storage().data_ptr() for tensor in model.values()}


@both
def test_models_are_not_changed(kind: str) -> None:
    profile = PROFILES[kind](1)
    model = {"x": array(kind, [0.123456, -1.0]), "n": array(kind, [3, -4], "int64")}
    before = {name: value.tolist() for name, value in model.items()}
    prepared = profile.prepare(model)
    prepared.values[:] = 0
    assert {name: value.tolist() for name, value in model.items()} == before
    profile.unprepare(profile.aggregate([profile.prepare(model)]))
    assert {name: value.tolist() for name, value in model.items()} == before


def test_a_network_with_batch_normalisation_is_averaged() -> None:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)) for _ in range(3)]
    for steps, net in enumerate(nets):
        for _ in range(3 * steps + 1):
            net(torch.randn(4, 1, 4, 4))
    profile = AverageTorchAdditiveSharingModelProfile(7)
    got = average(profile, [net.state_dict() for net in nets], [1] * 3, 2)
    nets[0].load_state_dict(got, strict=True)
    assert int(nets[0][1].num_batches_tracked) == 4  # of 1, 4 and 7
    assert not got["0.weight"].isnan().any()


def test_blocks_are_worked_on_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    model = {"x": rng.normal(size=100)}
    profile = AverageAdditiveSharingModelProfile(9, clip=100)
    whole = profile.prepare(model)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert signed(profile.prepare(model)) == signed(whole)
    assert profile.unprepare(whole)["x"].tolist() == pytest.approx(model["x"].tolist(), abs=1e-9)


# The contract of profiles


def test_what_a_profile_must_write() -> None:
    assert AggregationProfile.__abstractmethods__ == {
        "prepare",
        "create_shares_on_prepared_data",
        "aggregate",
        "unprepare",
    }
    assert profiles["average-numpy"] is AverageAdditiveSharingModelProfile
    assert profiles["average-torch"] is AverageTorchAdditiveSharingModelProfile


class Plain(AggregationProfile, name="plain for a test"):
    """The least that a profile can be: sums of arrays of whole numbers, and no average."""

    def __init__(self, factor: int, label: str = "x", *, exact: bool = True) -> None:
        self.factor = factor

    def prepare(self, data: Any, weight: int = 1) -> Prepared:
        layout = Layout.of(AverageAdditiveSharingModelProfile(0).entry(name, value) for name, value in data.items())
        values = np.concatenate([*(data[entry.name].reshape(-1) for entry in layout.entries), [weight]])
        return Prepared(layout, values.astype(np.int64).view(np.uint64))

    def create_shares_on_prepared_data(self, prepared: Prepared, num_shares: int) -> list[Share]:
        return AverageAdditiveSharingModelProfile(0).create_shares_on_prepared_data(prepared, num_shares)

    def aggregate(self, shares: Any) -> Prepared:
        return AverageAdditiveSharingModelProfile(0).aggregate(shares)

    def unprepare(self, prepared: Prepared) -> Any:
        places = prepared.layout.slices()
        return {e.name: prepared.values.view(np.int64)[p].reshape(e.shape) * self.factor for e, p in places}


def test_the_least_profile_works() -> None:
    models = [{"b": np.array([[1, -2]]), "a": np.array([3])}, {"b": np.array([[5, 5]]), "a": np.array([-4])}]
    got = average(Plain(2), models, [1, 1], 3)
    assert {name: value.tolist() for name, value in got.items()} == {"b": [[12, 6]], "a": [-2]}
    assert list(got) == ["b", "a"]
    Plain(2).check(10**9)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (lambda: Plain(3), {"factor": 3, "label": "x", "exact": True}),
        (lambda: Plain(3, "y", exact=False), {"factor": 3, "label": "y", "exact": False}),
        (lambda: Plain(label="z", factor=1), {"factor": 1, "label": "z", "exact": True}),
        (
            lambda: AverageTorchAdditiveSharingModelProfile(6, max_weight=7),
            {"digits_to_keep": 6, "clip": 1e6, "max_weight": 7},
        ),
        (lambda: AverageAdditiveSharingModelProfile(2, 5), {"digits_to_keep": 2, "clip": 5, "max_weight": 1}),
    ],
)
def test_arguments_are_kept_by_name(make: Callable[[], AggregationProfile], arguments: dict[str, Any]) -> None:
    profile = make()
    assert profile.arguments == arguments
    again = type(profile)(**profile.arguments)
    assert again.arguments == arguments


def test_wrong_arguments_are_told_as_python_tells_them() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'digits_to_keep'"):
        AverageAdditiveSharingModelProfile()
    with pytest.raises(TypeError, match="unexpected keyword argument 'digits'"):
        AverageTorchAdditiveSharingModelProfile(6, digits=3)
    with pytest.raises(TypeError, match="abstract"):
        AggregationProfile()


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ImportError, match="aggregation profile 'plain for a test' is defined by"):
        type("Other", (Plain,), {}, name="plain for a test")
