from typing import Any

import pytest

from benchmarks.secure_aggregation import recovery, run, summary


def digests(result: dict[str, Any], number: int) -> set[str]:
    return {row["digest"] for rows in result["rows"] for row in rows if row.get("round") == number}


def test_processes_get_the_same_mean() -> None:
    result = run(4, 2, torch=False, timeout_s=20)
    assert result["exit"] == [0] * 4
    assert [len(digests(result, number)) for number in range(2)] == [1, 1]
    assert max(errors["all"] for errors in result["errors"].values()) < 1e-6
    assert result["server"]["rounds"] == 2
    assert all(row[-1]["peak MiB"] > row[-1]["start MiB"] > 0 for row in result["rows"])
    line = summary(result)
    assert "4 peers (numpy)" in line
    assert line.endswith("same bytes")


@pytest.mark.parametrize(("phase", "repeats", "mean_of"), [("confirmed", 1, "one lost"), ("shared", 0, "all")])
def test_a_process_that_is_killed(phase: str, repeats: int, mean_of: str) -> None:
    result = run(6, 2, torch=False, timeout_s=4, die_at=phase)
    assert sorted(result["exit"]) == [-9, 0, 0, 0, 0, 0]
    assert result["server"]["repeats"] == repeats
    (digest,) = digests(result, 1)
    assert result["errors"][digest][mean_of] < 1e-6
    assert "5 survivors" in recovery(result)
