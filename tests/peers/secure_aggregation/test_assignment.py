import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.secure_aggregation.assignment import Assignment, Contact, decode_assignment
from peers.secure_aggregation.messages import ASSIGNMENT, ProtocolError, pack, unpack
from peers.secure_aggregation.tree import Group, draw_tree


def key(number: int) -> bytes:
    return bytes([number]) * 32


def assignments(n: int, *, group_size: int = 3, num_actors: int = 2, combined: bool = False) -> dict[bytes, Assignment]:
    """Return what each peer of a round is told."""
    tree = draw_tree([key(i) for i in range(n)], group_size, num_actors, random.Random(n), combined=combined)
    contacts = {key(i): Contact(1000 + i, f"tcp://host:{i}") for i in range(n)}

    def of(peer: bytes) -> Assignment:
        groups = tuple(tree.of(peer))
        known = {member for group in groups for member in group.members}
        return Assignment(b"r" * 32, 2, n, b"l" * 32, b"s" * 32, groups, {each: contacts[each] for each in known})

    return {peer: of(peer) for peer in tree.peers}


@given(st.integers(3, 60), st.booleans())
def test_what_a_peer_is_told_comes_over_the_wire_and_is_possible(n: int, combined: bool) -> None:
    for peer, assignment in assignments(n, combined=combined).items():
        decoded = decode_assignment(assignment.encode())
        assert decoded == assignment
        decoded.check(peer)


def test_exact_bytes() -> None:
    group = Group(0, 0, True, (key(1), key(2), key(3)), (key(3), key(1)))
    contacts = {key(i): Contact(i, f"tcp://host:{i}") for i in (1, 2, 3)}
    assignment = Assignment(b"r" * 32, 1, 3, b"l" * 32, b"s" * 32, (group,), contacts)
    peers = b"".join(
        b"\x93" + b"\xc4\x20" + key(i) + bytes([i]) + b"\xac" + f"tcp://host:{i}".encode() for i in (1, 2, 3)
    )
    row = b"\x96" + b"\x00\x00\xc3" + b"\x93" + peers + b"\x92\x02\x00" + b"\x90"
    common = b"\xc4\x20" + b"r" * 32 + b"\x01\x03" + b"\xc4\x20" + b"l" * 32 + b"\xc4\x20" + b"s" * 32
    assert assignment.encode() == b"\x96" + common + b"\x91" + row
    assert assignment.digest(group) == hashlib.sha256(b"byzantium assignment 1\0\x96" + common + row).digest()


def test_members_agree_on_what_they_were_told() -> None:
    told = assignments(12)
    for assignment in told.values():
        for group in assignment.groups:
            assert {told[member].digest(group) for member in group.members} == {assignment.digest(group)}
    digests = {assignment.digest(group) for assignment in told.values() for group in assignment.groups}
    assert len(digests) == len({group for assignment in told.values() for group in assignment.groups})


@pytest.mark.parametrize(
    "change",
    [
        {"round": b"q" * 32},
        {"attempt": 3},
        {"n": 11},
        {"layout_digest": b"m" * 32},
        {"settings_digest": b"t" * 32},
        "session",
        "address",
        "number",
        "level",
        "is_root",
        "members",
        "actors",
        "origins",
    ],
)
def test_whatever_is_told_otherwise_changes_the_digest(change: dict[str, Any] | str) -> None:
    assignment = assignments(12)[key(0)]
    group = assignment.groups[0]
    other, changed = assignment, group
    first = group.members[0]
    if isinstance(change, dict):
        other = replace(assignment, **change)
    elif change in ("session", "address"):
        contact = replace(assignment.contacts[first], **{change: {"session": 1, "address": "tcp://other:1"}[change]})
        other = replace(assignment, contacts={**assignment.contacts, first: contact})
    else:
        changes = {
            "number": 99,
            "level": 1,
            "is_root": True,
            "members": group.members[::-1],
            "actors": group.actors[::-1],
            "origins": tuple((0, 0) for _ in group.members),
        }
        changed = replace(group, **{change: changes[change]})
    assert other.digest(changed) != assignment.digest(group)


def actor_on_top(told: dict[bytes, Assignment]) -> bytes:
    """Return an actor of the root."""
    return next(peer for peer, each in told.items() if peer in each.groups[-1].actors)


def leaf(told: dict[bytes, Assignment]) -> bytes:
    """Return a peer that is no actor."""
    return next(peer for peer, each in told.items() if len(each.groups) == 1 and peer not in each.groups[0].actors)


def changed(assignment: Assignment, place: int, **changes: Any) -> Assignment:
    groups = list(assignment.groups)
    groups[place] = replace(groups[place], **changes)
    return replace(assignment, groups=tuple(groups))


Forgery = Callable[[Assignment, bytes], Assignment]
FORGERIES: dict[str, Forgery] = {
    "levels do not count up": lambda a, own: changed(a, 0, level=1),
    "numbers do not count up": lambda a, own: changed(a, 1, number=a.groups[0].number),
    "not a member": lambda a, own: changed(
        a, 0, members=(key(200), key(201), *(m for m in a.groups[0].members if m != own))
    ),
    "not a member above": lambda a, own: changed(a, 1, members=tuple(m for m in a.groups[1].members if m != own)),
    "above without being an actor": lambda a, own: changed(
        a, 0, actors=tuple(m for m in a.groups[0].members if m != own)[:2]
    ),
    "a member twice": lambda a, own: changed(a, 0, members=(*a.groups[0].members, own)),
    "an actor twice": lambda a, own: changed(a, 0, actors=(*a.groups[0].actors, own)),
    "a single actor": lambda a, own: changed(a, 0, actors=(own,)),
    "a pair": lambda a, own: changed(a, 0, members=a.groups[0].actors),
    "a single actor above": lambda a, own: changed(a, 1, actors=a.groups[1].actors[:1]),
    "an actor of a group with nothing above": lambda a, own: replace(a, groups=a.groups[:1]),
    "more members than peers": lambda a, own: replace(a, n=len(a.contacts) - 1),
    "a root below": lambda a, own: changed(a, 0, is_root=True),
    "columns below": lambda a, own: changed(a, 0, origins=tuple((i, 0) for i, _ in enumerate(a.groups[0].members))),
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_groups_that_hide_nothing_or_are_no_part_of_a_tree_are_refused(forgery: Forgery) -> None:
    told = assignments(9)
    own = actor_on_top(told)
    told[own].check(own)
    replace(told[own], n=len(told[own].contacts)).check(own)
    with pytest.raises(ProtocolError, match="impossible group"):
        forgery(told[own], own).check(own)


@pytest.mark.parametrize("n", [2, 4, 1000])
def test_a_single_group_is_of_as_many_as_there_are(n: int) -> None:
    told = assignments(3)
    told[key(0)].check(key(0))
    with pytest.raises(ProtocolError, match="impossible group"):
        replace(told[key(0)], n=n).check(key(0))


def test_each_column_of_a_group_stands_for_three_peers() -> None:
    told = assignments(9, combined=True)
    own = actor_on_top(told)
    replace(told[own], n=9).check(own)
    with pytest.raises(ProtocolError, match="impossible group"):
        replace(told[own], n=8).check(own)


def test_nobody_is_told_of_no_groups() -> None:
    told = assignments(9)
    with pytest.raises(ProtocolError, match="no groups"):
        replace(told[key(0)], groups=()).check(key(0))


def test_a_leaf_has_one_group() -> None:
    told = assignments(9)
    own = leaf(told)
    told[own].check(own)
    upper = next(each.groups[1] for each in told.values() if len(each.groups) > 1)
    above = replace(upper, members=(*upper.members, own))
    with pytest.raises(ProtocolError, match="impossible group"):
        replace(told[own], groups=(*told[own].groups, above)).check(own)


def swapped(origins: tuple[tuple[int, int], ...], one: int, other: int) -> tuple[tuple[int, int], ...]:
    places = list(origins)
    places[one], places[other] = places[other], places[one]
    return tuple(places)


def test_columns_must_be_a_table_of_groups_and_actors() -> None:
    told = assignments(9, combined=True)
    own = actor_on_top(told)
    root, below = told[own].groups[1], told[own].groups[0]
    place = root.members.index(own)
    another = next(i for i, origin in enumerate(root.origins) if i != place and origin[1] == root.origins[place][1])
    column = next(i for i, origin in enumerate(root.origins) if origin[0] == below.number and i != place)
    forgeries = [
        changed(told[own], 1, is_root=False),
        changed(told[own], 1, origins=swapped(root.origins, place, another)),  # own place is that in another group
        changed(told[own], 1, origins=swapped(root.origins, place, column)),  # own column is another
        changed(told[own], 1, actors=root.actors[::-1]),
        changed(told[own], 1, origins=(root.origins[1], *root.origins[1:])),
        changed(told[own], 1, members=root.members[:-1], origins=root.origins[:-1]),
        changed(told[own], 1, origins=tuple((number, 5 if p else 0) for number, p in root.origins)),
    ]
    for forgery in forgeries:
        with pytest.raises(ProtocolError, match="impossible group"):
            forgery.check(own)


def test_no_place_in_the_table_is_taken_twice_or_missing() -> None:
    told = assignments(9, combined=True)
    own = actor_on_top(told)
    root = told[own].groups[1]
    taken = {root.members.index(actor) for actor in root.actors}
    place = next(
        i for i in range(6) if i not in taken and root.origins[i][0] not in {root.origins[j][0] for j in taken}
    )
    twice = next(i for i in range(6) if i != place and root.origins[i][1] == root.origins[place][1])
    for other in (root.origins[twice], (root.origins[place][0], 5)):
        origins = (*root.origins[:place], other, *root.origins[place + 1 :])
        with pytest.raises(ProtocolError, match="impossible group"):
            changed(told[own], 1, origins=origins).check(own)


def test_only_a_root_has_columns_for_its_plain_members_too() -> None:
    told = assignments(9, combined=True)
    own = next(peer for peer, each in told.items() if len(each.groups) == 2 and peer not in each.groups[1].actors)
    told[own].check(own)
    with pytest.raises(ProtocolError, match="impossible group"):
        changed(told[own], 1, is_root=False).check(own)


def test_a_root_of_columns_is_directly_above_the_groups() -> None:
    told = assignments(30)
    own = next(peer for peer, each in told.items() if len(each.groups) == 3)
    below, _, top = told[own].groups
    column = below.actors.index(own)
    members = [own, *(member for member in top.members if member != own)][: len(top.members) // 2 * 2]
    table = [(i // 2 if i > 1 else below.number, (i + column) % 2) for i in range(len(members))]
    actors = tuple(members[(column + c) % 2] for c in (0, 1))
    above = {"members": tuple(members), "actors": actors, "origins": tuple(table), "is_root": True, "number": 99}
    forged = changed(told[own], 2, **above)
    changed(replace(forged, groups=(below, forged.groups[2])), 1, level=1).check(own)
    with pytest.raises(ProtocolError, match="impossible group"):
        forged.check(own)


def rows(assignment: Assignment) -> list[Any]:
    return unpack(ASSIGNMENT, assignment.encode())


def test_groups_that_do_not_fit_together_are_refused() -> None:
    told = assignments(9)
    assignment = told[actor_on_top(told)]
    for damage in ("actor", "origins", "session"):
        values = rows(assignment)
        group = values[5][1]
        if damage == "actor":
            group[4][0] = len(group[3])
        elif damage == "origins":
            group[5] = [[0, 0]]
        else:
            group[3][0][1] += 1  # whether the same as below or not
            group[3][1][1] += 1
            group[3][2][1] += 1
        with pytest.raises(ProtocolError, match="impossible group"):
            decode_assignment(pack(values))


def test_the_last_member_may_be_an_actor() -> None:
    told = assignments(3)
    values = rows(told[key(0)])
    values[5][0][4] = [2, 1]
    assert decode_assignment(pack(values)).groups[0].actors == tuple(
        decode_assignment(pack(values)).groups[0].members[i] for i in (2, 1)
    )
