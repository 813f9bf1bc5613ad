import random

import pytest
from cryptography.exceptions import InvalidSignature

from peers.secure_aggregation.assignment import CONTEXT, Contact
from peers.secure_aggregation.combining import Combination
from peers.secure_aggregation.messages import Kind, Message
from peers.secure_aggregation.round import State
from peers.secure_aggregation.scheduler import LATE, Scheduler
from tests.peers.secure_aggregation.hall import LAYOUT, OTHER_LAYOUT, SILENCE_S, TIMEOUT_S, Hall
from tests.peers.secure_aggregation.voices import Voice

IN_VAIN = "others waited for this peer in vain, or for its key, and the round went on without it"
LOST = (
    "the round may have been opened, but its result did not come through from those who may have it; it is not "
    "repeated, as the difference of two sums could show a model"
)


@pytest.fixture
def hall() -> Hall:
    return Hall()


# Signing up


def test_a_round_begins_with_those_who_came_first(hall: Hall) -> None:
    hall = Hall(7, target_size=5)
    hall.hello()
    order = [6, 2, 3, 0, 5]
    for number in order[:4]:
        hall.sign_up(hall.peers[number])
        hall.stage.wait(0.1)
    assert hall.server.round is None
    hall.sign_up(hall.peers[5])
    hall.sign_up(hall.peers[1])
    assert set(hall.server.round.members) == {hall.peers[number].key for number in order}
    assert not hall.peers[1].of(Kind.ASSIGN)
    assert hall.server.known[hall.peers[1].key].layout is not None


def test_everybody_is_told_its_own_groups_and_who_is_in_them(hall: Hall) -> None:
    hall.begin()
    current = hall.server.round
    assert sorted(current.tree.peers) == sorted(peer.key for peer in hall.peers)
    for peer in hall.peers:
        (message,) = peer.of(Kind.ASSIGN)
        data, signature = message.body
        hall.identity.certificate.verify(signature, CONTEXT + data)
        with pytest.raises(InvalidSignature):
            hall.identity.certificate.verify(signature, data)
        (assignment,) = hall.told(peer)
        assignment.check(peer.key)
        assert (message.round, message.attempt, assignment.round, assignment.attempt) == (current.id, 0, current.id, 0)
        assert assignment.groups == tuple(current.tree.of(peer.key))
        assert assignment.n == 6
        assert assignment.layout_digest == current.layout.digest
        assert assignment.settings_digest == hall.settings.digest
        assert assignment.contacts == {
            key: Contact(1000 + hall.peers.index(hall.voice(key)), f"tcp://p{hall.peers.index(hall.voice(key))}:1")
            for group in assignment.groups
            for key in group.members
        }


def test_rounds_have_random_names_and_trees() -> None:
    names = set()
    for _ in range(2):
        hall = Hall()
        hall.begin()
        names.add(hall.server.round.id)
        assert len(hall.server.round.id) == 32
    assert len(names) == 2
    systems = Scheduler(
        identity=hall.identity, settings=hall.settings, target_size=3, group_size=3, num_actors=2, min_size=3
    )
    assert isinstance(systems.rng, random.SystemRandom)


def test_the_minority_with_another_model_is_refused_by_name(hall: Hall) -> None:
    hall.hello()
    hall.sign_up(*hall.peers[:4])
    hall.sign_up(*hall.peers[4:], layout=OTHER_LAYOUT)
    for peer in hall.peers[4:]:
        assert peer.take(Kind.REFUSE).body == ["entry 'w': the group agreed on float64 (2,), got float32 (3,)"]
        assert hall.server.known[peer.key].layout is None
    assert hall.server.round is None
    hall.sign_up(*hall.peers[4:])
    assert len(hall.server.round.members) == 6


def test_of_as_many_the_first_kind_of_model_is_agreed_on(hall: Hall) -> None:
    hall.hello()
    for number, peer in enumerate(hall.peers):
        hall.sign_up(peer, layout=LAYOUT if number % 2 else OTHER_LAYOUT)
    assert [bool(peer.of(Kind.REFUSE)) for peer in hall.peers] == [False, True] * 3


def test_a_model_that_cannot_be_averaged_is_refused(hall: Hall) -> None:
    hall.hello()
    hall.sign_up(hall.peers[0], layout=[["w", "complex64", [2]]])
    assert hall.peers[0].take(Kind.REFUSE).body[0].startswith("entry 'w': expected a dtype of ")
    assert hall.server.known[hall.peers[0].key].layout is None


def test_those_who_wait_are_told_how_many_they_are(hall: Hall) -> None:
    hall.hello()
    hall.stage.wait(2.0)
    hall.sign_up(*hall.peers[:2])
    hall.stage.wait(0.1)
    assert [[message.body for message in peer.of(Kind.STATUS)] for peer in hall.peers[:3]] == [[[2, 6]], [[2, 6]], []]
    hall.sign_up(hall.peers[2])
    hall.stage.wait(0.8)
    assert not hall.peers[2].of(Kind.STATUS)
    hall.stage.wait(0.5)
    assert [message.body for message in hall.peers[2].of(Kind.STATUS)] == [[3, 6]]
    hall.stage.wait(3.0)
    assert [message.body for message in hall.peers[0].of(Kind.STATUS)] == [[2, 6], [3, 6]]


def test_a_wish_told_again_counts_once(hall: Hall) -> None:
    hall.begin()
    peer = hall.peers[0]
    hall.sign_up(peer, number=1)
    assert hall.server.known[peer.key].layout is None
    for each in hall.peers:
        hall.answer(each, Kind.DONE)
    assert hall.server.round is None
    hall.sign_up(peer, number=1)
    assert hall.server.known[peer.key].layout is None
    hall.sign_up(peer, number=2)
    assert hall.server.known[peer.key].layout is not None
    signed_up_s = hall.server.known[peer.key].signed_up_s
    hall.stage.wait(1.0)
    hall.sign_up(peer, number=2)
    assert hall.server.known[peer.key].signed_up_s == signed_up_s


def test_who_wishes_again_has_the_result(hall: Hall) -> None:
    hall.begin()
    hall.sign_up(hall.peers[0])
    assert hall.server.round.done == {hall.peers[0].key}
    assert hall.server.round.state is State.OPENED
    assert hall.server.known[hall.peers[0].key].layout is not None
    hall.sign_up(*hall.peers[1:])
    assert hall.server.rounds == 1
    assert len(hall.told(hall.peers[0])) == 2
    assert hall.told(hall.peers[0])[0].round != hall.told(hall.peers[0])[1].round


def test_without_an_earlier_round_nobody_is_left(hall: Hall) -> None:
    hall.hello()
    hall.sign_up(*hall.peers[:3])
    hall.lose(*hall.peers[3:])
    hall.wait(2 * TIMEOUT_S)
    assert hall.server.round is None


def test_those_left_of_earlier_rounds_wait_for_others_once(hall: Hall) -> None:
    hall.begin()
    for peer in hall.peers:
        hall.answer(peer, Kind.DONE)
    hall.lose(hall.peers[5])
    hall.sign_up(*hall.peers[:4])
    hall.wait(2 * TIMEOUT_S)
    assert hall.server.round is None  # one that is there may still come
    hall.sign_up(hall.peers[4])
    hall.wait(TIMEOUT_S - 0.5)
    assert hall.server.round is None
    hall.wait(1.0)
    assert hall.server.round.members == [peer.key for peer in hall.peers[:5]]
    for peer in hall.peers[:5]:
        hall.answer(peer, Kind.DONE)
    hall.lose(hall.peers[4])
    hall.sign_up(*hall.peers[:3])
    assert hall.server.round is None
    hall.sign_up(hall.peers[3])
    assert len(hall.server.round.members) == 4  # at once


def test_those_left_wait_for_others_again_when_somebody_comes_back(hall: Hall) -> None:
    hall.begin()
    for peer in hall.peers:
        hall.answer(peer, Kind.DONE)
    hall.lose(*hall.peers[3:])
    hall.sign_up(*hall.peers[:3])
    hall.wait(TIMEOUT_S + 0.5)
    for peer in hall.peers[:3]:
        hall.answer(peer, Kind.DONE)
    hall.hello(hall.peers[3])
    hall.lively.append(hall.peers[3])
    hall.sign_up(*hall.peers[:4])
    hall.wait(TIMEOUT_S - 0.5)
    assert hall.server.round is None
    hall.wait(1.0)
    assert len(hall.server.round.members) == 4


def test_those_left_may_not_be_too_few(hall: Hall) -> None:
    hall.begin()
    for peer in hall.peers:
        hall.answer(peer, Kind.DONE)
    hall.lose(*hall.peers[2:])
    hall.sign_up(*hall.peers[:2])
    hall.wait(2 * TIMEOUT_S)
    assert hall.server.round is None


def test_those_left_after_a_round_that_failed_begin_too(hall: Hall) -> None:
    hall.begin()
    hall.lose(*hall.peers[2:])
    assert hall.server.round is not None
    hall.answer(hall.peers[0], Kind.ABORTED, True, False)
    assert hall.errors(hall.peers[0]) == ["2 of 6 peers are left, fewer than min_size = 3"]
    assert hall.server.rounds == 0
    hall.hello(hall.peers[2])
    hall.lively.append(hall.peers[2])
    hall.sign_up(*hall.peers[:3])
    hall.wait(TIMEOUT_S + 0.5)
    assert len(hall.server.round.members) == 3


def test_of_those_left_the_minority_is_refused(hall: Hall) -> None:
    hall.begin()
    for peer in hall.peers:
        hall.answer(peer, Kind.DONE)
    hall.lose(*hall.peers[4:])
    hall.sign_up(*hall.peers[:2])
    hall.sign_up(*hall.peers[2:4], layout=OTHER_LAYOUT)
    hall.wait(TIMEOUT_S + 1.0)
    assert hall.server.round is None
    assert [bool(peer.of(Kind.REFUSE)) for peer in hall.peers] == [False, False, True, True, False, False]


# A round


def test_keys_are_opened_when_all_root_actors_are_ready(hall: Hall) -> None:
    hall.begin()
    first, second = hall.root
    hall.answer(hall.leaf(), Kind.READY, bytes(32))
    hall.say(first, Kind.READY, b"z" * 32, round=bytes(32), attempt=0)
    hall.say(first, Kind.READY, b"z" * 32, round=hall.server.round.id, attempt=1)
    assert not hall.server.round.keys
    hall.answer(first, Kind.READY, b"1" * 32)
    assert hall.server.round.state is State.RUNNING
    assert not first.of(Kind.OPEN)
    hall.answer(second, Kind.READY, b"2" * 32)
    assert hall.server.round.state is State.OPENED
    for actor in (first, second):
        message = actor.take(Kind.OPEN)
        assert message == Message(
            Kind.OPEN, hall.server.round.id, 0, 0, [[[first.key, b"1" * 32], [second.key, b"2" * 32]]]
        )
    assert not any(peer.of(Kind.OPEN) for peer in hall.others)


def test_a_round_is_over_when_all_have_the_result(hall: Hall) -> None:
    hall.begin()
    round_id = hall.server.round.id
    for peer in hall.peers[:5]:
        hall.answer(peer, Kind.DONE)
    hall.sign_up(*hall.peers[:5])
    hall.say(hall.peers[5], Kind.DONE, round=bytes(32))
    assert hall.server.rounds == 0
    hall.say(hall.peers[5], Kind.DONE, round=round_id)
    assert hall.server.rounds == 1
    assert hall.server.round is None
    hall.say(hall.peers[5], Kind.DONE, round=round_id)
    hall.sign_up(hall.peers[5])
    assert hall.server.round.id != round_id
    assert not hall.server.round.done


def test_the_next_round_begins_as_soon_as_one_is_over() -> None:
    hall = Hall(7, target_size=3)
    hall.hello()
    hall.sign_up()
    first = hall.server.round.members
    for key in first:
        hall.answer(hall.voice(key), Kind.DONE)
    assert hall.server.rounds == 1
    assert not set(hall.server.round.members) & set(first)


def test_only_the_last_word_of_a_kind_waits_to_be_heard(hall: Hall) -> None:
    hall.begin()
    lost = hall.leaf()
    hall.say(lost, Kind.BYE)
    lost.refuses = {Kind.WELCOME, Kind.FAIL, Kind.REFUSE}
    for number in range(20):
        lost.renew(hall.server.key)
        hall.hello(lost)
        hall.sign_up(lost, layout=[["w", "complex64", [2]]], number=100 + number)
    assert hall.server.channel(lost.key).undelivered()
    assert len(hall.server.channel(lost.key)) == 3


def test_duties_in_groups_of_others_do_not_count(hall: Hall) -> None:
    hall.begin()
    leaf = hall.leaf()
    for number in range(100):
        hall.answer(leaf, Kind.DELIVERED, group=number)
    own = {group.number for group in hall.server.round.tree.of(leaf.key)}
    assert hall.server.round.delivered == {leaf.key: own}


def test_whose_duty_is_done_may_go(hall: Hall) -> None:
    hall.begin()
    leaf = hall.leaf()
    hall.answer(leaf, Kind.DELIVERED, group=99)
    hall.answer(hall.peers[(hall.peers.index(leaf) + 1) % 6], Kind.DELIVERED, group=0)
    assert not hall.server.round.has_done_its_duty(leaf.key)
    hall.do_duty(leaf)
    assert hall.server.round.has_done_its_duty(leaf.key)
    hall.lose(leaf)
    assert hall.server.round.state is State.RUNNING
    for actor in hall.root:
        hall.do_duty(actor)
        assert not hall.server.round.has_done_its_duty(actor.key)
    middle = next(peer for peer in hall.others if len(hall.server.round.tree.of(peer.key)) == 2)
    groups = hall.server.round.tree.of(middle.key)
    hall.answer(middle, Kind.DELIVERED, group=groups[0].number)
    assert not hall.server.round.has_done_its_duty(middle.key)
    hall.answer(middle, Kind.DELIVERED, group=groups[1].number)
    assert hall.server.round.has_done_its_duty(middle.key)
    hall.open()
    for peer in hall.peers:
        if peer is not leaf:
            hall.answer(peer, Kind.DONE)
    assert hall.server.rounds == 1


# Losing peers


def aborting(hall: Hall) -> list[Voice]:
    """Lose a leaf in the middle of a round, and return those who are left."""
    hall.begin()
    lost = hall.leaf()
    hall.lose(lost)
    assert hall.server.round.state is State.ABORTING
    return [peer for peer in hall.peers if peer is not lost]


def test_all_others_are_asked_whether_the_round_may_be_repeated(hall: Hall) -> None:
    hall.begin()
    lost, current = hall.leaf(), hall.server.round
    hall.lose(lost)
    assert current.state is State.ABORTING
    for peer in hall.peers:
        aborts = [(message.round, message.attempt, message.body) for message in peer.of(Kind.ABORT)]
        assert aborts == ([] if peer is lost else [(current.id, 0, [[lost.key]])])


def test_a_root_actor_is_never_dispensable_before_the_keys_are_opened(hall: Hall) -> None:
    hall.begin()
    actor = hall.root[0]
    hall.do_duty(actor)
    hall.answer(actor, Kind.READY, bytes(32))
    hall.lose(actor)
    assert hall.server.round.state is State.ABORTING
    hall.answer(hall.root[1], Kind.READY, bytes(32))
    assert hall.server.round.state is State.ABORTING
    assert not any(peer.of(Kind.OPEN) for peer in hall.peers)


def test_the_round_is_repeated_as_soon_as_somebody_withholds_something(hall: Hall) -> None:
    left = aborting(hall)
    round_id = hall.server.round.id
    hall.say(left[0], Kind.ABORTED, True, False, round=round_id, attempt=1)
    assert hall.server.round.attempt == 0
    hall.answer(left[0], Kind.ABORTED, False, False)
    assert hall.server.round.attempt == 0
    hall.answer(left[1], Kind.ABORTED, True, False)
    assert (hall.server.round.id, hall.server.round.attempt, hall.server.repeats) == (round_id, 1, 1)
    assert hall.server.round.state is State.RUNNING
    assert set(hall.server.round.members) == {peer.key for peer in left}
    assert not hall.server.round.lost
    for peer in left:
        second = hall.told(peer)[1]
        assert (second.round, second.attempt, second.n) == (round_id, 1, 5)
        second.check(peer.key)


def test_two_root_actors_that_keep_their_keys_are_enough() -> None:
    hall = Hall(8, group_size=4, num_actors=3)
    aborting(hall)
    first, second, _ = hall.root
    for peer in hall.others:
        if peer in hall.lively:
            hall.answer(peer, Kind.ABORTED, False, False)
    hall.answer(first, Kind.ABORTED, False, False)
    assert hall.server.round.attempt == 0
    hall.answer(second, Kind.ABORTED, False, False)
    assert hall.server.round.attempt == 1


def test_a_round_whose_key_was_given_away_is_never_repeated(hall: Hall) -> None:
    left = aborting(hall)
    hall.answer(left[0], Kind.ABORTED, False, True)
    assert hall.server.round.state is State.OPENED
    for peer in left[1:]:
        hall.answer(peer, Kind.ABORTED, True, False)
    assert hall.server.repeats == 0
    assert hall.server.round.state is State.OPENED


def test_where_nobody_can_tell_a_round_counts_as_opened(hall: Hall) -> None:
    hall.begin()
    first = hall.root[0]
    hall.lose(first)
    left = [peer for peer in hall.peers if peer is not first]
    for peer in left:
        hall.answer(peer, Kind.ABORTED, False, False)
    assert hall.server.round.state is State.OPENED
    assert hall.server.repeats == 0
    hall.wait(TIMEOUT_S)
    assert hall.server.round is not None
    hall.wait(1.0)
    assert all(hall.errors(peer) == [LOST] for peer in left)
    assert hall.server.round is None
    assert hall.server.rounds == 0


def test_who_does_not_answer_in_time_may_have_opened_the_round(hall: Hall) -> None:
    left = aborting(hall)
    hall.answer(left[0], Kind.ABORTED, False, False)
    hall.wait(SILENCE_S)
    assert hall.server.round.state is State.ABORTING
    hall.wait(1.0)
    assert hall.server.round.state is State.OPENED


def test_another_loss_may_settle_whether_a_round_is_repeated(hall: Hall) -> None:
    left = aborting(hall)
    others = [peer for peer in left if peer not in hall.root]
    for peer in others:
        hall.answer(peer, Kind.ABORTED, False, False)
    hall.lose(hall.root[0])
    assert hall.server.round.state is State.ABORTING
    hall.lose(hall.root[1])
    assert hall.server.round.state is State.OPENED


def test_a_result_shows_that_a_round_was_opened(hall: Hall) -> None:
    left = aborting(hall)
    hall.answer(left[0], Kind.DONE)
    assert hall.server.round.state is State.OPENED


def test_when_all_are_gone_so_is_the_round(hall: Hall) -> None:
    hall.begin()
    hall.lose(*hall.peers)
    assert hall.server.round is None
    assert not hall.server.known


@pytest.mark.parametrize(("left", "goes_on"), [(4, True), (3, False)])
def test_with_fewer_than_min_size_all_are_told(left: int, goes_on: bool) -> None:
    hall = Hall(6, min_size=4)
    hall.begin()
    hall.lose(*hall.peers[left:])
    hall.answer(hall.peers[0], Kind.ABORTED, True, False)
    assert (hall.server.round is not None) is goes_on
    for peer in hall.peers[:left]:
        assert hall.errors(peer) == ([] if goes_on else ["3 of 6 peers are left, fewer than min_size = 4"])
    if not goes_on:
        hall.hello(*hall.peers[3:])
        hall.sign_up()
        assert len(hall.server.round.members) == 6


@pytest.mark.parametrize(("n", "goes_on"), [(9, False), (10, True)])
def test_with_too_few_groups_for_a_rule_all_are_told(n: int, goes_on: bool) -> None:
    hall = Hall(n, combination=Combination("median", 1))
    left = aborting(hall)
    hall.answer(left[0], Kind.ABORTED, True, False)
    assert (hall.server.round is not None) is goes_on
    assert bool(hall.errors(left[0])) is not goes_on
    if goes_on:
        assert hall.server.round.tree.root.origins
    else:
        assert hall.errors(left[0])[0].startswith("8 of 9 peers are left: combine: for 2 groups: median: ")


def test_who_was_lost_is_told_so_when_it_is_back(hall: Hall) -> None:
    left = aborting(hall)
    (lost,) = set(hall.peers) - set(left)
    hall.hello(lost)
    assert hall.errors(lost) == [LATE]
    hall.answer(left[0], Kind.ABORTED, True, False)
    hall.say(lost, Kind.SIGN_UP, 1, LAYOUT)
    assert hall.errors(lost) == [LATE, LATE]
    assert hall.server.known[lost.key].layout is None
    hall.say(lost, Kind.SIGN_UP, 2, LAYOUT)
    assert hall.server.known[lost.key].layout is not None
    assert hall.server.round.state is State.RUNNING
    lost.renew(hall.server.key)
    hall.hello(lost, session=5)
    assert len(hall.errors(lost)) == 2  # a new process knows nothing of the round
    hall.say(lost, Kind.SIGN_UP, 1, LAYOUT)
    assert len(hall.errors(lost)) == 2
    assert hall.server.known[lost.key].layout is not None


def test_who_was_lost_and_wishes_again_does_not_have_the_result(hall: Hall) -> None:
    left = aborting(hall)
    (lost,) = set(hall.peers) - set(left)
    hall.hello(lost)
    hall.say(lost, Kind.SIGN_UP, 2, LAYOUT)
    assert hall.server.round.state is State.ABORTING
    assert not hall.server.round.done


def test_who_is_back_after_the_opening_can_still_get_the_result(hall: Hall) -> None:
    hall.begin()
    hall.open()
    lost = hall.leaf()
    hall.lively.remove(lost)
    hall.waits = {}
    for _ in range(15):
        hall.wait(0.5)
        hall.moved = {peer: hall.moved.get(peer, 0) + 1 for peer in hall.peers}  # something is on its way
    assert hall.server.round.lost == {lost.key}
    hall.hello(lost)
    assert not hall.server.round.lost
    assert not hall.errors(lost)
    for peer in hall.peers:
        if peer is not lost:
            hall.answer(peer, Kind.DONE)
    assert hall.server.round is not None
    hall.answer(lost, Kind.DONE)
    assert hall.server.rounds == 1


def test_who_is_back_after_its_duty_takes_part_again(hall: Hall) -> None:
    hall.begin()
    lost = hall.leaf()
    hall.do_duty(lost)
    hall.say(lost, Kind.BYE)
    assert hall.server.round.lost == {lost.key}
    hall.hello(lost)
    assert not hall.server.round.lost
    assert not hall.errors(lost)
    other = next(peer for peer in hall.others if peer is not lost)
    hall.lose(other)
    assert lost.of(Kind.ABORT)


def test_a_new_process_after_the_opening_cannot_get_the_result(hall: Hall) -> None:
    hall.begin()
    hall.open()
    lost = hall.leaf()
    lost.renew(hall.server.key)
    hall.hello(lost, session=5)
    assert hall.server.round.lost == {lost.key}
    assert not hall.errors(lost)


# Blame


def test_those_are_left_out_because_of_whom_nothing_moves(hall: Hall) -> None:
    hall.begin()
    guilty, victim = hall.leaf(), hall.root[0]
    hall.waits = {victim: [guilty.key], hall.root[1]: [victim.key]}
    hall.wait(SILENCE_S)
    assert hall.server.round.state is State.RUNNING
    hall.wait(1.0)
    assert hall.server.round.state is State.ABORTING
    assert hall.server.round.lost == {guilty.key}
    assert hall.errors(guilty) == [IN_VAIN]
    session = hall.server.channel(guilty.key).session
    hall.hello(guilty)
    assert hall.server.channel(guilty.key).session > session  # so that it sees that it was forgotten
    assert hall.errors(guilty) == [IN_VAIN, LATE]
    hall.answer(victim, Kind.ABORTED, False, True)
    guilty.renew(hall.server.key)
    hall.hello(guilty)
    assert guilty.key in hall.server.round.lost  # it knows that it has failed


def test_nobody_is_blamed_while_anything_moves(hall: Hall) -> None:
    hall.begin()
    guilty, victim = hall.leaf(), hall.root[0]
    hall.waits = {victim: [guilty.key]}
    for number in range(20):
        hall.moved[hall.root[1]] = number
        hall.wait(2.0)
    assert hall.server.round.state is State.RUNNING


def test_waiting_for_somebody_who_is_gone_is_no_blame(hall: Hall) -> None:
    hall.begin()
    gone = hall.leaf()
    hall.do_duty(gone)
    hall.lose(gone)
    hall.waits = {hall.root[0]: [gone.key, b"?" * 32]}
    hall.answer(hall.root[1], Kind.READY, bytes(32))
    silent = hall.root[0]
    hall.wait(SILENCE_S + 1.0)
    assert hall.server.round.lost == {gone.key, silent.key}
    assert hall.errors(silent) == [IN_VAIN]  # all wait for its key


# After the opening


def opened(hall: Hall) -> Voice:
    """Open a round, lose an actor, and return a leaf that would have got the result from it."""
    hall.begin()
    for peer in hall.peers:
        hall.do_duty(peer)
    hall.open()
    tree = hall.server.round.tree
    for peer in hall.peers:
        top = tree.of(peer.key)[-1]
        if peer.key not in top.actors and hall.voice(top.provider(peer.key)) in hall.root:
            hall.lose(hall.voice(top.provider(peer.key)))
            return peer
    raise AssertionError


def served(hall: Hall, voice: Voice) -> list[bytes]:
    """Return who was said to give somebody the result."""
    return [message.body[0][0] for message in voice.of(Kind.EXPECT)]


def test_whoever_loses_its_provider_is_served_by_somebody_who_has_the_result(hall: Hall) -> None:
    peer = opened(hall)
    hall.wait(1.0)
    assert not served(hall, peer)
    (helper,) = [actor for actor in hall.root if actor in hall.lively]
    hall.answer(helper, Kind.DONE)
    hall.wait(0.5)
    assert served(hall, peer) == [helper.key]
    index = hall.peers.index
    current = hall.server.round
    where = (current.id, current.attempt)
    (expect,) = peer.of(Kind.EXPECT)
    (serve,) = [message for message in helper.of(Kind.SERVE) if message.body[0][0] == peer.key]
    assert (expect.round, expect.attempt) == (serve.round, serve.attempt) == where
    assert expect.body == [[helper.key, 1000 + index(helper), f"tcp://p{index(helper)}:1"]]
    assert serve.body == [[peer.key, 1000 + index(peer), f"tcp://p{index(peer)}:1"]]
    alone = {voice for voice in hall.lively if served(hall, voice)}
    assert all(
        hall.server.round.tree.of(voice.key)[-1].provider(voice.key) in hall.server.round.lost for voice in alone
    )
    hall.wait(TIMEOUT_S / 4 - 0.5)
    assert served(hall, peer) == [helper.key]
    hall.wait(1.5)
    assert served(hall, peer) == [helper.key] * 2
    assert all(served(hall, voice) for voice in hall.lively if voice is not helper)


def test_helpers_take_turns(hall: Hall) -> None:
    hall.begin()
    hall.open()
    helpers = hall.root
    for actor in helpers:
        hall.answer(actor, Kind.DONE)
    hall.wait(TIMEOUT_S / 4 + 0.5)
    asked = [len(helper.of(Kind.SERVE)) for helper in helpers]
    assert sum(asked) == 4
    assert min(asked) >= 1


def test_nobody_is_served_while_anything_moves(hall: Hall) -> None:
    hall.begin()
    hall.open()
    hall.answer(hall.root[0], Kind.DONE)
    for number in range(20):
        hall.moved[hall.root[1]] = number
        hall.wait(2.0)
    assert not any(served(hall, peer) for peer in hall.peers)
    assert not any(hall.errors(peer) for peer in hall.peers)


def test_a_result_that_does_not_come_through_is_an_error(hall: Hall) -> None:
    hall.begin()
    hall.open()
    done = hall.root[0]
    hall.answer(done, Kind.DONE)
    hall.wait(TIMEOUT_S)
    assert not any(hall.errors(peer) for peer in hall.peers)
    hall.wait(1.0)
    assert all(hall.errors(peer) == ([] if peer is done else [LOST]) for peer in hall.peers)
    assert hall.server.round is None
    assert hall.server.rounds == 1
    hall.sign_up()
    assert hall.server.round is not None


def test_messages_to_those_who_are_gone_are_forgotten(hall: Hall) -> None:
    hall.begin()
    guilty = hall.leaf()
    guilty.refuses.add(Kind.FAIL)
    hall.waits = {hall.root[0]: [guilty.key]}
    hall.wait(SILENCE_S + 1.0)
    assert guilty.key not in hall.server.known
    hall.lively.remove(guilty)
    hall.waits = {}
    assert guilty.key in hall.server._outgoing
    left = [peer for peer in hall.peers if peer is not guilty]
    hall.answer(left[0], Kind.ABORTED, True, False)
    for peer in left:
        hall.answer(peer, Kind.DONE)
    hall.sign_up(*left)
    hall.wait(TIMEOUT_S + 1.0)
    assert hall.server.round is not None
    assert guilty.key not in hall.server._outgoing
