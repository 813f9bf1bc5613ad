"""Who receives what, by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments.exchange import DENSE_SHARE, Exchange, Sent
from experiments.network import Neighbourhoods

HEARD = [[0, 1, 3], [1, 0], [2, 1], [3, 0, 2]]
"""Whom each of three honest nodes and a Byzantine one hears."""


def exchange(heard: list[list[int]] = HEARD, receivers: int = 3) -> Exchange:
    offsets = np.cumsum([0, *map(len, heard)])
    weights = np.concatenate([np.arange(1, 1 + len(senders)) / 10 for senders in heard])
    return Exchange(Neighbourhoods(offsets, np.concatenate(heard), weights), receivers, torch.device("cpu"))


def test_receivers_are_grouped_by_how_many_vectors_they_receive() -> None:
    groups = {
        group.size: (group.receivers.tolist(), group.senders.tolist(), group.weights.tolist())
        for group in exchange().groups
    }
    assert groups == {
        2: ([1, 2], [[1, 0], [2, 1]], [[0.1, 0.2], [0.1, 0.2]]),
        3: ([0], [[0, 1, 3]], [[0.1, 0.2, 0.3]]),
    }


def test_what_one_node_receives() -> None:
    senders, weights = exchange().of(2)
    assert (senders.tolist(), weights.tolist()) == ([2, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="expected a node from 0 to 2, got 3"):
        exchange().of(3)


def test_matrices_are_of_all_nodes() -> None:
    weights, adjacency = exchange().weights, exchange().adjacency
    assert weights.dtype == torch.float64
    assert weights.tolist() == [[0.1, 0.2, 0, 0.3], [0.2, 0.1, 0, 0], [0, 0.2, 0.1, 0], [0.2, 0, 0.3, 0.1]]
    assert adjacency.dtype == torch.bool
    assert adjacency.int().tolist() == [[0, 1, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0]]


@pytest.mark.parametrize(("others", "dense"), [(1, False), (2, True)])
def test_dense_is_more_than_a_share_of_all_pairs(others: int, dense: bool) -> None:
    n = 32
    assert n * 2 == DENSE_SHARE * n**2
    assert exchange([[node, *((node + k) % n for k in range(1, 1 + others))] for node in range(n)], n).dense == dense


def rows(sent: Sent, around: Exchange) -> list[list[float]]:
    """Return the first value of each vector that each node receives."""
    received: dict[int, list[float]] = {}
    for group in around.groups:
        vectors = sent.rows[sent.index(group)][..., 0]
        received |= dict(zip(group.receivers.tolist(), vectors.tolist(), strict=True))
    return [received[node] for node in sorted(received)]


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("f", [1, 2])
def test_what_is_sent_to_one_node_alone_reaches_it(f: int, alike: bool) -> None:
    heard = [[0, 1, 2, *range(3, 3 + f)], [1, 0, *range(3, 3 + f)], [2, 1], *([node] for node in range(3, 3 + f))]
    vectors = torch.tensor([[0.0], [1.0], [2.0], *[[torch.nan]] * f])
    byzantine = torch.tensor([[[10.0 * (node + 1) + k] for k in range(f)] for node in range(3)])
    if alike:
        byzantine = byzantine[:, :1].expand(-1, f, -1)
    found = rows(Sent.of(vectors, byzantine, 3), exchange(heard))
    expected = [[0.0, 1.0, 2.0, *byzantine[0, :, 0].tolist()], [1.0, 0.0, *byzantine[1, :, 0].tolist()], [2.0, 1.0]]
    assert found == expected


@pytest.mark.parametrize(
    ("byzantine", "copies"),
    [(torch.ones(3, 2), 1), (torch.ones(2).expand(3, -1), 3), (torch.ones(2).expand(1, -1), 1), (torch.ones(0, 2), 1)],
)
def test_equal_rows_are_seen_to_be_equal(byzantine: Tensor, copies: int) -> None:
    assert Sent.of(torch.ones(5, 2), byzantine, 2).copies == copies
