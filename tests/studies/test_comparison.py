import math

import pandas
import pytest

from studies.comparison import cells, complete, left_out, pairs

FIELDS = ["dataset", "model", "gar", "attack", "nb_workers", "nb_decl_byz", "nb_real_byz", "learning_rate"]
FIELDS += [
    "learning_rate_schedule",
    "momentum_at",
    "momentum_nesterov",
    "batch_size",
    "device",
    "gars",
    "pre_gar",
    "seed",
]
DECIDING = [*FIELDS, "steps"]
ATTACKED = {"gar": "krum", "attack": "little", "nb_workers": 11, "nb_decl_byz": 4, "nb_real_byz": 4}
PLAIN = {"dataset": "digits", "model": "digits-mlp", "gar": "average", "attack": None, "nb_workers": 7}
PLAIN |= {"nb_decl_byz": 0, "nb_real_byz": 0, "learning_rate": 0.1, "learning_rate_schedule": None, "gars": None}
PLAIN |= {"momentum_at": "update", "momentum_nesterov": False, "batch_size": 25, "device": "cpu", "pre_gar": "[]"}
PLAIN |= {"seed": 1, "steps": 100, "ratio_honest": math.nan, "ratio_bound": math.nan, "environment_seed": 1}


def run(name: str, accuracy: float, **fields: object) -> dict[str, object]:
    return {**PLAIN, "name": name, "accuracy_max": accuracy, **fields}


def attacked(name: str, accuracy: float, place: str, **fields: object) -> dict[str, object]:
    return run(name, accuracy, momentum_at=place, **{**ATTACKED, **fields})


def frame(*rows: dict[str, object]) -> pandas.DataFrame:
    return pandas.DataFrame(rows)


def trio(seed: int, reference: float, update: float, worker: float, **fields: object) -> list[dict[str, object]]:
    return [
        run(f"reference-{seed}", reference, seed=seed, **fields),
        attacked(f"update-{seed}", update, "update", seed=seed, **fields),
        attacked(f"worker-{seed}", worker, "worker", seed=seed, **fields),
    ]


def test_a_pair_is_matched_with_the_unattacked_mean_of_as_many_honest_workers() -> None:
    rows = trio(1, 0.9, 0.3, 0.7)
    others = [run("more", 0.5, nb_workers=8), run("other-seed", 0.5, seed=2), run("median", 0.5, gar="median")]
    others += [run("other-rate", 0.5, learning_rate=0.2), run("nnm", 0.5, pre_gar='["nnm"]')]
    found = pairs(frame(*others, *rows), DECIDING)
    assert len(found) == 1
    pair = found.iloc[0]
    assert (pair["reference_name"], pair["update_name"], pair["worker_name"]) == ("reference-1", "update-1", "worker-1")
    assert pair["cost"] == pytest.approx(0.6)
    assert pair["gain"] == pytest.approx(0.4)
    assert (pair["f"], pair["n"], pair["rate"], pair["rule"], pair["seed"]) == (4, 11, "0.1", "krum", 1)


@pytest.mark.parametrize(
    "different",
    [
        {"seed": 2},
        {"batch_size": 50},
        {"steps": 99},
        {"momentum_nesterov": True},
        {"gar": "median"},
        {"nb_real_byz": 3},
    ],
)
def test_runs_that_differ_in_more_than_the_place_are_no_pair(different: dict[str, object]) -> None:
    rows = [attacked("update", 0.3, "update"), attacked("worker", 0.7, "worker", **different)]
    found = pairs(frame(*rows), DECIDING)
    assert len(found) == 2
    assert complete(found).empty
    assert found[["update", "worker"]].isna().sum().sum() == 2


def test_where_a_run_was_computed_does_not_part_a_pair() -> None:
    reference, update, worker = trio(1, 0.9, 0.3, 0.7)
    found = pairs(frame(reference, update | {"device": "cuda"}, worker), DECIDING)
    assert len(complete(found)) == 1


def test_of_two_references_the_one_with_momentum_at_update_counts() -> None:
    rows = [run("a-worker", 0.5, momentum_at="worker"), *trio(1, 0.9, 0.3, 0.7)]
    assert pairs(frame(*rows), DECIDING)["reference"].to_list() == [0.9]
    rows = [run("a-worker", 0.5, momentum_at="worker"), *trio(1, 0.9, 0.3, 0.7)[1:]]
    assert pairs(frame(*rows), DECIDING)["reference"].to_list() == [0.5]


def test_seeds_of_one_setting_are_one_cell_with_mean_and_sample_deviation() -> None:
    rows = [row for seed, worker in ((1, 0.5), (2, 0.7)) for row in trio(seed, 0.9, 0.3 + 0.1 * seed, worker)]
    rows += [attacked("alone", 0.1, "update", seed=3)]
    found = cells(pairs(frame(*rows), DECIDING))
    assert len(found) == 1
    cell = found.iloc[0]
    assert cell["seeds"] == 2
    assert cell["worker_mean"] == pytest.approx(0.6)
    assert cell["worker_std"] == pytest.approx(0.2 / math.sqrt(2))
    assert cell["update_mean"] == pytest.approx((0.4 + 0.5 + 0.1) / 3)  # that of the seed without partner as well
    assert cell["gain_mean"] == pytest.approx((0.1 + 0.2) / 2)  # but a gain is of both


def test_cells_that_differ_in_what_no_one_is_shown_stay_apart() -> None:
    rows = [*trio(1, 0.9, 0.3, 0.7), *trio(1, 0.8, 0.2, 0.6, batch_size=50)]
    found = cells(pairs(frame(*rows), DECIDING))
    assert found["update_mean"].to_list() == pytest.approx([0.3, 0.2])


def test_a_schedule_is_shown_instead_of_the_rate() -> None:
    found = pairs(frame(*trio(1, 0.9, 0.3, 0.7, learning_rate_schedule="0.02,8000,0.004")), DECIDING)
    assert found["rate"].to_list() == ["0.02,8000,0.004"]


def test_every_run_that_is_not_compared_is_listed_with_the_reason() -> None:
    rows = [*trio(1, 0.9, 0.3, 0.7), attacked("twice", 0.4, "update"), attacked("server", 0.4, "server")]
    rows += [attacked("lonely", 0.4, "worker", learning_rate=0.5), run("idle", 0.9, seed=7)]
    runs = frame(*rows)
    found = pairs(runs, DECIDING)
    assert found["update"].dropna().to_list() == [0.4], "of equal runs the first by name"
    reasons = left_out(runs, found)
    assert reasons["idle"] == "it is the reference of no attacked run"
    assert reasons["server"] == "momentum at server is not compared"
    assert reasons["update-1"] == "another run has the same configuration"
    assert "with momentum at update" in reasons["lonely"]
    assert "unattacked" in reasons["lonely"]
    assert set(reasons) == {"idle", "server", "update-1", "lonely"}


def test_a_run_without_evaluations_is_no_part_of_a_pair() -> None:
    runs = frame(*trio(1, 0.9, 0.3, math.nan))
    found = pairs(runs, DECIDING)
    assert complete(found).empty
    assert "momentum at the workers" in left_out(runs, found)["update-1"]


def test_without_attacked_runs_there_is_nothing_to_compare() -> None:
    found = pairs(frame(run("a", 0.9)), DECIDING)
    assert found.empty
    assert cells(found).empty
