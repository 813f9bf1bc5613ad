"""Mixing of one round, by a mixer of its own."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from aggregators import gars
from experiments.defence import Defence, Defender
from experiments.exchange import Sent
from experiments.mixing import Mixer
from tests.experiments.test_exchange import exchange

HEARD = [[0, 1, 3], [1, 2, 4], [2, 0, 3], [3, 1, 4], [4, 0, 2]]


def vectors() -> Tensor:
    return torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def defender(rule: str) -> Defender:
    return Defender([Defence(gars[rule], {})], 1, 1, torch.device("cpu"))


def state(mixer: Mixer) -> str:
    if mixer.defender is None:
        return ""
    found = mixer.defender.state_dict()
    return repr(({name: generator.tolist() for name, generator in found["generators"].items()}, found["states"]))


@pytest.mark.parametrize("rule", [None, "average", "nna", "median", "dnc", "clippedclustering"])
def test_a_rehearsal_is_the_mean_of_honest_nodes_and_leaves_no_trace(rule: str | None) -> None:
    mixer = Mixer(None if rule is None else defender(rule))
    around, sent = exchange(HEARD, 4), Sent(vectors(), 3)  # the fourth node poisons, and mixes as well
    for step in range(3):
        before = state(mixer)
        rehearsed = mixer.rehearse(around, sent, step=step)
        assert state(mixer) == before
        mixed = torch.empty(4, 7, dtype=torch.float64)
        mixer(around, sent, mixed, step=step)
        assert_close(rehearsed, mixed[:3].mean(dim=0))


@pytest.mark.parametrize("rule", [None, "average", "nna", "median"])
def test_one_node_gets_what_all_at_once_get(rule: str | None) -> None:
    mixer = Mixer(None if rule is None else defender(rule), frozenset({2}))
    around, sent = exchange([HEARD[0], [1, 4], *HEARD[2:]], 3), Sent(vectors(), 3)
    mixed = torch.empty(3, 7, dtype=torch.float64)
    accepted = mixer(around, sent, mixed, step=0)
    for node in range(3):
        senders, weights = around.of(node)
        received = sent.rows[senders]
        result, shares = mixer.one(node, weights, received, pivot=received[0], step=0)
        assert_close(result, mixed[node])
        if accepted is not None:
            assert_close((shares * (senders >= 3)).sum().double(), accepted[node])
    assert (accepted is None) == (rule == "median")
    if rule is not None:
        assert torch.equal(mixed[1], sent.rows[1])


@pytest.mark.parametrize("rule", [None, "average", "nna", "krum"])
def test_weights_that_are_known_need_no_copies_of_vectors(rule: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Mixer, "_aggregate")
    everybody = [[node, *(other for other in range(5) if other != node)] for node in range(5)]
    mixed = torch.empty(4, 7, dtype=torch.float64)
    Mixer(None if rule is None else defender(rule))(exchange(everybody, 4), Sent(vectors(), 4), mixed, step=0)
    assert mixed.isfinite().all()
