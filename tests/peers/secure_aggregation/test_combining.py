import re
from typing import Any

import numpy as np
import pytest
import torch

from aggregators import gars
from peers.secure_aggregation.combining import Combination, combine_sums
from peers.secure_aggregation.profiles import (
    AverageAdditiveSharingModelProfile,
    AverageTorchAdditiveSharingModelProfile,
    Prepared,
)
from tools.errors import UserError

SEED = bytes(range(32))
FREE_OF_NEEDS = sorted(name for name, rule in gars.items() if not rule.needs)
NEEDY = sorted(name for name, rule in gars.items() if rule.needs)


def sums_of(profile: AverageAdditiveSharingModelProfile, groups: list[list[dict[str, Any]]]) -> list[Prepared]:
    return [profile.aggregate([profile.prepare(model) for model in models]) for models in groups]


def models(rng: np.random.Generator, kind: str, count: int) -> list[dict[str, Any]]:
    made = [
        {
            "w": rng.normal(size=(2, 3)).astype(np.float32),
            "n": rng.integers(0, 100, (), dtype=np.int64)[()],
            "b": rng.normal(size=()).astype(np.float64)[()],
            "empty": np.zeros((0, 3)),
        }
        for _ in range(count)
    ]
    if kind == "numpy":
        return made
    return [{name: torch.as_tensor(value) for name, value in model.items()} for model in made]


PROFILES = {"numpy": AverageAdditiveSharingModelProfile, "torch": AverageTorchAdditiveSharingModelProfile}


@pytest.mark.parametrize("kind", PROFILES)
@pytest.mark.parametrize("name", FREE_OF_NEEDS)
def test_the_result_is_the_rule_of_the_exact_means_of_groups(name: str, kind: str) -> None:
    rng = np.random.default_rng(3)
    profile = PROFILES[kind](9, clip=1e3)
    groups = [models(rng, kind, 3) for _ in range(9)]
    combination = Combination(name, 1)
    combination.check(9)
    got = combine_sums(profile, sums_of(profile, groups), combination, SEED)
    exact = [
        np.concatenate([np.mean([np.asarray(m[entry], float) for m in group], axis=0).ravel() for entry in ("b", "w")])
        for group in groups
    ]
    generator = torch.Generator().manual_seed(int.from_bytes(SEED[:7], "big"))
    expected = gars[name].aggregate(torch.tensor(np.array(exact)), f=1, generator=generator).numpy()
    np.testing.assert_allclose(float(got["b"]), expected[0], rtol=0, atol=2e-8)
    np.testing.assert_allclose(np.asarray(got["w"]).ravel(), expected[1:], rtol=0, atol=3e-7)
    assert got["w"].shape == (2, 3)
    assert str(got["w"].dtype).removeprefix("torch.") == "float32"
    assert str(got["b"].dtype).removeprefix("torch.") == "float64"
    assert tuple(got["empty"].shape) == (0, 3)
    counts = [int(model["n"]) for group in groups for model in group]
    assert int(got["n"]) == (2 * sum(counts) + 27) // 54  # of all 27 peers, halves up
    layout = profile.prepare(groups[0][0]).layout
    assert len(profile.pack(got, layout)) == layout.packed_bytes


def test_means_of_groups_are_not_rounded_before_the_rule() -> None:
    """Of float16 entries a rule sees means in float64: an average of means is rounded once."""
    profile = AverageAdditiveSharingModelProfile(9)
    values = [1.0, 1.0, 1.0009765625]  # 1 and the next float16
    sums = sums_of(profile, [[{"x": np.float16(v)} for v in values]] * 2 + [[{"x": np.float16(values[2])}] * 3])
    seen = []

    class Watched(Combination):
        def __call__(self, means: np.ndarray, seed: bytes) -> np.ndarray:
            seen.append(means)
            return super().__call__(means, seed)

    combine_sums(profile, sums, Watched("median", 1), SEED)
    third = 0.0009765625 / 3
    np.testing.assert_allclose(seen[0].ravel(), [1 + third, 1 + third, 1.0009765625], rtol=0, atol=1e-9)
    assert seen[0].dtype == np.float64


def test_a_poisoned_group_does_not_move_a_median() -> None:
    profile = AverageAdditiveSharingModelProfile(6, max_weight=5)
    groups = [[{"x": np.full(2, float(value))}] * 3 for value in (1, 2, 3, 4, 1e6)]
    assert combine_sums(profile, sums_of(profile, groups), Combination("median", 2), SEED)["x"].tolist() == [3, 3]
    weights = [5, 1, 1, 1, 1]
    heavy = [profile.aggregate([profile.prepare(m, w) for m in g]) for g, w in zip(groups, weights, strict=True)]
    got = combine_sums(profile, heavy, Combination("average", 0), SEED)["x"].tolist()
    assert got == [(1 + 2 + 3 + 4 + 1e6) / 5] * 2  # the weights of members do not count between groups


@pytest.mark.parametrize("name", FREE_OF_NEEDS)
def test_all_root_actors_get_the_same_bytes(name: str) -> None:
    rng = np.random.default_rng(5)
    profile = AverageAdditiveSharingModelProfile(6)
    sums = sums_of(profile, [models(rng, "numpy", 3) for _ in range(9)])
    results = []
    for noise in range(3):
        torch.manual_seed(noise)  # whatever else goes on in the process
        torch.rand(noise)
        copies = [Prepared(each.layout, each.values.copy()) for each in sums]
        results.append(profile.pack(combine_sums(profile, copies, Combination(name, 1), SEED), sums[0].layout))
    assert len(set(results)) == 1


def test_random_rules_draw_anew_in_each_round() -> None:
    rng = np.random.default_rng(5)
    profile = AverageAdditiveSharingModelProfile(6)
    sums = sums_of(profile, [models(rng, "numpy", 3) for _ in range(9)])
    combination = Combination("dnc", 1, {"coordinates": 1, "rounds": 1})
    drawn = {combine_sums(profile, sums, combination, bytes([i]) * 32)["w"].tobytes() for i in range(20)}
    assert len(drawn) > 1


def test_arguments_reach_the_rule() -> None:
    profile = AverageAdditiveSharingModelProfile(6)
    groups = [[{"x": np.array([value])}] * 3 for value in (0.0, 1.0, 2.0, 4.0, 50.0)]
    sums = sums_of(profile, groups)
    one, two = (combine_sums(profile, sums, Combination("krum", 1, {"m": m}), SEED)["x"].item() for m in (1, 2))
    assert one == 1.0
    assert two in (0.5, 1.5)


@pytest.mark.parametrize("with_empty_floats", [False, True])
def test_models_of_integers_only_are_averaged(with_empty_floats: bool) -> None:
    profile = AverageAdditiveSharingModelProfile(6)
    empty = {"e": np.zeros((0, 2))} if with_empty_floats else {}
    groups = [[{"n": np.array([value, -value]), **empty}] * 3 for value in (1, 2, 2)]
    got = combine_sums(profile, sums_of(profile, groups), Combination("median", 1), SEED)
    assert got["n"].tolist() == [2, -2]
    assert set(got) == {"n", *empty}


def test_damaged_sums_and_too_few_groups_are_refused() -> None:
    profile = AverageAdditiveSharingModelProfile(6)
    sums = sums_of(profile, [[{"x": np.ones(2)}] * 3] * 5)
    sums[2].values[-1] = 2**64 - 3
    with pytest.raises(ValueError, match="the sum is damaged"):
        combine_sums(profile, sums, Combination("median", 1), SEED)
    with pytest.raises(ValueError, match=r"median: expected f from 0 to 0 for n = 2, got 1"):
        combine_sums(profile, sums[:2], Combination("median", 1), SEED)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("krumm",), "combine: unknown aggregation rule 'krumm', expected one of: aksel, autogm, "),
        (("median", -1), "combine: expected f of at least 0, got -1"),
        (("median", 1.0), "combine: expected a whole number as f, got 1.0"),
        (("median", True), "combine: expected a whole number as f, got True"),
        (("krum", 1, {"k": 2}), "combine: krum has no argument 'k', expected: m"),
        (("median", 1, {"n": 2}), "combine: median has no argument 'n', expected: no arguments"),
        (("krum", 1, {"f": 2}), "combine: krum has no argument 'f', expected: m"),
    ],
)
def test_what_no_rule_takes_is_refused_at_once(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(text)}"):
        Combination(*arguments)


@pytest.mark.parametrize("name", NEEDY)
def test_rules_that_need_more_than_vectors_are_refused(name: str) -> None:
    needs = ", ".join(gars[name].needs)
    text = f"combine: expected a rule of vectors only, got {name}, which needs {needs}"
    with pytest.raises(UserError, match=f"^{re.escape(text)}$"):
        Combination(name)


def test_there_are_rules_of_both_kinds() -> None:
    assert {"median", "krum", "average", "dnc"} <= set(FREE_OF_NEEDS)
    assert {"fltrust", "ubar", "clippedgossip"} <= set(NEEDY)


@pytest.mark.parametrize(
    ("rule", "f", "least"), [("median", 1, 3), ("median", 2, 5), ("krum", 1, 5), ("average", 0, 1)]
)
def test_numbers_of_groups_are_checked_on_both_sides(rule: str, f: int, least: int) -> None:
    combination = Combination(rule, f)
    combination.check(least)
    with pytest.raises(
        UserError, match=rf"^combine: for {least - 1} groups: {rule}: .*; use more peers, or smaller groups$"
    ):
        combination.check(least - 1)


def test_values_of_arguments_are_checked_with_the_number_of_groups() -> None:
    Combination("krum", 1, {"m": 2}).check(7)
    for m in (0, 8, "x"):
        with pytest.raises(UserError, match="combine: for 7 groups: krum: "):
            Combination("krum", 1, {"m": m}).check(7)
