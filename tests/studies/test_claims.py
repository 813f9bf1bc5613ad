import math

import pandas
import pytest

from studies.claims import claims, subsets, wilson


def make_pairs(*rows: tuple[float, float, float], **fields: object) -> pandas.DataFrame:
    """Return pairs of the given maximum accuracies: reference, update, worker."""
    shared = {
        "dataset": "mnist",
        "model": "simples-full",
        "rule": "krum",
        "attack": "little",
        "f": 24,
        "n": 51,
        **fields,
    }
    frame = pandas.DataFrame([{**shared, "reference": r, "update": u, "worker": w} for r, u, w in rows])
    return frame.assign(cost=frame["reference"] - frame["update"], gain=frame["worker"] - frame["update"])


def conv(*rows: tuple[float, float, float], f: int, dataset: str = "cifar10") -> pandas.DataFrame:
    return make_pairs(*rows, model="empire-cnn", dataset=dataset, f=f, n=25)


def counts(pairs: pandas.DataFrame) -> list[tuple[int, int]]:
    return [(claim.count, claim.total) for claim in claims(pairs)]


def test_claims_are_counted_as_the_paper_defines_them() -> None:
    pairs = pandas.concat(
        [
            make_pairs((0.9, 0.6, 0.85), (0.9, 0.71, 0.9), (0.9, 0.5, 0.6), (0.9, 0.9, 0.895)),
            conv((0.9, 0.1, 0.9), (0.9, 0.1, 0.25), (0.9, 0.1, 0.15), f=11),
            conv((0.9, 0.1, 0.9), (0.9, 0.85, 0.8), (0.9, 0.85, 0.82), (0.9, 0.75, 0.67), f=5),
        ]
    )
    assert counts(pairs) == [
        (2, 4),  # fully connected: costs 0.3, 0.19, 0.4, 0
        (4, 7),  # convolutional
        (3, 6),  # recovered of effective, all
        (3, 3),  # f ≈ n/2 effective
        (2, 3),  # recovered at 0.10
        (1, 3),  # recovered at 0.20
        (1, 4),  # f ≈ n/4 effective
        (1, 1),  # recovered
        (4, 11),  # lowered at all
        (3, 11),  # by more than 0.02
        (1, 11),  # by more than 0.05
    ]


def test_thresholds_are_strict() -> None:
    exact = make_pairs((1.0, 0.75, 1.0)).assign(cost=0.20, gain=0.20)
    assert claims(exact)[0].count == 0
    assert claims(exact.assign(cost=0.21))[2].count == 0
    assert [claim.count for claim in claims(exact.assign(gain=-0.02))[-3:]] == [1, 0, 0]
    assert [claim.count for claim in claims(exact.assign(gain=0.0))[-3:]] == [0, 0, 0]


def test_recovered_needs_an_attack_that_cost_as_much() -> None:
    harmless = make_pairs((0.9, 0.8, 1.0)).assign(gain=0.5)
    assert counts(harmless)[2] == (0, 0)


def test_pairs_that_lack_a_run_count_nowhere() -> None:
    lacking = make_pairs((math.nan, 0.1, 0.9), (0.9, math.nan, 0.9), (0.9, 0.1, math.nan))
    assert all(total == 0 for _, total in counts(lacking))


def test_what_was_not_measured_is_said_so() -> None:
    for claim in claims(make_pairs((0.9, 0.6, 0.85)).iloc[:0]):
        assert claim.measured == "not measured here"
        assert math.isnan(claim.share)
        assert claim.paper
    assert claims(make_pairs((0.9, 0.6, 0.85)))[1].measured == "not measured here"


def test_other_data_than_the_papers_is_pointed_out() -> None:
    ours = pandas.concat([make_pairs((0.9, 0.6, 0.8)), make_pairs((0.9, 0.6, 0.8), dataset="fashionmnist")])
    full, *_ = claims(ours)
    assert full.note == ""
    full, *_ = claims(make_pairs((0.9, 0.6, 0.8), dataset="digits", model="digits-mlp"))
    assert full.total == 1
    assert "digits (digits-mlp)" in full.note
    assert "fashionmnist, mnist" in full.note


def test_where_accuracy_was_lowered_is_said() -> None:
    pairs = pandas.concat([make_pairs((0.9, 0.8, 0.7), (0.9, 0.8, 0.7)), make_pairs((0.9, 0.8, 0.7), attack="empire")])
    assert "2 krum under little, 1 krum under empire" in claims(pairs)[-1].note


def test_the_papers_shares_are_whole_counts_of_its_grid() -> None:
    full = make_pairs(*[(0.9, 0.6, 0.8)] * 227, *[(0.9, 0.9, 0.9)] * 653)
    half = conv(*[(0.9, 0.1, 0.9)] * 197, *[(0.9, 0.1, 0.25)] * 122, *[(0.9, 0.1, 0.1)] * 81, f=11)
    quarter = conv(*[(0.9, 0.1, 0.9)] * 212, *[(0.9, 0.1, 0.2)] * 11, *[(0.9, 0.9, 0.9)] * 257, f=5)
    for claim in claims(pandas.concat([full, half, quarter])):
        if not claim.statement.startswith(("Where", "Worker")):
            assert f"{claim.share:.2%}".replace("%", " %") == claim.paper, claim.statement


def test_wilson_agrees_with_published_values() -> None:
    # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 1998, table I
    for (count, total), expected in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert wilson(count, total) == pytest.approx(expected, abs=5e-5)
    assert wilson(20, 20) == pytest.approx((1 - 0.1611, 1.0), abs=5e-5)
    assert all(map(math.isnan, wilson(0, 0)))


def test_subsets_count_the_same_pairs_by_data_and_by_number_of_byzantine_workers() -> None:
    pairs = pandas.concat([make_pairs((0.9, 0.6, 0.85), (0.9, 0.75, 0.9)), conv((0.9, 0.1, 0.04), f=11)])
    found = subsets(pairs).set_index("subset")
    assert found["pairs"].to_dict() == {"all": 3, "mnist": 2, "cifar10": 1, "f = 24 of 51": 2, "f = 11 of 25": 1}
    assert found.loc["all", ["effective_10", "effective_20", "effective_40"]].to_list() == [3, 2, 1]
    assert found.loc["mnist", ["recovered_10", "recovered_20", "recovered_40"]].to_list() == [2, 1, 0]
    assert found.loc["cifar10", ["lowered_0", "lowered_2", "lowered_5"]].to_list() == [1, 1, 1]
