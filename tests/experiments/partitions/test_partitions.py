"""Properties of all partitions, and what each one promises."""

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import experiments.partitions
from experiments.partitions import CONTEXT, Partition, cut, partitions, sorted_at_random
from tools.arguments import explicit_parameters
from tools.errors import UserError


def template() -> type[Partition]:
    """Return the class of template.py, not registered."""
    path = Path(experiments.partitions.__file__).with_name("template.py")
    names: dict[str, Any] = {}
    exec(path.read_text(encoding="utf-8").replace('name="template"', 'name=""'), names)
    names["Template"].name = "template"
    return names["Template"]


TEMPLATE = template()
SPLITTING: dict[str, type[Partition]] = {name: cls for name, cls in partitions.items() if name != "shared"}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in SPLITTING},
    "dirichlet, small alpha": ("dirichlet", {"alpha": 1e-3}),
    "dirichlet, tiny alpha": ("dirichlet", {"alpha": 1e-300}),
    "dirichlet, large alpha": ("dirichlet", {"alpha": 10**6}),
    "extreme, one group": ("extreme", {"groups": 1}),
    "extreme, whole labels": ("extreme", {"by": "labels", "groups": 1}),
    "extreme, few samples": ("extreme", {"groups": 1, "samples": 3}),
    "iid, few samples": ("iid", {"samples": 3}),
    "gamma-similarity 0": ("gamma-similarity", {"gamma": 0}),
    "gamma-similarity 1": ("gamma-similarity", {"gamma": 1}),
    "quantity, tiny alpha": ("quantity", {"alpha": 1e-300}),
    "shards, one": ("shards", {"per_node": 1}),
    "shards, many": ("shards", {"per_node": 1_000}),
    "shards, similarity 0": ("shards", {"similarity": 0}),
    "shards, similarity 0.7": ("shards", {"similarity": 0.7}),
    "shards, similarity 1": ("shards", {"similarity": 1}),
    "mixing with arguments": (
        "mixing",
        {"first": "quantity", "second": "dirichlet", "share": 0.3, "second_args": {"alpha": 1}},
    ),
    "mixing of mixtures": ("mixing", {"first": "mixing", "second": "mixing", "first_args": {"second": "shards"}}),
    "template": ("template", {}),
}
INCOMPLETE = frozenset({"extreme, few samples", "iid, few samples"})
"""Partitions that leave samples out."""
BALANCED = {
    **{"iid": 1, "extreme": 1, "extreme, one group": 1, "gamma-similarity": 2, "mixing": 2},
    **{"gamma-similarity 0": 1, "gamma-similarity 1": 1, "shards, similarity 1": 1, "shards, many": 1},
    **{"iid, few samples": 1, "extreme, few samples": 1},
}
"""By how many samples sizes may differ."""

variants = pytest.mark.parametrize("variant", sorted(VARIANTS))


def split(name: str, labels: np.ndarray, n: int, seed: int = 1, **arguments: Any) -> list[np.ndarray]:
    cls = partitions.get(name, TEMPLATE)
    cls.check(n=n, **arguments)
    return cls.split(labels, n, np.random.default_rng(seed), **arguments)


def draw_labels(samples: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(classes, size=samples)


def counts(shards: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Return the number of samples (nodes, classes) of each label at each node."""
    return np.array([np.bincount(labels[shard], minlength=labels.max() + 1) for shard in shards])


@variants
@given(n=st.integers(1, 40), samples=st.integers(0, 120), classes=st.integers(1, 12), seed=st.integers(0, 2**63 - 1))
def test_every_sample_goes_to_one_node(variant: str, n: int, samples: int, classes: int, seed: int) -> None:
    name, arguments = VARIANTS[variant]
    labels = draw_labels(samples, classes, seed)
    before = labels.copy()
    shards = split(name, labels, n, seed, **arguments)
    assert len(shards) == n
    assert all(shard.ndim == 1 and np.issubdtype(shard.dtype, np.integer) for shard in shards)
    given = np.sort(np.concatenate(shards)).tolist()
    if variant in INCOMPLETE:
        assert len(set(given)) == len(given)
        assert set(given) <= set(range(samples))
    else:
        assert given == list(range(samples))
    if variant in BALANCED:
        sizes = [len(shard) for shard in shards]
        assert max(sizes) - min(sizes) <= BALANCED[variant]
    assert np.array_equal(labels, before)


@variants
def test_seed_decides(variant: str) -> None:
    name, arguments = VARIANTS[variant]
    labels = draw_labels(300, 10)
    first, again, other = (split(name, labels, 7, seed, **arguments) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(np.sort(a), np.sort(b)) for a, b in zip(first, other, strict=True))


@variants
def test_which_read_labels(variant: str) -> None:
    name, arguments = VARIANTS[variant]
    cls = partitions.get(name, TEMPLATE)
    labels = draw_labels(200, 5)
    same = all(
        np.array_equal(a, b)
        for a, b in zip(
            split(name, labels, 4, **arguments), split(name, np.zeros_like(labels), 4, **arguments), strict=True
        )
    )
    if not cls.reads_labels(**arguments):
        assert same
    elif "similarity 1" not in variant and variant != "extreme, one group":  # where all samples are treated alike
        assert not same


@pytest.mark.parametrize("name", sorted(SPLITTING))
def test_arguments_are_named_with_defaults_that_check_and_split_share(name: str) -> None:
    cls = partitions[name]
    own = explicit_parameters(cls.split, CONTEXT)
    assert all(parameter.default is not parameter.empty for parameter in own.values())
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in own.values())
    checked = explicit_parameters(cls.check, {"n"})
    assert {key: p.default for key, p in checked.items()}.items() <= {key: p.default for key, p in own.items()}.items()
    assert inspect.getdoc(cls)


@pytest.mark.parametrize("name", sorted(SPLITTING))
def test_default_arguments_give_every_node_data(name: str) -> None:
    labels = np.repeat(np.arange(10), 144)
    assert min(len(shard) for seed in range(20) for shard in split(name, labels, 11, seed)) > 0


def test_names() -> None:
    assert {*partitions} >= {
        "shared",
        "iid",
        "dirichlet",
        "gamma-similarity",
        "extreme",
        "shards",
        "mixing",
        "quantity",
    }
    assert "template" not in partitions
    with pytest.raises(UserError, match=r"unknown partition 'idd', expected one of: dirichlet, extreme, .*shards"):
        partitions["idd"]


def test_shared_splits_nothing() -> None:
    partitions["shared"].check(n=3)
    assert not partitions["shared"].reads_labels()
    with pytest.raises(TypeError, match="shared: it splits nothing, all workers read one stream"):
        split("shared", draw_labels(10, 2), 3)


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("dirichlet", {"alpha": 0}, "dirichlet: expected alpha above 0 and at most 1e+06, got 0"),
        ("dirichlet", {"alpha": 1_000_001}, "dirichlet: expected alpha above 0 and at most 1e+06, got 1000001"),
        ("dirichlet", {"alpha": float("nan")}, "dirichlet: expected alpha above 0 and at most 1e+06, got nan"),
        ("dirichlet", {"alpha": True}, "dirichlet: expected a number as alpha, got True"),
        ("quantity", {"alpha": -1}, "quantity: expected alpha above 0 and at most 1e+06, got -1"),
        ("quantity", {"alpha": 1e7}, "quantity: expected alpha above 0 and at most 1e+06, got 10000000.0"),
        ("quantity", {"alpha": "much"}, "quantity: expected a number as alpha, got 'much'"),
        ("gamma-similarity", {"gamma": -0.1}, "gamma-similarity: expected gamma from 0 to 1, got -0.1"),
        ("gamma-similarity", {"gamma": 1.1}, "gamma-similarity: expected gamma from 0 to 1, got 1.1"),
        ("gamma-similarity", {"gamma": None}, "gamma-similarity: expected a number as gamma, got None"),
        ("extreme", {"groups": 0}, "extreme: expected groups from 1 to 7, got 0"),
        ("extreme", {"groups": 8}, "extreme: expected groups from 1 to 7, got 8"),
        ("extreme", {"groups": 2.0}, "extreme: expected a whole number as groups, got 2.0"),
        ("extreme", {"by": "classes"}, "extreme: expected samples or labels as by, got 'classes'"),
        ("extreme", {"samples": 0}, "extreme: expected samples of at least 1, got 0"),
        ("iid", {"samples": 0}, "iid: expected samples of at least 1, got 0"),
        ("iid", {"samples": 1.5}, "iid: expected a whole number as samples, got 1.5"),
        ("shards", {"per_node": 0}, "shards: expected per-node of at least 1, got 0"),
        ("shards", {"per_node": 1.5}, "shards: expected a whole number as per-node, got 1.5"),
        ("shards", {"similarity": -1e-9}, "shards: expected similarity from 0 to 1, got -1e-09"),
        ("shards", {"similarity": 1.01}, "shards: expected similarity from 0 to 1, got 1.01"),
        ("shards", {"similarity": 0.5, "per_node": 2}, "shards: expected per-node or similarity, got both"),
        ("mixing", {"share": 1.5}, "mixing: expected share from 0 to 1, got 1.5"),
        ("mixing", {"share": "half"}, "mixing: expected a number as share, got 'half'"),
        ("mixing", {"first": "shared"}, "mixing: expected a partition that splits as first, got 'shared'"),
        ("mixing", {"second": 3}, "mixing: expected a partition that splits as second, got 3"),
        ("mixing", {"second": "idd"}, "unknown partition 'idd', expected one of: dirichlet"),
        ("mixing", {"first_args": {"alpha": 1}}, "mixing: first-args: iid has no argument 'alpha', expected: samples"),
        ("mixing", {"second_args": {"groups": 8}}, "extreme: expected groups from 1 to 7, got 8"),
        (
            "mixing",
            {"second_args": {3: 8}},
            "mixing: second-args: extreme has no argument '3', expected: groups, by, samples",
        ),
        ("mixing", {"second_args": 8}, "mixing: second-args: expected a dictionary such as {'alpha':1}, got 8"),
        ("template", {"ratio": 0.5}, "template: expected ratio from 1 to 1000, got 0.5"),
    ],
)
def test_impossible_arguments(name: str, arguments: dict[str, Any], error: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(error)):
        split(name, draw_labels(20, 3), 7, **arguments)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("dirichlet", {"alpha": 1e-300}),
        ("dirichlet", {"alpha": 1_000_000}),
        ("quantity", {"alpha": 1_000_000}),
        ("gamma-similarity", {"gamma": 0}),
        ("gamma-similarity", {"gamma": 1}),
        ("extreme", {"groups": 1}),
        ("extreme", {"groups": 7}),
        ("shards", {"per_node": 1}),
        ("shards", {"similarity": 0}),
        ("shards", {"similarity": 1}),
        ("mixing", {"share": 0}),
        ("mixing", {"share": 1}),
        ("mixing", {"second_args": {"groups": 7}}),
        ("mixing", {"first": "shards", "first_args": {"per-node": 3}}),
        ("template", {"ratio": 1}),
    ],
)
def test_limits_are_possible(name: str, arguments: dict[str, Any]) -> None:
    assert len(split(name, draw_labels(20, 3), 7, **arguments)) == 7


def test_sorted_at_random() -> None:
    labels = draw_labels(200, 4)
    order = sorted_at_random(labels, np.random.default_rng(1))
    assert labels[order].tolist() == sorted(labels.tolist())
    assert order[labels[order] == 2].tolist() != np.flatnonzero(labels == 2).tolist()


@given(shares=st.lists(st.floats(0, 1), min_size=1, max_size=20), size=st.integers(0, 200), seed=st.integers(0, 99))
def test_cut_is_within_one_of_the_shares(shares: list[float], size: int, seed: int) -> None:
    shares = np.array(shares) + 1e-9
    shares /= shares.sum()
    parts = cut(np.arange(size), shares, np.random.default_rng(seed))
    assert np.concatenate(parts).tolist() == list(range(size))
    assert len(parts) == len(shares)
    assert (abs(np.array([len(part) for part in parts]) - shares * size) < 1 + 1e-9).all()


def test_cut_is_right_on_average() -> None:
    shares = np.array([0.17, 0.05, 0.48, 0.3])
    rng = np.random.default_rng(0)
    sizes = [[len(part) for part in cut(np.arange(3), shares, rng)] for _ in range(4_000)]
    assert np.mean(sizes, axis=0) == pytest.approx(3 * shares, abs=0.03)


def test_iid_has_equal_labels() -> None:
    labels = np.repeat(np.arange(4), 5_000)
    assert counts(split("iid", labels, 5), labels) == pytest.approx(np.full((5, 4), 1_000), abs=150)


def test_dirichlet_shares_are_those_drawn() -> None:
    labels = draw_labels(30_000, 3)
    rng = np.random.default_rng(9)
    table = counts(split("dirichlet", labels, 6, seed=9, alpha=0.8), labels)
    for label in range(3):
        size = (labels == label).sum()
        rng.permutation(size)
        assert (abs(table[:, label] - size * rng.dirichlet(np.full(6, 0.8))) < 1).all()
        rng.random()


def test_dirichlet_from_one_node_per_class_to_equal_shares() -> None:
    labels = np.repeat(np.arange(10), 600)
    table = counts(split("dirichlet", labels, 6, alpha=1e-300), labels)
    assert (np.sort(table, axis=0)[-1] == 600).all()
    table = counts(split("dirichlet", labels, 6, alpha=1e6), labels)
    assert abs(table - 100).max() <= 2
    spreads = [
        np.mean([counts(split("dirichlet", labels, 6, seed, alpha=a), labels).std() for seed in range(10)])
        for a in (0.01, 0.1, 1, 10, 100)
    ]
    assert spreads == sorted(spreads, reverse=True)
    deviation = 600 * np.sqrt(1 / 6 * 5 / 6 / (6 * 10 + 1))  # that of a Dirichlet(10) share
    assert spreads[3] == pytest.approx(deviation, rel=0.1)


def test_rounding_favours_no_node() -> None:
    labels = np.repeat(np.arange(200), 3)  # too few for 10 nodes: without a draw the same three would have all
    assert min(map(len, split("dirichlet", labels, 10, alpha=1e6))) > 30


def test_extreme_sorts() -> None:
    labels = draw_labels(1_000, 10)
    shards = split("extreme", labels, 7)
    assert np.concatenate([np.sort(labels[shard]) for shard in shards]).tolist() == sorted(labels.tolist())


@pytest.mark.parametrize(
    ("n", "groups", "ranges"),
    [(20, 2, [(0, 4)] * 10 + [(5, 9)] * 10), (5, 2, [(0, 5)] * 3 + [(6, 9)] * 2), (3, 1, [(0, 9)] * 3)],
)
def test_extreme_groups_share_a_part(n: int, groups: int, ranges: list[tuple[int, int]]) -> None:
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(10), 100))
    table = counts(split("extreme", labels, n, groups=groups), labels)
    for row, (first, last) in zip(table, ranges, strict=True):
        assert np.flatnonzero(row).tolist() == list(range(first, last + 1))
        assert row[first : last + 1] == pytest.approx(row.sum() / (last - first + 1), rel=0.6)


@pytest.mark.parametrize(
    ("n", "groups", "numbers"),
    [
        (20, 2, [[0, 1, 2]] * 10 + [[3, 4]] * 10),
        (4, 3, [[0, 1]] * 2 + [[2, 3], [4]]),
        (7, 7, [[0], [1], [2], [3], [4], [], []]),
    ],
)
def test_extreme_by_labels_has_no_label_in_two_groups(n: int, groups: int, numbers: list[list[int]]) -> None:
    labels = np.random.default_rng(5).permutation(np.repeat(np.arange(5), [300, 70, 200, 90, 60]))
    shards = split("extreme", labels, n, groups=groups, by="labels")
    assert [np.unique(labels[shard]).tolist() for shard in shards] == numbers
    assert sum(map(len, shards)) == len(labels)


def test_nodes_have_no_more_samples_than_are_asked_for() -> None:
    labels = np.repeat(np.arange(10), 100)
    for name, arguments in (("iid", {}), ("extreme", {"groups": 2})):
        assert [len(shard) for shard in split(name, labels, 20, samples=7, **arguments)] == [7] * 20
        whole = split(name, labels, 20, samples=60, **arguments)  # more than there are
        assert [len(shard) for shard in whole] == [50] * 20
    table = counts(split("extreme", labels, 20, groups=2, samples=40), labels)
    assert (table[:10, :5].sum(1) == 40).all()
    assert (table[10:, 5:].sum(1) == 40).all()
    assert (table[:10, :5] > 0).mean() > 0.9  # at random, not the first labels


def test_gamma_similarity_mixes_iid_with_sorted() -> None:
    labels = np.repeat(np.arange(10), 1_000)
    table = counts(split("gamma-similarity", labels, 10, gamma=0.3), labels)
    for node in range(10):
        assert table[node, node] == pytest.approx(730, abs=80)
        assert np.delete(table[node], node) == pytest.approx(30, abs=80)
    assert counts(split("gamma-similarity", labels, 10, gamma=0), labels).tolist() == np.diag([1_000] * 10).tolist()
    assert counts(split("gamma-similarity", labels, 10, gamma=1), labels) == pytest.approx(100, abs=45)
    mixture = split("mixing", labels, 10, share=0.3)
    assert all(map(np.array_equal, split("gamma-similarity", labels, 10, gamma=0.3), mixture))


def test_shards_of_mcmahan() -> None:
    labels = np.repeat(np.arange(10), 600)
    shards = split("shards", labels, 100)  # 200 shards of 30 samples, 20 of each label
    table = counts(shards, labels)
    assert (table.sum(axis=1) == 60).all()
    assert set(np.unique(table)) == {0, 30, 60}
    assert len({tuple(row) for row in table}) > 20  # dealt at random
    assert all(map(np.array_equal, shards, split("shards", labels, 100, per_node=2)))


@pytest.mark.parametrize(("similarity", "shards"), [(0, 10), (0.25, 32), (0.5, 100), (0.75, 316), (1, 1_000)])
def test_number_of_shards_grows_geometrically(similarity: float, shards: int) -> None:
    labels = np.arange(1_000)
    given = split("shards", labels, 10, similarity=similarity)
    ends = np.array_split(labels, shards)
    assert all({*end} <= {*given[node]} for end in ends for node in range(10) if end[0] in given[node])  # kept whole
    sizes = [sum(end[0] in shard for end in ends) for shard in given]
    assert sum(sizes) == shards
    assert max(sizes) - min(sizes) <= 1


def test_mixing_gives_shares_to_both() -> None:
    labels = np.repeat(np.arange(4), 1_000)
    arguments = {"first": "extreme", "second": "shards", "second_args": {"per-node": 1}, "first_args": {"groups": 2}}
    table = counts(split("mixing", labels, 4, share=0.75, **arguments), labels)
    assert table[:2, :2] == pytest.approx(375, abs=260)
    assert table[:2, :2].sum() >= 1_500 - 150
    assert table[2:, 2:].sum() >= 1_500 - 150
    assert table.sum(axis=1) == pytest.approx(1_000, abs=2)
    only = [split("mixing", labels, 4, share=share, first="quantity", second="iid") for share in (0, 1)]
    assert [np.ptp([len(shard) for shard in shards]) > 10 for shards in only] == [False, True]


def test_quantity_sizes_are_shares_after_one_each() -> None:
    labels = np.repeat(np.arange(5), 2_000)
    shards = split("quantity", labels, 8, seed=4, alpha=0.3)
    rng = np.random.default_rng(4)
    rng.permutation(10_000)
    sizes = np.array([len(shard) for shard in shards])
    assert (abs(sizes - 1 - 9_992 * rng.dirichlet(np.full(8, 0.3))) < 1).all()
    largest = counts(shards, labels)[sizes.argmax()]
    assert largest == pytest.approx(sizes.max() / 5, rel=0.15)
    assert min(len(shard) for shard in split("quantity", labels[:8], 8, alpha=1e-300)) == 1
    assert sorted(len(shard) for shard in split("quantity", labels, 8, alpha=1e-300)) == [1] * 7 + [9_993]


def test_template_gives_the_last_node_more() -> None:
    sizes = [len(shard) for shard in split("template", draw_labels(600, 3), 5, ratio=5)]
    assert sizes == pytest.approx([40, 80, 120, 160, 200], abs=1)
