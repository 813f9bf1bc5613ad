import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from peers.secure_aggregation.assignment import Assignment, Contact
from peers.secure_aggregation.attempt import Attempt
from peers.secure_aggregation.combining import Combination
from peers.secure_aggregation.messages import NO_ROUND, TENSORS, Header, Kind, Message, ProtocolError
from peers.secure_aggregation.profiles import AverageAdditiveSharingModelProfile, Prepared
from peers.secure_aggregation.shares import encrypt, expand, from_bytes
from peers.secure_aggregation.tree import Group, draw_tree

PROFILE = AverageAdditiveSharingModelProfile(digits_to_keep=2, clip=100)


def key(number: int) -> bytes:
    return bytes([number]) * 32


@dataclass
class Sent:
    """A message on its way."""

    sender: bytes
    receiver: bytes
    message: Message


def any_message(sent: Sent) -> bool:
    return True


class Table:
    """All attempts of a round, and what they send, which comes when the test says so."""

    def __init__(
        self, n: int, *, group_size: int = 3, num_actors: int = 2, combination: Combination | None = None, seed: int = 0
    ) -> None:
        rng = random.Random(seed)
        peers = [key(i) for i in range(n)]
        self.tree = draw_tree(peers, group_size, num_actors, rng, combined=combination is not None)
        self.root = self.tree.root
        contacts = {peer: Contact(1, "tcp://host:1") for peer in peers}
        self.models = {peer: {"w": np.round(np.array([i, -i, i / 4]), 2)} for i, peer in enumerate(peers)}
        self.prepared = {peer: PROFILE.prepare(model) for peer, model in self.models.items()}
        self.flying: list[Sent] = []
        self.sent: list[Sent] = []
        self.told: list[tuple[bytes, Kind, tuple[Any, ...], int]] = []
        self.attempts: dict[bytes, Attempt] = {}
        for peer in peers:
            groups = tuple(self.tree.of(peer))
            assignment = Assignment(b"r" * 32, 0, n, b"l" * 32, b"s" * 32, groups, contacts)
            self.attempts[peer] = Attempt(
                own_key=peer,
                assignment=assignment,
                profile=PROFILE,
                prepared=self.prepared[peer],
                combination=combination,
                send=self._sender(peer),
                tell_server=self._teller(peer),
            )
        for attempt in self.attempts.values():
            attempt.start()

    def _sender(self, peer: bytes) -> Callable[..., None]:
        def send(receiver: bytes, kind: Kind, *values: Any, body: Any = None, group: int) -> None:
            content = bytes(body) if kind in TENSORS else list(values)
            self.flying.append(Sent(peer, receiver, Message(kind, NO_ROUND, 0, group, content)))
            self.sent.append(self.flying[-1])

        return send

    def _teller(self, peer: bytes) -> Callable[..., None]:
        def tell(kind: Kind, *values: Any, group: int = 0) -> None:
            self.told.append((peer, kind, values, group))

        return tell

    def give(self, sent: Sent, *, acknowledge: bool = True) -> None:
        """Let a message come, as a peer would take it."""
        self.attempts[sent.receiver].check_awaited(sent.sender, header_of(sent.message))
        self.attempts[sent.receiver].handle(sent.sender, sent.message)
        if acknowledge:
            self.attempts[sent.sender].delivered(sent.receiver, sent.message)

    def run(self, chosen: Callable[[Sent], bool] = any_message, *, acknowledge: bool = True) -> None:
        """Let all chosen messages come, and what they lead to."""
        while coming := [sent for sent in self.flying if chosen(sent)]:
            for sent in coming:
                self.flying.remove(sent)
                if self.attempts[sent.receiver].packed is None:
                    self.give(sent, acknowledge=acknowledge)

    def run_but(self, *kinds: Kind) -> None:
        self.run(lambda sent: sent.message.kind not in kinds)

    def of(self, kind: Kind, sender: bytes | None = None) -> list[Sent]:
        """Return messages of a kind that have been sent."""
        return [sent for sent in self.sent if sent.message.kind == kind and sender in (None, sent.sender)]

    def heard(self, kind: Kind) -> dict[bytes, tuple[Any, ...]]:
        """Return what the server was told."""
        return {peer: values for peer, told, values, _ in self.told if told == kind}

    def open(self) -> None:
        keys = {peer: values[0] for peer, values in self.heard(Kind.READY).items()}
        for actor in self.root.actors:
            self.attempts[actor].open(keys)

    def mean(self) -> bytes:
        total = PROFILE.aggregate(list(self.prepared.values()))
        return PROFILE.pack(PROFILE.unprepare(total), total.layout)


def header_of(message: Message, **changes: Any) -> Header:
    length = len(message.body) if message.kind in TENSORS else 1
    header = Header(message.kind, message.round, message.attempt, message.group, bytes(32), 0, 0, 0, 1, length)
    return header._replace(**changes)


def leaf(table: Table) -> bytes:
    """Return a peer that is no actor."""
    return next(peer for peer in table.tree.peers if peer not in table.tree.of(peer)[0].actors)


@pytest.mark.parametrize(("n", "group_size", "num_actors"), [(3, 3, 2), (7, 3, 2), (13, 4, 3), (20, 5, 2)])
def test_all_get_the_mean(n: int, group_size: int, num_actors: int) -> None:
    table = Table(n, group_size=group_size, num_actors=num_actors)
    table.run()
    assert not any(attempt.packed for attempt in table.attempts.values())
    table.open()
    table.run()
    assert {attempt.packed for attempt in table.attempts.values()} == {table.mean()}
    assert table.heard(Kind.DONE).keys() == table.attempts.keys()
    assert len(table.of(Kind.RESULT)) == n - num_actors  # each peer once, but for root actors


@pytest.mark.parametrize("num_actors", [2, 3, 4])
def test_each_actor_gets_one_share_and_all_are_needed(num_actors: int) -> None:
    table = Table(13, group_size=5, num_actors=num_actors)
    table.run_but(Kind.SEALED)
    for group in table.tree.groups[:-1]:
        for member in group.members:
            given = [
                sent
                for kind in (Kind.SHARE, Kind.SEED)
                for sent in table.of(kind, member)
                if sent.message.group == group.number
            ]
            assert sorted(sent.receiver for sent in given) == sorted(set(group.actors) - {member})
            seeds = [sent.message.body[0] for sent in given if sent.message.kind == Kind.SEED]
            assert len(seeds) == num_actors - 1  # an actor keeps the vector, which depends on the model, to itself
            if member not in group.actors:
                (words,) = [from_bytes(sent.message.body) for sent in given if sent.message.kind == Kind.SHARE]
                total = sum((expand(seed, len(words)) for seed in seeds), words)
                assert (total == table.prepared[member].values).all() or group.level > 0
    seeds = [sent.message.body[0] for sent in table.of(Kind.SEED)]
    assert len(set(seeds)) == len(seeds)
    assert not any((from_bytes(sent.message.body) == 0).any() for sent in table.of(Kind.SHARE))


def test_nobody_hands_out_anything_before_all_members_were_told_the_same() -> None:
    table = Table(7)
    group = table.tree.groups[0]
    silent, waiting = group.members[0], group.members[1]
    table.run(
        lambda sent: (
            (sent.sender, sent.receiver, sent.message.group, sent.message.kind)
            != (silent, waiting, group.number, Kind.CONFIRM)
        )
    )
    assert not table.of(Kind.SHARE, waiting)
    assert not [sent for sent in table.of(Kind.SEED, waiting) if sent.message.group == group.number]
    assert table.of(Kind.SHARE, silent) + table.of(Kind.SEED, silent)
    assert table.attempts[waiting].waits_for() >= {silent}
    table.run()
    table.open()
    table.run()
    assert table.attempts[waiting].packed == table.mean()


def test_members_who_were_told_different_things_find_out() -> None:
    table = Table(7)
    confirm = table.of(Kind.CONFIRM)[0]
    with pytest.raises(ProtocolError, match="different assignments"):
        table.give(replace(confirm, message=replace(confirm.message, body=[bytes(32)])))


@pytest.mark.parametrize("order", [1, -1])
def test_the_server_hears_when_others_need_nothing_more_of_a_peer(order: int) -> None:
    table = Table(3)
    peer = leaf(table)
    attempt = table.attempts[peer]
    table.run(acknowledge=False)
    acknowledged = table.of(Kind.CONFIRM, peer) + table.of(Kind.SHARE, peer) + table.of(Kind.SEED, peer)
    assert len(acknowledged) == 4
    for sent in acknowledged[::order]:
        assert peer not in table.heard(Kind.DELIVERED)
        assert sent.receiver in attempt.waits_for()
        attempt.delivered(sent.receiver, sent.message)
    assert peer in table.heard(Kind.DELIVERED)
    assert not attempt.waits_for()
    assert [told[0] for told in table.told] == [peer]


def test_delivered_is_told_once_for_every_group() -> None:
    table = Table(12)
    table.run()
    told = [(peer, group) for peer, kind, _, group in table.told if kind == Kind.DELIVERED]
    assert sorted(told) == sorted((peer, group.number) for group in table.tree.groups for peer in group.members)


def test_sums_are_sealed_until_all_root_actors_have_all() -> None:
    table = Table(13, group_size=4, num_actors=3)
    table.run(acknowledge=False)
    assert len(table.of(Kind.SEALED)) == 6
    assert not table.heard(Kind.READY)
    for sent in table.sent:
        if sent.message.kind != Kind.SEALED:
            table.attempts[sent.sender].delivered(sent.receiver, sent.message)
    assert not table.heard(Kind.READY)
    for sent in table.of(Kind.SEALED):
        assert sent.sender not in table.heard(Kind.READY)
        assert sent.receiver in table.attempts[sent.sender].waits_for()
        table.attempts[sent.sender].delivered(sent.receiver, sent.message)
    keys = {peer: values[0] for peer, values in table.heard(Kind.READY).items()}
    assert keys.keys() == set(table.root.actors)
    opened = {sent.sender: encrypt(keys[sent.sender], from_bytes(sent.message.body)) for sent in table.of(Kind.SEALED)}
    total = sum(opened.values(), np.zeros(4, np.uint64))
    assert (total == PROFILE.aggregate(list(table.prepared.values())).values).all()
    assert not any(np.intersect1d(opened[s.sender], from_bytes(s.message.body)).size for s in table.of(Kind.SEALED))


def test_keys_open_nothing_before_a_root_actor_is_ready_or_if_they_are_not_those_of_all() -> None:
    table = Table(13, group_size=4, num_actors=3)
    table.run_but(Kind.SEALED)
    actor = table.root.actors[0]
    attempt = table.attempts[actor]
    attempt.open({each: bytes(32) for each in table.root.actors})
    table.run()
    keys = {peer: values[0] for peer, values in table.heard(Kind.READY).items()}
    attempt.open({each: keys[each] for each in table.root.actors[:2]})
    attempt.open(keys | {leaf(table): bytes(32)})
    table.attempts[leaf(table)].open(keys)
    assert attempt.packed is None
    attempt.open(keys)
    assert attempt.packed == table.mean()


def test_without_a_server_root_actors_open_the_keys_when_all_have_promised() -> None:
    table = Table(13, group_size=4, num_actors=3)
    for attempt in table.attempts.values():
        attempt.lose_server()
    table.run_but(Kind.SEALED, Kind.PREPARED)
    assert not table.of(Kind.PREPARED)
    table.run_but(Kind.PREPARED)
    assert {sent.sender for sent in table.of(Kind.PREPARED)} == set(table.root.actors)
    assert len(table.of(Kind.PREPARED)) == 6
    last = table.flying[-1]
    table.run(lambda sent: sent != last and sent.message.kind != Kind.KEY)
    others = set(table.root.actors) - {last.receiver}
    assert {sent.sender for sent in table.of(Kind.KEY)} == others  # one has yet to hear of the promise of another
    assert {actor for actor in table.root.actors if table.attempts[actor].released} == others
    assert not any(attempt.packed for attempt in table.attempts.values())
    table.run()
    assert {attempt.packed for attempt in table.attempts.values()} == {table.mean()}


def test_a_root_actor_that_has_its_server_promises_nothing() -> None:
    table = Table(7)
    one, other = table.root.actors
    table.run()
    table.attempts[one].lose_server()
    table.run()
    assert not table.of(Kind.KEY)
    table.attempts[other].lose_server()
    table.run()
    assert {attempt.packed for attempt in table.attempts.values()} == {table.mean()}


def test_a_key_that_comes_before_its_senders_promise_is_one() -> None:
    table = Table(7)
    one, other = table.root.actors
    for actor in table.root.actors:
        table.attempts[actor].lose_server()
    table.run(lambda sent: sent.message.kind != Kind.PREPARED or sent.receiver == one)
    assert table.attempts[other].packed == table.mean()
    assert [sent.sender for sent in table.of(Kind.KEY)] == [one, other]
    table.run()
    assert table.attempts[one].packed == table.mean()


def test_a_key_without_a_sum_opens_nothing() -> None:
    table = Table(7)
    one, other = table.root.actors
    table.run(lambda sent: sent.message.kind != Kind.SEALED or sent.sender == one)
    table.attempts[one].handle(other, Message(Kind.KEY, NO_ROUND, 0, table.root.number, [bytes(32)]))
    assert table.attempts[one].packed is None


def test_who_withholds_something() -> None:
    table = Table(7)
    peer, actor = leaf(table), table.root.actors[0]
    assert all(attempt.withholds() for attempt in table.attempts.values())
    table.run(lambda sent: sent.message.kind == Kind.CONFIRM)
    assert not table.attempts[peer].withholds()
    above = [each for each in table.tree.peers if len(table.tree.of(each)) > 1]
    assert all(table.attempts[each].withholds() for each in above)  # their sums
    table.run_but(Kind.SEALED)
    for each in above:
        assert table.attempts[each].withholds() is (each in table.root.actors)
    table.run()
    assert table.attempts[actor].withholds()  # its key is with the server only, and opens nothing there
    table.attempts[actor].lose_server()
    assert not table.attempts[actor].withholds()  # others may give away theirs from now on


def test_a_frozen_root_actor_keeps_its_key_and_takes_those_of_others() -> None:
    table = Table(7)
    one, other = table.root.actors
    for actor in table.root.actors:
        table.run()
        table.attempts[actor].lose_server()
    table.attempts[one].freeze()
    table.run()
    assert [sent.sender for sent in table.of(Kind.KEY)] == [other]
    assert not table.attempts[one].released
    assert table.attempts[one].packed == table.mean()
    assert table.attempts[other].packed is None


def test_two_frozen_root_actors_open_nothing() -> None:
    table = Table(13, group_size=4, num_actors=3)
    table.run()
    for actor in table.root.actors:
        table.attempts[actor].lose_server()
    for actor in table.root.actors[:2]:
        table.attempts[actor].freeze()
    table.run()
    assert {sent.sender for sent in table.of(Kind.KEY)} == {table.root.actors[2]}
    assert not any(attempt.packed for attempt in table.attempts.values())


def test_for_whom_a_peer_waits() -> None:
    table = Table(6)
    group = next(group for group in table.tree.groups if group.level == 0)
    actor, other = group.actors
    (plain,) = set(group.members) - set(group.actors)
    attempt = table.attempts[actor]
    upper = set(table.root.members) - {actor}
    assert attempt.waits_for() == {other, plain} | upper
    within = {*group.members}
    table.run(lambda sent: sent.message.kind == Kind.CONFIRM and {sent.sender, sent.receiver} <= within)
    # who gives no share because it waits for others itself is not to blame
    assert table.attempts[actor].waits_for() >= {other, plain}
    table.run(lambda sent: sent.message.kind == Kind.CONFIRM)
    table.run(lambda sent: sent.message.kind in (Kind.SHARE, Kind.SEED) and sent.sender != plain)
    assert plain in attempt.waits_for()
    assert plain not in table.attempts[plain].waits_for()
    assert table.attempts[plain].waits_for() <= set(group.actors)
    table.run_but(Kind.SEALED)
    for each in table.root.actors:
        assert table.attempts[each].waits_for() == set(table.root.actors) - {each}
    first = table.root.actors[0]
    table.run(lambda sent: sent.sender == first)
    assert table.attempts[first].waits_for() == set(table.root.actors) - {first}  # for its sum
    table.run()
    assert not any(attempt.waits_for() for attempt in table.attempts.values())


def test_who_lacks_a_confirmation_waits_for_it_and_not_for_shares() -> None:
    table = Table(3)
    (group,) = table.tree.groups
    actor, other = group.actors
    (plain,) = set(group.members) - set(group.actors)
    table.run(lambda sent: sent.sender != plain)
    assert table.attempts[actor].waits_for() == table.attempts[other].waits_for() == {plain}


def ready_table() -> tuple[Table, Group, Group]:
    """Return attempts in which all were told the same, a group below, and the root."""
    table = Table(7)
    table.run(lambda sent: sent.message.kind == Kind.CONFIRM)
    return table, table.tree.groups[0], table.root


def refusal(table: Table, receiver: bytes, sender: bytes, kind: Kind, group: int, **changes: Any) -> str | None:
    message = Message(kind, NO_ROUND, 0, group, b"" if kind in TENSORS else [])
    try:
        table.attempts[receiver].check_awaited(sender, header_of(message, **changes))
    except ProtocolError as error:
        return error.reason
    return None


def test_what_is_not_awaited_is_refused_by_reason() -> None:
    table, group, root = ready_table()
    actor = group.actors[0]
    member = next(each for each in group.members if each not in group.actors)
    stranger = next(each for each in table.tree.peers if each not in group.members)
    words = 8 * 4
    shares = {"group": group.number, "length": words}
    assert refusal(table, actor, member, Kind.SHARE, **shares) is None
    assert refusal(table, actor, member, Kind.SEED, group.number) is None
    assert refusal(table, actor, member, Kind.CONFIRM, group.number) == "repeated"
    assert refusal(table, actor, member, Kind.SHARE, 77, length=words) == "unknown group"
    assert refusal(table, actor, stranger, Kind.SHARE, **shares) == "wrong sender"
    assert refusal(table, actor, stranger, Kind.CONFIRM, group.number) == "wrong sender"
    assert refusal(table, member, actor, Kind.SHARE, **shares) == "wrong receiver"
    assert refusal(table, actor, member, Kind.SHARE, group.number, length=words - 8) == "wrong length"
    assert refusal(table, actor, member, Kind.SHARE, group.number, length=words + 8) == "wrong length"
    assert refusal(table, actor, actor, Kind.SHARE, **shares) == "repeated"  # it has its own
    table.run(lambda sent: sent.sender == member and sent.receiver == actor)
    assert refusal(table, actor, member, Kind.SHARE, **shares) == "repeated"
    assert refusal(table, actor, member, Kind.SEED, group.number) == "repeated"
    for kind in (Kind.SEALED, Kind.PREPARED, Kind.KEY):
        assert refusal(table, actor, member, kind, **shares) == "wrong sender"
    one, other = root.actors
    for kind in (Kind.SEALED, Kind.PREPARED, Kind.KEY):
        assert refusal(table, one, other, kind, root.number, length=words) is None
        assert refusal(table, one, one, kind, root.number, length=words) == "wrong sender"
    assert refusal(table, one, other, Kind.SEALED, root.number, length=words - 8) == "wrong length"
    assert refusal(table, one, other, Kind.HELLO, root.number) == "wrong kind"
    plain = next(each for each in root.members if each not in root.actors)
    assert refusal(table, one, plain, Kind.KEY, root.number) == "wrong sender"
    table.run_but(Kind.PREPARED)
    assert refusal(table, one, other, Kind.SEALED, root.number, length=words) == "repeated"
    for kind, values in ((Kind.PREPARED, []), (Kind.KEY, [bytes(32)])):
        assert refusal(table, one, other, kind, root.number) is None
        table.attempts[one].handle(other, Message(kind, NO_ROUND, 0, root.number, values))
        assert refusal(table, one, other, kind, root.number) == "repeated"  # so that nobody makes progress of it


@pytest.mark.parametrize("combined", [False, True])
@pytest.mark.parametrize("n", [8, 10])
def test_a_sum_over_other_numbers_of_peers_than_told_is_refused(n: int, combined: bool) -> None:
    table = Table(9, combination=Combination("median", 1) if combined else None)
    table.run()
    for actor in table.root.actors:
        table.attempts[actor].assignment = replace(table.attempts[actor].assignment, n=n)
    table.open()
    for actor in table.root.actors:
        assert table.attempts[actor].packed is None
        assert f"expected a sum of weights of {n} to {n}, got 9" in table.attempts[actor].problem


def test_the_mean_of_a_group_is_never_that_of_fewer_than_three() -> None:
    table = Table(9, combination=Combination("median", 1))
    one, other = table.tree.groups[0].members[0], table.tree.groups[1].members[0]
    for peer, weight in ((one, 2**64 - 1), (other, 3)):  # 1 and 5 in their groups, 9 in all
        table.prepared[peer].values[-1] = weight
    table.run()
    table.open()
    assert {table.attempts[actor].packed for actor in table.root.actors} == {None}
    assert "expected a sum of weights of 3 to 9, got 1" in table.attempts[table.root.actors[0]].problem


def test_results_come_from_those_whose_task_it_is() -> None:
    table, group, root = ready_table()
    peer = next(each for each in group.members if each not in group.actors)
    right = group.provider(peer)
    (wrong,) = set(group.actors) - {right}
    assert refusal(table, peer, right, Kind.RESULT, group.number, length=24) is None
    assert refusal(table, peer, right, Kind.RESULT, group.number, length=23) == "wrong length"
    assert refusal(table, peer, wrong, Kind.RESULT, group.number, length=24) == "wrong sender"
    table.attempts[peer].helpers.add(wrong)
    assert refusal(table, peer, wrong, Kind.RESULT, group.number, length=24) is None
    one, other = root.actors
    assert refusal(table, one, other, Kind.RESULT, root.number, length=24) is None
    assert refusal(table, one, peer, Kind.RESULT, root.number, length=24) == "wrong sender"


def test_a_second_share_of_a_peer_is_not_added() -> None:
    table, _, _ = ready_table()
    share = next(sent for sent in table.flying if sent.message.kind == Kind.SHARE)
    table.give(share)
    for kind, body in ((Kind.SHARE, share.message.body), (Kind.SEED, [bytes(32)])):
        with pytest.raises(ProtocolError, match="repeated"):
            table.attempts[share.receiver].handle(share.sender, replace(share.message, kind=kind, body=body))
    table.flying.remove(share)
    table.run()
    table.open()
    assert table.attempts[table.root.actors[0]].packed == table.mean()


def test_a_damaged_sum_is_told() -> None:
    table = Table(3)
    peer = leaf(table)
    values = np.array([0, 0, 0, 2**64 - 5], dtype=np.uint64)
    table.attempts[peer]._values[0] = Prepared(table.prepared[peer].layout, values)
    table.run()
    table.open()
    for actor in table.root.actors:
        assert table.attempts[actor].packed is None
        assert table.attempts[actor].problem == (
            "the sum of all models was opened, and there is no average: expected a sum of weights of 3 to 3, got -3: "
            "somebody has damaged it, or lied about the number of peers"
        )


@pytest.mark.parametrize(("n", "num_actors"), [(3, 2), (9, 2), (14, 2), (16, 3)])
def test_a_rule_sees_the_means_of_groups(n: int, num_actors: int) -> None:
    table = Table(n, group_size=num_actors + 1, num_actors=num_actors, combination=Combination("median", 0))
    table.run()
    table.open()
    table.run()
    groups = [group for group in table.tree.groups if group.level == 0]
    means = [np.mean([table.models[member]["w"] for member in group.members], axis=0) for group in groups]
    (packed,) = {attempt.packed for attempt in table.attempts.values()}
    assert np.frombuffer(packed) == pytest.approx(np.median(means, axis=0), abs=1e-12)
    assert table.heard(Kind.DELIVERED).keys() == table.attempts.keys()


def test_columns_come_from_the_right_actors_as_vectors() -> None:
    table = Table(9, combination=Combination("median", 0))
    root = table.root
    table.run(lambda sent: sent.message.group != root.number or sent.message.kind == Kind.CONFIRM)
    places = dict(zip(root.members, root.origins, strict=True))
    for column, actor in enumerate(root.actors):
        for member in root.members:
            right = places[member][1] == column
            for kind in (Kind.SHARE, Kind.SEED):
                reason = refusal(table, actor, member, kind, root.number, length=32)
                if kind == Kind.SEED:
                    assert reason == "wrong kind"
                elif not right:
                    assert reason == "wrong sender"
                else:
                    assert reason == ("repeated" if member == actor else None)
    table.run()
    other = root.actors[1]
    assert len(table.of(Kind.SEALED)[0].message.body) == 3 * 32
    assert refusal(table, root.actors[0], other, Kind.SEALED, root.number, length=96) == "repeated"


def test_sealed_columns_have_a_row_for_every_group() -> None:
    table = Table(9, combination=Combination("median", 0))
    one, other = table.root.actors
    assert refusal(table, one, other, Kind.SEALED, table.root.number, length=96) is None
    assert refusal(table, one, other, Kind.SEALED, table.root.number, length=64) == "wrong length"
