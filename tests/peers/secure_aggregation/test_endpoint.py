import pytest

from peers.secure_aggregation.endpoint import Endpoint
from peers.secure_aggregation.messages import NO_ROUND, Header, Kind, Message, ProtocolError, encode_header
from tests.peers.secure_aggregation.simulated import identity
from tests.peers.secure_aggregation.voices import Stage, Voice

ROUND = b"r" * 32


class Listener(Voice):
    """A voice that notes what has moved and what has been delivered."""

    def __init__(self, name: str) -> None:
        super().__init__(identity(name))
        self.moves: list[bytes] = []
        self.told: list[tuple[bytes, Message]] = []

    def moved(self, other: bytes) -> None:
        self.moves.append(other)

    def delivered(self, receiver: bytes, message: Message) -> None:
        self.told.append((receiver, message))


@pytest.fixture
def stage() -> Stage:
    return Stage(Listener("one"), [Voice(identity("other")), Voice(identity("third"))])


def other(stage: Stage) -> Voice:
    return next(iter(stage.voices.values()))


def test_messages_are_handled_acknowledged_and_counted(stage: Stage) -> None:
    voice, listener = other(stage), stage.actor
    listener.send(voice.key, Kind.READY, b"k" * 32, round=ROUND, attempt=3, group=2)
    stage.talk()
    assert voice.heard == [(listener.key, Message(Kind.READY, ROUND, 3, 2, [b"k" * 32]))]
    assert listener.told == [(voice.key, Message(Kind.READY, ROUND, 3, 2, None))]
    assert listener.moves == [voice.key]
    assert listener.unsent() == 0
    stage.say(voice, Kind.SHARE, body=b"12345678", round=ROUND)
    assert listener.heard == [(voice.key, Message(Kind.SHARE, ROUND, 0, 0, b"12345678"))]
    assert listener.moves == [voice.key] * 2
    assert (listener.sent_bytes, listener.received_bytes) == (voice.received_bytes, voice.sent_bytes)
    assert listener.sent_bytes > 0
    assert not listener.dropped
    assert not voice.dropped


def test_every_receiver_has_a_session_of_its_own_and_they_count_up(stage: Stage) -> None:
    sessions = [stage.actor.channel(key).session for key in stage.voices]
    assert sessions[1] == sessions[0] + 1
    assert stage.actor.channel(other(stage).key).session == sessions[0]
    assert Listener("one").channel(b"x").session != sessions[0]


def test_what_is_refused_is_counted_and_not_acknowledged(stage: Stage) -> None:
    voice, listener = other(stage), stage.actor
    voice.refuses.add(Kind.DONE)
    listener.send(voice.key, Kind.DONE)
    stage.talk()
    assert voice.dropped == {"refused": 1}
    assert listener.unsent() == 1
    assert not listener.moves
    voice.refuses.clear()
    stage.wait(0.6)
    assert voice.of(Kind.DONE)
    assert listener.unsent() == 0


def test_what_comes_again_is_counted_and_acknowledged_again(stage: Stage) -> None:
    voice, listener = other(stage), stage.actor
    stage.mute.add(listener.key)
    chunk = {"session": 7, "sequence": 0, "round": ROUND}
    assert stage.whisper(voice.key, Kind.DONE, **chunk) is None
    assert stage.whisper(voice.key, Kind.DONE, **chunk) == "repeated"
    assert len(listener.heard) == 1
    assert len(listener.moves) == 1
    replies = listener.outgoing(stage.now_s)
    acknowledgement = Header(Kind.ACKNOWLEDGE, ROUND, 0, 0, listener.key, 7, 0, 0, 1, 0)
    assert replies == [(voice.key, [encode_header(acknowledgement), b""])] * 2
    assert stage.whisper(voice.key, Kind.DONE, **chunk | {"session": 8}) is None  # that is another message


def test_whoever_writes_another_sender_is_dropped(stage: Stage) -> None:
    first, second = stage.voices
    assert stage.whisper(first, Kind.DONE, sender=second) == "wrong sender"
    assert stage.actor.outgoing(0.0) == []
    assert not stage.actor.heard


def test_acknowledgements_of_nothing_are_dropped(stage: Stage) -> None:
    voice, listener = other(stage), stage.actor

    def acknowledge(session: int, sequence: int) -> None:
        header = Header(Kind.ACKNOWLEDGE, NO_ROUND, 0, 0, voice.key, session, sequence, 0, 1, 0)
        listener.receive(voice.key, [encode_header(header), b""], 0.0)

    acknowledge(0, 0)
    assert listener.dropped == {"wrong session": 1}
    session = listener.channel(voice.key).session
    acknowledge(session + 1, 0)
    assert listener.dropped == {"wrong session": 2}
    listener.send(voice.key, Kind.DONE)
    listener.outgoing(0.0)
    acknowledge(session, 1)
    assert listener.dropped == {"wrong session": 2, "repeated": 1}
    assert listener.unsent() == 1
    assert not listener.moves
    acknowledge(session, 0)
    assert listener.unsent() == 0


def test_who_is_told_once_and_never_acknowledged(stage: Stage) -> None:
    voice = other(stage)
    stage.actor.reply_who(voice.key)
    stage.talk()
    assert voice.asked_who == 1
    assert stage.actor.unsent() == 0


def test_a_pause_of_the_process_is_a_short_one() -> None:
    endpoint = Listener("one")
    endpoint.tick(1000.0)
    assert endpoint.now_s == 0.0
    endpoint.tick(1003.0)
    assert endpoint.now_s == 3.0
    endpoint.longest_step_s = 2.0
    endpoint.outgoing(1004.0)
    endpoint.tick(1050.0)
    assert endpoint.now_s == 6.0
    endpoint.tick(1049.0)  # clocks do not go back
    assert endpoint.now_s == 6.0
    endpoint.receive(b"", [], 1049.5)
    assert endpoint.now_s == 6.5
    assert endpoint.dropped == {"wrong number of frames": 1}


def test_an_endpoint_must_say_what_it_awaits_and_what_it_does() -> None:
    endpoint = Endpoint(b"k" * 32)
    header = Header(Kind.DONE, NO_ROUND, 0, 0, b"x" * 32, 1, 0, 0, 1, 1)
    with pytest.raises(NotImplementedError):
        endpoint.check_awaited(b"x" * 32, header)
    with pytest.raises(NotImplementedError):
        endpoint.handle(b"x" * 32, Message(Kind.DONE, NO_ROUND, 0, 0, []))
    with pytest.raises(ProtocolError):
        endpoint._receive(b"x" * 32, [])
