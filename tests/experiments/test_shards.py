from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from torch import Tensor

from experiments.partitions import Partition, partitions
from experiments.shards import check_arguments, labels_of, make_shards, require_data, write_partition
from tools.arguments import parse_pairs
from tools.errors import UserError
from tools.seeding import derive_seed

NAMES = sorted(name for name in partitions if name != "shared")


def draw_targets(samples: int = 60, classes: int = 3) -> Tensor:
    return torch.randint(classes, (samples,), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", NAMES)
def test_shards_are_those_of_the_partition_seeded_by_the_run(name: str) -> None:
    targets = draw_targets()
    shards = make_shards(name, {}, targets, 4, seed=7)
    generator = np.random.default_rng(derive_seed(7, "partition"))
    labels = targets.numpy() if partitions[name].reads_labels() else np.zeros(60, dtype=np.int64)
    expected = [sorted(shard.tolist()) for shard in partitions[name].split(labels, 4, generator)]
    assert [shard.tolist() for shard in shards] == expected
    assert {(shard.dtype, shard.device.type) for shard in shards} == {(torch.int64, "cpu")}
    assert [shard.tolist() for shard in make_shards(name, {}, targets, 4, seed=8)] != expected
    ours = [shard.tolist() for shard in make_shards(name, {}, targets, 4, seed=7)]
    assert ours == expected


def test_golden_shards() -> None:
    assert [shard.tolist() for shard in make_shards("iid", {}, torch.zeros(10), 3, seed=1)] == [
        [0, 2, 6, 8],
        [3, 4, 5],
        [1, 7, 9],
    ]
    given = make_shards("dirichlet", {"alpha": 1}, torch.arange(12) % 2, 3, seed=1)
    assert [shard.tolist() for shard in given] == [[1, 4], [3, 7, 9, 11], [0, 2, 5, 6, 8, 10]]


@pytest.mark.parametrize(
    "targets",
    [
        draw_targets().to(torch.uint8) + 5,
        draw_targets().float() / 10 - 1,
        draw_targets().double().unsqueeze(1),
        torch.nn.functional.one_hot(2 - draw_targets()).float(),
        torch.nn.functional.one_hot(2 - draw_targets()).view(-1, 3, 1),
    ],
)
def test_labels_of_any_shape_and_type(targets: Tensor) -> None:
    ours = make_shards("extreme", {}, targets, 3, seed=1)
    assert [shard.tolist() for shard in ours] == [
        shard.tolist() for shard in make_shards("extreme", {}, draw_targets(), 3, seed=1)
    ]


def test_two_classes_as_booleans() -> None:
    numbers, names = labels_of(draw_targets() == 1)
    assert names == ["0", "1"]
    assert numbers.tolist() == (draw_targets() == 1).int().tolist()


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ([7, -1, 7, 3], ["-1", "3", "7"]),
        ([0.0, 1.0, 1.0, 0.0], ["0", "1"]),
        ([0.1, 1e-3, -2.5], ["-2.5", "0.001", "0.1"]),
        ([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], ["0 1", "1 0"]),
    ],
)
def test_classes_are_named_by_their_values(targets: list, names: list[str]) -> None:
    numbers, found = labels_of(torch.tensor(targets))
    assert found == names
    assert [found[number] for number in numbers] == [
        " ".join(f"{value:g}" for value in torch.tensor(target).flatten().tolist()) for target in targets
    ]


@pytest.mark.parametrize(("name", "arguments"), [("dirichlet", {}), ("extreme", {}), ("mixing", {})])
def test_targets_that_are_no_labels(name: str, arguments: dict[str, Any]) -> None:
    values = torch.linspace(0, 1, 1_001)
    text = (
        f"^--partition: expected a dataset with labels for {name}, got floating-point targets of more than 1000 "
        f"values; use iid or quantity$"
    )
    with pytest.raises(UserError, match=text):
        make_shards(name, arguments, values, 4, seed=1)
    assert labels_of(values) is None
    assert len(make_shards(name, arguments, values[:1_000], 4, seed=1)) == 4
    assert len(labels_of(torch.arange(1_001))[1]) == 1_001  # whole numbers are classes, however many
    for unlabelled in ("iid", "quantity"):
        assert sum(map(len, make_shards(unlabelled, {}, values, 4, seed=1))) == 1_001
    both = make_shards("mixing", {"first": "quantity", "second": "iid"}, values, 4, seed=1)
    assert sum(map(len, both)) == 1_001


@pytest.mark.parametrize(
    "wrong", [[[0, 1], [1]], [[0], [3]], [[-1], [0]], [[0, 1, 2]], [[0, 0], [1]]], ids=lambda wrong: str(wrong)
)
def test_a_partition_that_gives_what_it_must_not(wrong: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Partition):
        name = "wrong"

        @classmethod
        def split(cls, labels: np.ndarray, n: int, rng: np.random.Generator, **specialized: Any) -> list[np.ndarray]:
            return [np.array(shard) for shard in wrong]

    monkeypatch.setitem(partitions._classes, "wrong", Wrong)
    with pytest.raises(ValueError, match=r"^wrong: expected 2 shards of different samples from 0 to 2, got \["):
        make_shards("wrong", {}, torch.zeros(3), 2, seed=1)


def test_one_that_leaves_samples_out_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Less(Partition):
        @classmethod
        def split(cls, labels: np.ndarray, n: int, rng: np.random.Generator, **specialized: Any) -> list[np.ndarray]:
            return [np.array([2, 0], dtype=np.int32), np.array([], dtype=int)]

    monkeypatch.setitem(partitions._classes, "less", Less)
    shards = make_shards("less", {}, torch.zeros(3), 2, seed=1)
    assert [shard.tolist() for shard in shards] == [[0, 2], []]
    assert {shard.dtype for shard in shards} == {torch.int64}


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("dirichlet", {"beta": 1}, r"--partition-args: dirichlet has no argument 'beta', expected: alpha"),
        ("dirichlet", {"alpha": 0}, r"--partition-args: dirichlet: expected alpha above 0 and at most 1e\+06, got 0"),
        ("dirichlet", {"alpha": "x"}, r"--partition-args: dirichlet: expected a number as alpha, got 'x'"),
        ("dirichlet", {"rng": 1}, r"--partition-args: dirichlet has no argument 'rng', expected: alpha"),
        ("iid", {"alpha": 1}, r"--partition-args: iid has no argument 'alpha', expected: samples"),
        ("shared", {"alpha": 1}, r"--partition-args: shared has no argument 'alpha', expected: no arguments"),
        ("extreme", {"groups": 9}, r"--partition-args: extreme: expected groups from 1 to 8, got 9"),
        ("idd", {}, r"unknown partition 'idd', expected one of: dirichlet, .*"),
        (
            "mixing",
            {"second_args": {"parts": 2}},
            r"--partition-args: mixing: second-args: extreme has no argument 'parts', expected: groups, by, samples",
        ),
    ],
)
def test_arguments_are_checked(name: str, arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(UserError, match=f"^{error}$"):
        check_arguments(name, arguments, 8)
    with pytest.raises(UserError, match=f"^{error}$"):
        make_shards(name, arguments, draw_targets(), 8, seed=1)


def test_arguments_as_typed() -> None:
    typed = parse_pairs(["first:iid", "second:extreme", "share:0.5", "second-args:{'groups':2}"])
    assert check_arguments("mixing", typed, 8) == typed
    assert check_arguments("extreme", {"groups": 8}, 8) == {"groups": 8}
    assert check_arguments("shared", {}, 8) == {}
    assert len(make_shards("mixing", typed, draw_targets(), 8, seed=1)) == 8


def test_workers_without_data() -> None:
    shards = [torch.arange(size) for size in (2, 0, 1, 0)]
    require_data(shards, [0, 2])
    text = (
        "^--partition: expected samples for every node that trains, got none for {} of 4; give --partition-args that "
        "spread samples more evenly, another --seed, or fewer --nb-workers$"
    )
    with pytest.raises(UserError, match=text.format("node 3")):
        require_data(shards, [3, 2, 0])
    with pytest.raises(UserError, match=text.format("nodes 1, 3")):
        require_data(shards, [3, 2, 1, 0])
    with pytest.raises(UserError, match=r"got none for nodes 0, 1, 2, 3, 4, … of 9;"):
        require_data([torch.arange(0)] * 9, range(9))
    with pytest.raises(UserError, match=r"got none for nodes 0, 1, 2, 3, 4 of 5;"):
        require_data([torch.arange(0)] * 5, range(5))


def test_partition_as_a_table(tmp_path: Path) -> None:
    path = tmp_path / "partition.csv"
    targets = torch.tensor([3, 5, 3, 9, 5, 3])
    shards = [torch.tensor([0, 2, 3]), torch.tensor([], dtype=torch.int64), torch.tensor([1, 4])]
    write_partition(path, shards, targets, [1])
    assert path.read_bytes() == (
        b"node,role,samples,label 3,label 5,label 9\n0,honest,3,2,0,1\n1,byzantine,0,0,0,0\n2,honest,2,0,2,0\n"
    )
    frame = pandas.read_csv(path)
    assert frame["samples"].tolist() == [3, 0, 2]
    write_partition(path, shards, (targets == 3).float().unsqueeze(1), [])
    assert path.read_text().splitlines() == [
        "node,role,samples,label 0,label 1",
        *("0,honest,3,1,2", "1,honest,0,0,0", "2,honest,2,2,0"),
    ]


def test_table_of_targets_that_are_no_labels(tmp_path: Path) -> None:
    shards = make_shards("iid", {}, torch.linspace(0, 1, 1_001), 2, seed=1)
    write_partition(tmp_path / "partition.csv", shards, torch.linspace(0, 1, 1_001), [1])
    assert (tmp_path / "partition.csv").read_text() == "node,role,samples\n0,honest,501\n1,byzantine,500\n"
