import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.secure_aggregation.tree import Group, Tree, check_sizes, draw_tree
from tools.errors import UserError

PAIR = "as in a pair each knows the other's model"


@st.composite
def sizes(draw: st.DrawFn, most: int = 300) -> tuple[int, int, int]:
    """Return n, group_size and num_actors that go together."""
    group_size = draw(st.integers(3, 8))
    return draw(st.integers(group_size, most)), group_size, draw(st.integers(2, group_size - 1))


def names(n: int) -> list[bytes]:
    return [index.to_bytes(2, "big") for index in range(n)]


def levels(tree: Tree) -> list[list[Group]]:
    return [[group for group in tree.groups if group.level == level] for level in range(tree.root.level + 1)]


def check_groups(tree: Tree, num_actors: int) -> None:
    assert [group.number for group in tree.groups] == list(range(len(tree.groups)))
    assert [group.is_root for group in tree.groups] == [False] * (len(tree.groups) - 1) + [True]
    for group in tree.groups:
        assert len(set(group.members)) == len(group.members)
        assert len(set(group.actors)) == len(group.actors) == num_actors
        assert set(group.actors) <= set(group.members)


@given(sizes(), st.integers(0, 99))
def test_every_peer_takes_part_once_a_level_and_actors_go_on(size: tuple[int, int, int], seed: int) -> None:
    n, group_size, num_actors = size
    tree = draw_tree(names(n), group_size, num_actors, random.Random(seed))
    check_groups(tree, num_actors)
    participants = names(n)
    for groups in levels(tree):
        assert sorted(member for group in groups for member in group.members) == sorted(participants)
        if len(participants) >= group_size:
            assert all(group_size <= len(group.members) < 2 * group_size for group in groups)
        participants = [actor for group in groups for actor in group.actors]
    assert len(groups) == 1
    assert not any(group.origins for group in tree.groups)
    assert tree.root is tree.groups[-1]
    assert sorted(tree.peers) == names(n)


@given(sizes(most=3000))
def test_depth_grows_with_the_logarithm_of_the_number_of_peers(size: tuple[int, int, int]) -> None:
    n, group_size, num_actors = size
    depth = len(levels(draw_tree(names(n), group_size, num_actors, random.Random(0))))
    assert depth <= math.ceil(math.log(n, group_size / num_actors)) + 2


@given(sizes(), st.integers(0, 99))
def test_in_a_combined_tree_each_root_actor_keeps_one_column(size: tuple[int, int, int], seed: int) -> None:
    n, group_size, num_actors = size
    tree = draw_tree(names(n), group_size, num_actors, random.Random(seed), combined=True)
    check_groups(tree, num_actors)
    groups, (root,) = levels(tree)
    assert sorted(member for group in groups for member in group.members) == names(n)
    assert all(group_size <= len(group.members) < 2 * group_size for group in groups)
    assert not any(group.origins for group in groups)
    places = {(group.number, place): actor for group in groups for place, actor in enumerate(group.actors)}
    assert dict(zip(root.origins, root.members, strict=True)) == places
    for column, actor in enumerate(root.actors):
        assert root.origins[root.members.index(actor)][1] == column


@given(sizes())
def test_own_groups_begin_at_the_bottom_and_end_where_a_peer_is_no_actor(size: tuple[int, int, int]) -> None:
    n, group_size, num_actors = size
    tree = draw_tree(names(n), group_size, num_actors, random.Random(1))
    for peer in names(n):
        own = tree.of(peer)
        assert [group.level for group in own] == list(range(len(own)))
        assert all(peer in group.actors for group in own[:-1])
        assert own[-1].is_root or peer not in own[-1].actors


def test_providers_share_the_work() -> None:
    members = tuple(names(11))
    group = Group(0, 0, True, members, members[4:7])
    served = Counter(group.provider(member) for member in members if member not in group.actors)
    assert served.keys() == set(group.actors)
    assert max(served.values()) - min(served.values()) <= 1


def test_trees_are_drawn_by_the_generator() -> None:
    draws = [draw_tree(names(20), 3, 2, random.Random(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_all_peers_are_equally_likely_to_be_actors_and_meet_each_other() -> None:
    rng, actors, met = random.Random(3), Counter(), Counter()
    for _ in range(2000):
        tree = draw_tree(names(6), 3, 2, rng)
        for group in tree.groups[:-1]:
            actors.update(group.actors)
            met.update((group.members[0], member) for member in group.members[1:])
    for peer in names(6):
        assert actors[peer] == pytest.approx(2000 * 4 / 6, abs=150)
        assert len([pair for pair in met if pair[0] == peer]) == 5


@pytest.mark.parametrize(
    ("peers", "found"), [([], "0 of 0"), (names(2), "2 of 2"), ([*names(3), b"\0\0"], "3 of 4"), ([b"x"] * 3, "1 of 3")]
)
def test_peers_who_make_no_group_are_refused(peers: list[bytes], found: str) -> None:
    with pytest.raises(ValueError, match=f"expected more than 2 different peers, got {found}"):
        draw_tree(peers, 3, 2, random.Random(0))


def test_as_few_peers_as_one_more_than_actors_make_a_group() -> None:
    (group,) = draw_tree(names(3), 4, 2, random.Random(0)).groups
    assert group.is_root
    assert sorted(group.members) == names(3)


def test_sizes() -> None:
    check_sizes(3, 2)
    check_sizes(9, 8)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((2, 2), f"group_size: expected a whole number of at least 3, {PAIR}, got 2"),
        ((4.0, 2), f"group_size: expected a whole number of at least 3, {PAIR}, got 4.0"),
        ((3, 1), "num_actors: expected a whole number of at least 2, as one alone would see models, got 1"),
        ((3, True), "num_actors: expected a whole number of at least 2, as one alone would see models, got True"),
        ((3, 3), "num_actors: expected fewer than group_size = 3, got 3"),
    ],
)
def test_sizes_that_hide_nothing_are_refused(sizes: tuple[int, int], text: str) -> None:
    with pytest.raises(UserError) as caught:
        check_sizes(*sizes)
    assert str(caught.value) == text
