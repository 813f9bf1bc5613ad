from dataclasses import replace
from typing import Any

import pytest

from peers.secure_aggregation import channel, messages
from peers.secure_aggregation import peer as peer_module
from peers.secure_aggregation.assignment import CONTEXT, Assignment, Contact
from peers.secure_aggregation.combining import Combination
from peers.secure_aggregation.messages import NO_ROUND, Kind
from peers.secure_aggregation.settings import Settings
from tests.peers.secure_aggregation.scene import LATER_ROUND, PROFILE, ROUND, SETTINGS, TIMEOUT_S, Scene

LOST = "in the middle of a round that cannot go on without it; whether the sum has been opened is unknown, so that the "
LOST += "round is not repeated"


@pytest.fixture
def scene() -> Scene:
    return Scene()


# Assignments


def test_a_peer_tells_the_members_of_its_groups_what_it_was_told(scene: Scene) -> None:
    assignment = scene.begin("actor")
    assert len(assignment.groups) == 2
    for group in assignment.groups:
        for member in set(group.members) - {scene.own.key}:
            confirms = [message for message in scene.voice(member).of(Kind.CONFIRM) if message.group == group.number]
            assert [(each.round, each.attempt, each.body) for each in confirms] == [
                (ROUND, 0, [assignment.digest(group)])
            ]
    assert scene.peer.contacts == assignment.contacts


def test_a_wrong_signature_is_dropped(scene: Scene) -> None:
    scene.welcome()
    scene.wish()
    data = scene.assignment().encode()
    for signature in (bytes(64), scene.server.identity.sign(data), scene.own.sign(CONTEXT + data)):
        scene.say(Kind.ASSIGN, data, signature, round=ROUND)
    assert scene.peer.dropped == {"wrong signature": 3}
    assert scene.peer.attempt is None
    assert not scene.peer.wish.is_over


def test_an_assignment_must_be_awaited(scene: Scene) -> None:
    scene.welcome()
    scene.assign(scene.assignment())
    assert scene.peer.dropped["not awaited"] == 1  # there is no wish
    scene.wish()
    contacts = dict(scene.assignment().contacts)
    contacts[scene.own.key] = Contact(scene.peer.session - 1, "tcp://own:1")
    scene.assign(scene.assignment(contacts=contacts))
    assert scene.peer.dropped["not awaited"] == 2  # an earlier process was meant, or one that gave up
    assert scene.peer.attempt is None
    scene.assign(scene.assignment(attempt=1))
    assert scene.peer.attempt.assignment.attempt == 1
    scene.assign(scene.assignment(attempt=0))
    scene.assign(scene.assignment(attempt=2, round=LATER_ROUND))
    scene.assign(scene.assignment(attempt=1))
    assert scene.peer.dropped == {"not awaited": 3, "wrong attempt": 2}
    scene.assign(scene.assignment(attempt=5))
    assert scene.peer.attempt.assignment.attempt == 5


STRANGER = "the server put a stranger into this peer's group, key {}, whose certificate is not here"
ITSELF = "the server put itself into this peer's group, to see its model or others'"
OTHER = "the server's assignment is for other models, or other settings"
MEANS = "the server's assignment would show means of groups, or not, other than its settings say"


def forged(scene: Scene, what: str) -> tuple[Assignment, str]:
    """Return an assignment that a peer must not follow, and what it says of it."""
    assignment = scene.assignment("root")
    if what == "stranger":
        stranger = next(key for key in assignment.contacts if key != scene.own.key)
        scene.permitted.remove(stranger)
        return assignment, STRANGER.format(stranger.hex())
    if what == "server":
        member = next(key for key in assignment.groups[1].members if key != scene.own.key)
        contacts = {scene.server.key if key == member else key: each for key, each in assignment.contacts.items()}
        groups = tuple(
            replace(
                group,
                members=tuple(scene.server.key if key == member else key for key in group.members),
                actors=tuple(scene.server.key if key == member else key for key in group.actors),
            )
            for group in assignment.groups
        )
        return replace(assignment, groups=groups, contacts=contacts), ITSELF
    if what == "means":
        below, root = assignment.groups
        rest = [member for member in root.members if member not in below.actors]
        table = [below.actors, rest]
        column = below.actors.index(scene.own.key)
        actors = tuple(table[place != column][place] for place in (0, 1))
        origins = ((below.number, 0), (below.number, 1), (9, 0), (9, 1))
        above = replace(root, number=10, members=(*below.actors, *rest), actors=actors, origins=origins)
        return replace(assignment, groups=(below, above)), MEANS
    changes = {
        "few": ({"n": 6}, "the server's assignment: expected at least 7 peers (min_peers), got 6"),
        "layout": ({"layout_digest": bytes(32)}, OTHER),
        "settings": ({"settings_digest": bytes(32)}, OTHER),
        "pair": (
            {"groups": (replace(assignment.groups[0], members=assignment.groups[0].actors), assignment.groups[1])},
            "the server's assignment: impossible group",
        ),
        "overflow": (
            {"n": (1 << 31) - 1},
            "the server's assignment: expected n · max_weight · clip · 10^digits below 2^63 (9.223e+18), got "
            "2147483647 · 5 · 1000 · 10^6 = 1.074e+19; lower digits_to_keep, clip or max_weight",
        ),
    }
    changed, text = changes[what]
    return replace(assignment, **changed), text


@pytest.mark.parametrize("what", ["stranger", "server", "few", "layout", "settings", "pair", "overflow", "means"])
def test_what_a_peer_will_not_follow_ends_its_wish(scene: Scene, what: str) -> None:
    scene.welcome()
    wish = scene.wish()
    session = scene.peer.session
    assignment, text = forged(scene, what)
    scene.peer.min_peers = 7 if what == "few" else 6
    scene.assign(assignment)
    assert wish.error == text
    assert scene.peer.attempt is None
    hello = scene.server.take(Kind.HELLO)  # for the server, this peer is a new process
    assert hello.body == [scene.peer.session, "tcp://own:1"]
    assert scene.peer.session > session
    assert not any(voice.of(Kind.CONFIRM) for voice in scene.others)


def test_a_root_without_columns_is_not_followed_where_there_is_a_rule() -> None:
    scene = Scene(settings=Settings(PROFILE, Combination("median", 0), TIMEOUT_S))
    scene.welcome()
    wish = scene.wish()
    assignment = scene.assignment("root")
    scene.assign(replace(assignment, groups=(assignment.groups[0], replace(assignment.groups[1], origins=()))))
    assert wish.error == MEANS


def test_columns_are_followed_where_there_is_a_rule() -> None:
    scene = Scene(settings=Settings(PROFILE, Combination("median", 0), TIMEOUT_S))
    assert scene.begin("root").groups[1].origins
    leaf = Scene(settings=Settings(PROFILE, Combination("median", 0), TIMEOUT_S))
    leaf.begin("leaf")


def test_own_key_must_be_in_the_groups(scene: Scene) -> None:
    scene.welcome()
    wish = scene.wish()
    assignment = scene.assignment()
    group = assignment.groups[0]
    others = [voice.key for voice in scene.others if voice.key not in group.members]
    members = tuple(others[0] if member == scene.own.key else member for member in group.members)
    contacts = {member: Contact(1, "tcp://x:1") for member in members}
    scene.assign(replace(assignment, groups=(replace(group, members=members),), contacts=contacts))
    assert wish.error == "the server's assignment: impossible group"


# What comes early


def test_confirmations_that_come_before_the_assignment_are_kept(scene: Scene) -> None:
    scene.welcome()
    scene.wish()
    assignment = scene.assignment()
    (group,) = assignment.groups
    scene.confirm(assignment, group)
    stranger = next(voice for voice in scene.others if voice.key not in group.members)
    where = {"round": ROUND, "group": group.number}
    scene.stage.say(stranger, Kind.CONFIRM, bytes(32), **where)
    scene.stage.say(scene.voice(group.actors[0]), Kind.CONFIRM, bytes(32), **where | {"group": 99})
    assert not scene.peer.dropped
    scene.assign(assignment)
    assert not scene.peer.wish.is_over
    shares = [scene.voice(actor).of(kind) for actor in group.actors for kind in (Kind.SHARE, Kind.SEED)]
    assert sum(map(len, shares)) == 2
    assert not scene.peer._early


def test_confirmations_of_the_next_attempt_are_kept(scene: Scene) -> None:
    scene.begin()
    for attempt, reason in ((1, None), (2, "wrong attempt")):
        following = scene.assignment(attempt=attempt)
        (group,) = following.groups
        before = scene.peer.dropped["wrong attempt"]
        scene.confirm(following, group)
        assert scene.peer.dropped["wrong attempt"] - before == (0 if reason is None else 2)
    following = scene.assignment(attempt=1)
    scene.assign(following)
    assert scene.peer.attempt._confirmed == {following.groups[0].number: set(following.groups[0].members)}


def test_early_confirmations_are_limited(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "MOST_EARLY", 3)
    scene.welcome()
    scene.wish()
    voice = scene.others[0]
    for attempt in range(3):
        scene.stage.say(voice, Kind.CONFIRM, bytes(32), round=ROUND, attempt=attempt)
    assert not scene.peer.dropped
    scene.stage.say(voice, Kind.CONFIRM, bytes(32), round=ROUND, attempt=4)
    assert scene.peer.dropped == {"wrong round": 1}
    assert sum(map(len, scene.peer._early.values())) == 3


def test_an_early_confirmation_of_something_else_ends_the_wish(scene: Scene) -> None:
    scene.welcome()
    wish = scene.wish()
    assignment = scene.assignment()
    for actor in assignment.groups[0].actors:
        where = {"round": ROUND, "group": assignment.groups[0].number}
        scene.stage.say(scene.voice(actor), Kind.CONFIRM, bytes(32), **where)
    scene.assign(assignment)
    assert wish.error == "the server told members of a group different things, so that models might have been exposed"
    assert scene.peer.attempt is None


def test_a_confirmation_of_something_else_ends_the_wish_and_the_round(scene: Scene) -> None:
    assignment = scene.begin()
    (group,) = assignment.groups
    where = {"round": ROUND, "group": group.number}
    scene.stage.say(scene.voice(group.actors[0]), Kind.CONFIRM, bytes(32), **where)
    assert scene.peer.wish.error == (
        "the server told members of a group different things, so that models might have been exposed"
    )
    assert scene.server.take(Kind.HELLO).body[0] == scene.peer.session
    assert scene.peer.dropped == {"different assignments": 1}
    scene.say(Kind.WELCOME, SETTINGS.to_text())
    scene.wish()
    scene.assign(scene.assignment(attempt=1))
    assert scene.peer.dropped["not awaited"] == 1  # never again in this round


def test_confirmations_of_a_later_attempt_wait_for_it(scene: Scene) -> None:
    scene.welcome()
    scene.wish()
    later = scene.assignment(attempt=2)
    other = scene.assignment(attempt=2, round=LATER_ROUND)
    for each in (later, other):
        scene.confirm(each, each.groups[0])
    for attempt in (0, 1):
        scene.assign(scene.assignment(attempt=attempt))
    scene.assign(later)
    assert set(scene.peer.attempt._confirmed[later.groups[0].number]) == set(later.groups[0].members)
    assert not scene.peer._early


# What other peers may say


def test_messages_of_other_rounds_attempts_and_senders_are_dropped(scene: Scene) -> None:
    assignment = scene.begin("root")
    group = assignment.groups[0]
    member = next(key for key in group.members if key != scene.own.key)
    share = {"round": ROUND, "group": group.number, "session": assignment.contacts[member].session, "sequence": 50}

    def whisper(kind: Kind = Kind.SHARE, sender: bytes = member, **changes: Any) -> str | None:
        return scene.stage.whisper(sender, kind, body=bytes(24), **share | changes)

    stranger = next(voice.key for voice in scene.others if voice.key not in assignment.contacts)
    assert whisper(round=LATER_ROUND) == "wrong round"
    assert whisper(round=NO_ROUND) == "wrong round"
    assert whisper(attempt=1) == "wrong attempt"
    assert whisper(group=77) == "unknown group"
    assert whisper(session=1) == "wrong session"
    assert scene.stage.whisper(stranger, Kind.SHARE, body=bytes(24), **share) == "wrong sender"
    assert scene.stage.whisper(member, Kind.SHARE, body=bytes(16), **share) == "wrong length"
    assert scene.stage.whisper(member, Kind.STATUS, 1, 2, **share) == "wrong sender"
    assert whisper(sender=member) is None
    assert whisper(sender=member) == "repeated"


def test_results_that_nobody_waits_for_are_acknowledged_so_that_their_senders_go_on(scene: Scene) -> None:
    scene.begin()
    voice = scene.others[0]
    scene.stage.say(voice, Kind.RESULT, body=bytes(16), round=LATER_ROUND)
    assert scene.peer.dropped == {"repeated": 1}
    assert voice.unsent() == 0


def test_what_is_told_twice_is_no_progress(scene: Scene) -> None:
    assignment = scene.assignment()
    scene.welcome()
    scene.wish()
    group = assignment.groups[0]
    member = next(key for key in group.members if key != scene.own.key)
    where = {"round": ROUND, "group": group.number, "session": assignment.contacts[member].session}
    confirm = [member, Kind.CONFIRM, assignment.digest(group)]
    assert scene.stage.whisper(*confirm, sequence=50, **where) is None
    assert scene.stage.whisper(*confirm, sequence=51, **where) == "repeated"  # early
    scene.assign(assignment)
    moved = scene.peer.chunks_moved
    assert scene.stage.whisper(*confirm, sequence=52, **where) == "repeated"
    scene.finish(assignment)
    assert scene.peer.chunks_moved > moved
    moved = scene.peer.chunks_moved
    assert scene.stage.whisper(member, Kind.PREPARED, sequence=53, **where) is None
    assert scene.stage.whisper(member, Kind.PREPARED, sequence=54, **where) == "repeated"
    assert scene.peer.chunks_moved == moved + 1


# The end of a round


def test_a_result_ends_the_wish(scene: Scene) -> None:
    assignment = scene.begin()
    began_s = scene.peer.clock_s
    scene.stage.wait(0.5)
    scene.finish(assignment, result=b"0123456789abcdef")
    wish = scene.peer.wish
    assert wish.packed == b"0123456789abcdef"
    assert wish.error is None
    assert wish.is_over
    assert wish.ended_s - wish.began_s == pytest.approx(0.5)
    assert wish.began_s == pytest.approx(began_s)
    assert scene.server.of(Kind.DONE)[0].round == ROUND
    assert scene.peer.attempt is None
    scene.finish(assignment)
    assert scene.peer.dropped == {"repeated": 1}


def test_results_are_given_to_whoever_the_server_says_for_two_rounds(scene: Scene) -> None:
    assignment = scene.begin()
    scene.finish(assignment, result=b"0123456789abcdef")
    stranger = next(voice for voice in scene.others if voice.key not in assignment.contacts)
    serve = [stranger.key, 12, "tcp://stranger:1"]
    scene.say(Kind.SERVE, serve, round=LATER_ROUND, attempt=0)
    assert not stranger.heard
    scene.say(Kind.SERVE, serve, round=ROUND, attempt=0)
    result = stranger.take(Kind.RESULT)
    assert (result.round, result.body) == (ROUND, b"0123456789abcdef")
    assert scene.peer.contacts[stranger.key] == Contact(12, "tcp://stranger:1")
    scene.permitted.remove(stranger.key)
    scene.say(Kind.SERVE, serve, round=ROUND, attempt=0)
    assert not stranger.heard
    scene.permitted.add(stranger.key)
    stranger.refuses.add(Kind.RESULT)
    for _ in range(5):
        scene.say(Kind.SERVE, serve, round=ROUND, attempt=0)
    assert len(scene.peer.channel(stranger.key)) == 1
    stranger.refuses.clear()
    scene.stage.wait(1.0)
    assert stranger.take(Kind.RESULT)
    for number in range(2):
        scene.wish()
        scene.finish(scene.assign(scene.assignment(round=bytes([number]) * 32)))
    scene.say(Kind.SERVE, serve, round=ROUND, attempt=0)
    assert not stranger.heard
    scene.say(Kind.SERVE, serve, round=bytes(32), attempt=0)
    assert stranger.take(Kind.RESULT)


def test_the_server_itself_is_never_given_a_result(scene: Scene) -> None:
    scene.finish(scene.begin())
    scene.server.heard.clear()
    itself = [scene.server.key, scene.server.session(scene.own.key), "tcp://server:1"]
    scene.say(Kind.SERVE, itself, round=ROUND, attempt=0)
    assert not scene.server.heard
    scene.wish()
    scene.assign(scene.assignment(round=LATER_ROUND))
    scene.say(Kind.EXPECT, itself, round=LATER_ROUND)
    assert not scene.peer.attempt.helpers


def test_a_root_actor_without_keys_is_given_the_result(scene: Scene) -> None:
    assignment = scene.begin()
    provider = scene.voice(scene.finish(assignment))
    provider.heard.clear()
    scene.stage.say(provider, Kind.PREPARED, round=ROUND, group=3)
    assert provider.take(Kind.RESULT).body == bytes(16)
    stranger = next(voice for voice in scene.others if voice.key not in assignment.contacts)
    scene.stage.say(stranger, Kind.PREPARED, round=ROUND, group=3)
    assert not stranger.heard
    scene.stage.say(provider, Kind.KEY, bytes(32), round=ROUND, group=3)
    assert not provider.heard
    assert scene.peer.dropped == {"repeated": 2}


def test_the_server_may_name_somebody_else_who_gives_the_result(scene: Scene) -> None:
    assignment = scene.begin()
    helper = next(voice for voice in scene.others if voice.key not in assignment.contacts)
    expect = [helper.key, helper.session(scene.own.key), "tcp://helper:1"]
    scene.permitted.remove(helper.key)
    scene.say(Kind.EXPECT, expect, round=ROUND)
    scene.permitted.add(helper.key)
    scene.say(Kind.EXPECT, expect, round=ROUND, attempt=1)
    scene.say(Kind.EXPECT, expect, round=LATER_ROUND)
    scene.stage.say(helper, Kind.RESULT, body=bytes(16), round=ROUND)
    assert scene.peer.dropped == {"wrong sender": 1}
    assert helper.key not in scene.peer.contacts
    scene.say(Kind.EXPECT, expect, round=ROUND)
    assert scene.peer.contacts[helper.key] == Contact(*expect[1:])
    scene.stage.wait(1.0)
    assert scene.peer.wish.packed == bytes(16)


def test_parts_of_a_result_are_forgotten_once_it_is_there(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assignment = scene.begin()
    monkeypatch.setattr(messages, "CHUNK_BYTES", 8)
    monkeypatch.setattr(channel, "CHUNK_BYTES", 8)
    helper = scene.others[0].key
    scene.peer.attempt.helpers.add(helper)
    half = {"round": ROUND, "session": scene.others[0].session(scene.own.key), "sequence": 77}
    half |= {"length": 16, "chunks": 2}
    assert scene.stage.whisper(helper, Kind.RESULT, body=bytes(8), **half) is None
    assert scene.peer._incoming[helper]._partial
    scene.finish(assignment)
    assert not scene.peer._incoming[helper]._partial
    assert scene.stage.whisper(helper, Kind.RESULT, body=bytes(8), chunk=1, **half) == "repeated"


def test_a_result_is_still_sent_while_the_next_round_is_on(scene: Scene) -> None:
    assignment = scene.begin()
    late = next(voice for voice in scene.others if voice.key not in assignment.contacts)
    late.refuses.add(Kind.RESULT)
    for number in range(3):
        scene.finish(scene.peer.attempt.assignment)
        scene.say(Kind.SERVE, [late.key, 12, "tcp://late:1"], round=bytes([number]) * 32 if number else ROUND)
        scene.wish()
        scene.assign(scene.assignment(round=bytes([number + 1]) * 32))
    late.refuses.clear()
    scene.stage.wait(5.0)
    assert [message.round[0] for message in late.of(Kind.RESULT)] == [1, 2]  # two are remembered


def test_nothing_is_sent_or_taken_of_an_attempt_that_was_given_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    assignment = scene.begin("root")
    group = assignment.groups[0]
    member = next(key for key in group.members if key != scene.own.key)
    where = {"round": ROUND, "group": group.number, "session": assignment.contacts[member].session, "sequence": 50}
    with monkeypatch.context() as small:
        small.setattr(messages, "CHUNK_BYTES", 8)
        small.setattr(channel, "CHUNK_BYTES", 8)
        half = {"length": 24, "chunks": 3}
        assert scene.stage.whisper(member, Kind.SHARE, body=bytes(8), **where, **half) is None
    assert scene.peer._incoming[member]._partial
    for voice in scene.others:
        voice.refuses |= {Kind.SEED, Kind.SHARE}
    scene.confirm(assignment, group)
    scene.assign(scene.assignment("root", attempt=1))
    assert not scene.peer._incoming[member]._partial
    assert sum(voice.dropped["refused"] for voice in scene.others) == 1  # a seed; the peer keeps the vector
    for voice in scene.others:
        voice.refuses.clear()
    scene.stage.wait(5.0)
    assert not any(voice.of(kind) for voice in scene.others for kind in (Kind.SEED, Kind.SHARE))


def test_a_damaged_sum_ends_the_wish(scene: Scene) -> None:
    scene.begin("root")
    scene.peer.attempt.problem = "the sum is damaged"
    scene.peer._after()
    assert scene.peer.wish.error == "the sum is damaged"
    assert scene.peer.attempt is None


# Giving up an attempt


def aborted(scene: Scene) -> list[list[bool]]:
    return [message.body for message in scene.server.of(Kind.ABORTED)]


def test_who_withholds_something_leaves_the_attempt(scene: Scene) -> None:
    assignment = scene.begin("actor")
    scene.say(Kind.ABORT, [], round=ROUND, attempt=0)
    assert aborted(scene) == [[True, False]]
    assert scene.peer.attempt is None
    scene.confirm(assignment, assignment.groups[0])
    assert scene.peer.dropped["wrong round"] == 2
    scene.assign(assignment)
    assert scene.peer.dropped["not awaited"] == 1
    scene.assign(scene.assignment("actor", attempt=1))
    assert scene.peer.attempt.assignment.attempt == 1


def test_who_withholds_nothing_stays_and_still_takes_the_result(scene: Scene) -> None:
    assignment = scene.begin("leaf")
    scene.confirm(assignment, assignment.groups[0])
    scene.say(Kind.ABORT, [], round=ROUND, attempt=0)
    assert aborted(scene) == [[False, False]]
    scene.finish(assignment)
    assert scene.peer.wish.packed == bytes(16)
    scene.say(Kind.ABORT, [], round=ROUND, attempt=0)
    assert aborted(scene) == [[False, False], [False, True]]


@pytest.mark.parametrize("released", [False, True])
def test_a_root_actor_that_has_promised_its_key_keeps_it_from_then_on(scene: Scene, released: bool) -> None:
    scene.begin("root")
    attempt = scene.peer.attempt
    attempt._handed_out = {0, 1}
    attempt._prepared.add(scene.own.key)
    attempt.released = released
    scene.say(Kind.ABORT, [], round=ROUND, attempt=0)
    assert aborted(scene) == [[False, released]]
    assert scene.peer.attempt is attempt
    assert attempt._is_frozen


def test_who_was_not_told_of_an_attempt_never_takes_part_in_it(scene: Scene) -> None:
    scene.welcome()
    wish = scene.wish(wait_s=5.0)
    scene.say(Kind.ABORT, [], round=ROUND, attempt=0)
    scene.say(Kind.ABORT, [], round=ROUND, attempt=1)
    assert aborted(scene) == [[True, False]] * 2
    scene.assign(scene.assignment(attempt=0))
    scene.assign(scene.assignment(attempt=1))
    assert scene.peer.dropped == {"not awaited": 2}
    scene.stage.wait(TIMEOUT_S - 0.3)
    assert not wish.is_over  # the next attempt is yet to come
    scene.assign(scene.assignment(attempt=2))
    assert scene.peer.attempt is not None
    scene.say(Kind.ABORT, [], round=ROUND, attempt=1)
    assert len(aborted(scene)) == 2
    assert scene.peer.attempt is not None
    scene.say(Kind.ABORT, [], round=ROUND, attempt=3)
    assert aborted(scene)[-1] == [True, False]
    assert scene.peer.attempt is None


def test_nobody_answers_for_a_round_of_others(scene: Scene) -> None:
    scene.welcome()
    scene.say(Kind.ABORT, [], round=ROUND, attempt=0)
    scene.wish()
    scene.assign(scene.assignment())
    scene.say(Kind.ABORT, [], round=LATER_ROUND, attempt=0)
    assert not aborted(scene)
    assert scene.peer.attempt is not None


def test_the_deadline_for_a_round_to_begin_is_extended_by_a_repeat(scene: Scene) -> None:
    scene.welcome()
    wish = scene.wish(wait_s=3.0)
    scene.assign(scene.assignment("actor"))
    scene.stage.wait(5.0)
    scene.say(Kind.ABORT, [], round=ROUND, attempt=0)
    scene.stage.wait(TIMEOUT_S - 0.2)
    assert not wish.is_over
    scene.stage.wait(0.4)
    assert wish.error == "the server did not begin a round in time"
    patient = scene.wish(wait_s=300.0)
    deadline_s = patient.deadline_s
    scene.say(Kind.WELCOME, SETTINGS.to_text())
    scene.assign(scene.assignment("actor", round=LATER_ROUND))
    scene.say(Kind.ABORT, [], round=LATER_ROUND, attempt=0)
    assert patient.deadline_s == deadline_s


# Being given up


def test_who_is_given_up_is_a_new_process_for_all_others(scene: Scene) -> None:
    scene.begin()
    session = scene.peer.session
    scene.peer.abandon(scene.stage.now_s)
    scene.stage.talk()
    assert scene.peer.wish.error == "given up by who had asked for it"
    assert scene.peer.attempt is None
    assert scene.server.take(Kind.HELLO).body[0] == scene.peer.session > session


def test_there_may_be_nothing_to_give_up(scene: Scene) -> None:
    scene.welcome()
    scene.peer.abandon(scene.stage.now_s)
    scene.wish()
    scene.finish(scene.assign(scene.assignment()))
    scene.peer.abandon(scene.stage.now_s)
    scene.stage.talk()
    assert not scene.server.of(Kind.HELLO)
    assert scene.peer.wish.error is None


def test_who_leaves_waits_for_nothing_more(scene: Scene) -> None:
    scene.begin()
    scene.peer.leave(scene.stage.now_s)
    assert scene.peer.wish.error == "stopped before there was an average"


# Errors


def test_what_the_server_says_ends_the_wish(scene: Scene) -> None:
    scene.begin()
    scene.say(Kind.FAIL, "of another round", round=LATER_ROUND)
    assert not scene.peer.wish.is_over
    scene.say(Kind.FAIL, "too few", round=ROUND)
    assert scene.peer.wish.error == "too few"
    assert scene.peer.wish.ended_s == scene.peer.clock_s
    wish = scene.wish()
    scene.say(Kind.FAIL, "told again", round=ROUND)
    scene.say(Kind.ABORT, [], round=ROUND, attempt=0)
    scene.assign(scene.assignment(attempt=1))
    assert not wish.is_over
    assert scene.peer.attempt is None
    scene.say(Kind.FAIL, "before it was told", round=LATER_ROUND)
    assert wish.error == "before it was told"
    wish = scene.wish()
    scene.say(Kind.REFUSE, "entry 'w': other")
    assert wish.error == "entry 'w': other"


def test_what_the_server_says_does_nothing_to_a_terminal(scene: Scene) -> None:
    scene.begin()
    scene.say(Kind.FAIL, "\x1b[2Jgone\nä", round=ROUND)
    assert scene.peer.wish.error == "\ufffd[2Jgone\ufffdä"
    wish = scene.wish()
    scene.say(Kind.REFUSE, "entry 'w\x07'")
    assert wish.error == "entry 'w\ufffd'"


def test_errors_of_a_round_with_a_result_are_not_those_of_the_next(scene: Scene) -> None:
    scene.finish(scene.begin())
    scene.say(Kind.FAIL, "too late", round=ROUND)
    assert scene.peer.wish.error is None
    wish = scene.wish()
    scene.say(Kind.FAIL, "too late", round=ROUND)
    assert not wish.is_over


def test_a_limited_number_of_rounds_is_remembered(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "REMEMBERED_ROUNDS", 3)
    scene.welcome()
    for number in range(5):
        scene.wish()
        scene.finish(scene.assign(scene.assignment(round=bytes([number]) * 32)))
    assert list(scene.peer._given_up) == [bytes([number]) * 32 for number in (2, 3, 4)]


SILENT = "no answer from the server; is it running, and is this peer's certificate among its keys?"


@pytest.mark.parametrize("what", ["no server", "nothing", "status", "silence"])
def test_a_round_must_begin_in_time(scene: Scene, what: str) -> None:
    if what != "no server":
        scene.welcome()
    else:
        scene.peer.start(0.0)
    wish = scene.wish(wait_s=20.0)
    session = scene.peer.session
    if what == "status":
        scene.say(Kind.STATUS, 2, 6)
        scene.say(Kind.STATUS, 1, 6)
    scene.stage.wait(13.0)
    if what == "silence":
        scene.stage.mute.add(scene.server.key)
        scene.server.refuses = set(Kind)
    scene.stage.wait(6.9)
    assert not wish.is_over
    scene.stage.wait(0.2)
    assert (
        wish.error
        == {
            "no server": SILENT,
            "silence": SILENT,
            "nothing": "the server did not begin a round in time",
            "status": "the server did not begin a round in time: 2 of 6 peers signed up",
        }[what]
    )
    assert scene.peer.session > session
    if what == "status":
        assert scene.server.of(Kind.HELLO)[-1].body[0] == scene.peer.session
        assert scene.wish() is not wish
        assert scene.peer.signed_up_peers is None


def test_answers_to_a_wish_that_was_given_up_are_not_taken_for_those_to_the_next(scene: Scene) -> None:
    scene.welcome()
    old = scene.assignment()
    scene.wish()
    scene.finish(scene.assign(scene.assignment(round=LATER_ROUND)))
    scene.wish(wait_s=1.0)
    scene.stage.wait(1.1)
    assert scene.peer.wish.is_over
    wish = scene.wish()
    scene.assign(old)
    scene.say(Kind.REFUSE, "old")
    assert scene.peer.dropped["wrong session"] == 2
    scene.server.renew(scene.own.key)
    scene.say(Kind.WELCOME, SETTINGS.to_text())
    scene.assign(old)
    assert scene.peer.dropped["not awaited"] == 1
    assert not wish.is_over
    assignment = scene.assign(scene.assignment())
    assert scene.peer.attempt is not None
    for member in set(assignment.groups[0].members) - {scene.own.key}:
        assert scene.voice(member)._incoming[scene.own.key].session == scene.peer.session


# A server that is lost


def silence(scene: Scene) -> None:
    scene.stage.mute.add(scene.server.key)
    scene.server.refuses = set(Kind)


def test_a_round_goes_on_for_a_limited_time_when_the_server_is_silent(scene: Scene) -> None:
    scene.begin()
    scene.stage.wait(1.0)
    silence(scene)
    scene.stage.wait(0.6 * TIMEOUT_S - 0.2)
    assert not scene.peer.attempt._has_lost_server
    scene.stage.wait(1.4)
    assert scene.peer.attempt._has_lost_server
    scene.stage.wait(2 * TIMEOUT_S - 8.4)
    assert not scene.peer.wish.is_over
    scene.stage.wait(0.4)
    assert scene.peer.wish.error == f"the server was lost {LOST}"
    assert scene.peer.attempt is None


def test_progress_gives_a_round_without_a_server_more_time(scene: Scene) -> None:
    assignment = scene.begin()
    silence(scene)
    scene.stage.wait(15.0)
    scene.confirm(assignment, assignment.groups[0])
    scene.stage.wait(2 * TIMEOUT_S - 0.2)
    assert not scene.peer.wish.is_over
    scene.stage.wait(0.4)
    assert scene.peer.wish.error == f"the server was lost {LOST}"


def test_a_server_that_has_forgotten_a_peer_has_lost_its_round(scene: Scene) -> None:
    scene.begin()
    scene.stage.wait(15.0)
    assert not scene.peer.attempt._has_lost_server
    scene.server.renew(scene.own.key)
    scene.server.reply_who(scene.own.key)
    scene.stage.talk()
    scene.server.heard.clear()
    scene.say(Kind.WELCOME, SETTINGS.to_text())
    assert scene.peer.attempt._has_lost_server
    assert not scene.server.of(Kind.SIGN_UP)
    scene.stage.wait(2 * TIMEOUT_S - 0.2)
    assert not scene.peer.wish.is_over
    scene.stage.wait(0.4)
    assert scene.peer.wish.error == f"the server was lost {LOST}"


def test_a_server_that_remembers_a_peer_has_not_lost_its_round(scene: Scene) -> None:
    scene.begin()
    scene.stage.wait(1.0)
    scene.server.reply_who(scene.own.key)
    scene.stage.talk()
    scene.say(Kind.WELCOME, SETTINGS.to_text())
    scene.stage.wait(3 * TIMEOUT_S)
    assert not scene.peer.attempt._has_lost_server
    assert not scene.peer.wish.is_over


def test_the_next_attempt_of_a_server_that_had_forgotten_a_peer_is_a_new_one(scene: Scene) -> None:
    scene.begin()
    scene.stage.wait(1.0)
    scene.server.renew(scene.own.key)
    scene.server.reply_who(scene.own.key)
    scene.stage.talk()
    scene.say(Kind.WELCOME, SETTINGS.to_text())
    scene.assign(scene.assignment(attempt=1))
    scene.stage.wait(3 * TIMEOUT_S)
    assert not scene.peer.wish.is_over


def test_even_a_live_server_must_say_something_in_time(scene: Scene) -> None:
    scene.begin()
    scene.stage.wait(10 * TIMEOUT_S - 0.2)
    assert not scene.peer.wish.is_over
    scene.stage.wait(0.4)
    assert scene.peer.wish.error == f"the server said nothing for too long {LOST}"


def test_a_peer_that_was_asleep_does_not_blame_the_server(scene: Scene) -> None:
    scene.begin()
    scene.stage.wait(1.0)
    scene.stage.now_s += 1000.0
    scene.stage.wait(1.0)
    assert not scene.peer.attempt._has_lost_server
    assert not scene.peer.wish.is_over
