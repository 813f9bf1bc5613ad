import contextlib
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.secure_aggregation import channel, messages
from peers.secure_aggregation.channel import SESSIONS, WINDOW, Incoming, Outgoing, acknowledgement, is_past
from peers.secure_aggregation.messages import Header, Kind, Message, ProtocolError, decode_chunk

CHUNK = 16
ROUND = bytes(range(32))
ONE, OTHER = b"1" * 32, b"2" * 32


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(messages, "CHUNK_BYTES", CHUNK)


def tensor(group: int = 0, attempt: int = 0) -> Message:
    return Message(Kind.SHARE, ROUND, attempt, group, None)


def sender(*bodies: bytes, window: int = WINDOW) -> Outgoing:
    """Return a channel with tensors to send, to which the other side has answered."""
    outgoing = Outgoing(ONE, session=5)
    for group, body in enumerate(bodies):
        outgoing.send(tensor(group), body)
    outgoing._window = window
    return outgoing


def sent(outgoing: Outgoing, now_s: float) -> list[tuple[int, int]]:
    """Return sequence and chunk of what is sent at a time."""
    headers = [decode_chunk(frames)[0] for frames in outgoing.frames(now_s)]
    return [(header.sequence, header.chunk) for header in headers]


def receive(
    incoming: Incoming, frames: list[bytes], awaited: Callable[[Header], None] = lambda header: None
) -> Message | None:
    return incoming.receive(*decode_chunk(frames), awaited)


@given(
    bodies=st.lists(st.binary(max_size=5 * CHUNK), min_size=1, max_size=12),
    drop=st.sampled_from([0.0, 0.3, 0.6]),
    seed=st.integers(0, 1000),
)
def test_over_a_bad_network_every_message_comes_once(bodies: list[bytes], drop: float, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "CHUNK_BYTES", CHUNK)
        patch.setattr(messages, "CHUNK_BYTES", CHUNK)
        rng, outgoing, incoming = random.Random(seed), Outgoing(ONE, 5), Incoming(5)
        for group, body in enumerate(bodies):
            outgoing.send(tensor(group), body)
        got, delivered, flying, now_s = {}, [], [], 0.0
        while len(outgoing):
            now_s += 0.25
            assert now_s < 2000
            flying += [frames for frames in outgoing.frames(now_s) for _ in range(2) if rng.random() >= drop]
            rng.shuffle(flying)
            landing, flying = flying[len(flying) // 2 :], flying[: len(flying) // 2]
            for frames in landing:
                header, part = decode_chunk(frames)
                with contextlib.suppress(ProtocolError):
                    message = incoming.receive(header, part, lambda header: None)
                    if message is not None:
                        assert message.group not in got
                        got[message.group] = bytes(message.body)
                if rng.random() >= drop:
                    with contextlib.suppress(ProtocolError):
                        message = outgoing.acknowledge(header.sequence, header.chunk, now_s)
                        delivered += [] if message is None else [message.group]
        assert [got[group] for group in range(len(bodies))] == bodies
        assert sorted(delivered) == list(range(len(bodies)))
        assert not incoming._partial


def test_chunks_say_what_they_are() -> None:
    outgoing = sender(b"", b"a" * CHUNK, b"b" * (CHUNK + 1))
    frames = list(outgoing.frames(0.0))
    headers = [decode_chunk(each)[0] for each in frames]
    common = {"kind": Kind.SHARE, "round": ROUND, "attempt": 0, "sender": ONE, "session": 5}
    assert [header._asdict() for header in headers] == [
        common | {"group": group, "sequence": group, "chunk": chunk, "chunks": chunks, "length": length}
        for group, chunk, chunks, length in [(0, 0, 1, 0), (1, 0, 1, CHUNK), (2, 0, 2, CHUNK + 1), (2, 1, 2, CHUNK + 1)]
    ]
    assert [bytes(part) for _, part in frames] == [b"", b"a" * CHUNK, b"b" * CHUNK, b"b"]


def test_there_is_one_chunk_under_way_until_the_other_side_answers_and_then_a_few() -> None:
    outgoing = Outgoing(ONE, session=5)
    outgoing.send(tensor(), bytes(20 * CHUNK))
    assert sent(outgoing, 0.0) == [(0, 0)]
    assert sent(outgoing, 0.1) == []
    outgoing.acknowledge(0, 0, 0.1)
    assert sent(outgoing, 0.1) == [(0, chunk) for chunk in range(1, 1 + WINDOW)]
    assert sent(outgoing, 0.2) == []
    outgoing.acknowledge(0, 3, 0.2)
    outgoing.acknowledge(0, 1, 0.2)
    assert sent(outgoing, 0.2) == [(0, 9), (0, 10)]


def test_what_nobody_acknowledges_is_sent_ever_more_rarely() -> None:
    outgoing = sender(b"a", b"b")
    times = [tenth / 10 for tenth in range(200) if sent(outgoing, tenth / 10)]
    assert times == [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5]
    assert sent(outgoing, 23.5) == [(0, 0), (1, 0)]
    outgoing.acknowledge(0, 0, 23.6)
    assert sent(outgoing, 24.0) == []
    assert sent(outgoing, 24.1) == [(1, 0)]


def test_an_idle_channel_has_as_much_patience_as_a_new_one() -> None:
    outgoing = sender(b"a")
    assert sent(outgoing, 0.0) == [(0, 0)]
    outgoing.acknowledge(0, 0, 0.1)
    outgoing.frames(50.0)
    outgoing.send(tensor(), b"b")
    assert [sent(outgoing, now_s) for now_s in (100.0, 100.4, 100.5)] == [[(1, 0)], [], [(1, 0)]]


def test_a_lost_chunk_is_sent_again_while_later_ones_are_acknowledged() -> None:
    outgoing = sender(b"lost", bytes(300 * CHUNK))
    under_way, again = sent(outgoing, 0.0), []
    for tenth in range(1, 20):
        for sequence, chunk in under_way:
            if sequence == 1:
                outgoing.acknowledge(sequence, chunk, tenth / 10)
        under_way = sent(outgoing, tenth / 10)
        again += [tenth / 10] * ((0, 0) in under_way)
    assert again == [0.5, 1.0, 1.5]


def test_a_slow_link_is_not_taken_for_a_lossy_one() -> None:
    outgoing = sender(bytes(100 * CHUNK))
    sent(outgoing, 0.0)
    for tenth in range(1, 90):
        now_s = tenth * 0.4
        outgoing.acknowledge(0, tenth - 1, now_s)
        assert sent(outgoing, now_s) == [(0, tenth + WINDOW - 1)]


@pytest.mark.parametrize(("delay_s", "patience_s"), [(0.1, 0.5), (0.25, 0.5), (1.0, 2.0), (2.0, 4.0), (60.0, 4.0)])
def test_patience_follows_the_time_that_acknowledgements_take(delay_s: float, patience_s: float) -> None:
    outgoing = sender(b"a")
    sent(outgoing, 0.0)
    outgoing.acknowledge(0, 0, delay_s)
    outgoing.send(tensor(), b"b")
    assert sent(outgoing, 100.0) == [(1, 0)]
    assert sent(outgoing, 100.0 + patience_s - 0.01) == []
    assert sent(outgoing, 100.0 + patience_s) == [(1, 0)]


def test_acknowledgements_of_what_is_not_under_way_are_repeated() -> None:
    outgoing = sender(b"a", bytes(2 * CHUNK))
    sent(outgoing, 0.0)
    assert outgoing.acknowledge(0, 0, 0.0) == tensor(0)
    for sequence, chunk in [(0, 0), (9, 0), (1, 5)]:
        with pytest.raises(ProtocolError, match="repeated"):
            outgoing.acknowledge(sequence, chunk, 0.0)
    assert outgoing.acknowledge(1, 1, 0.0) is None
    assert len(outgoing) == 1
    assert outgoing.acknowledge(1, 0, 0.0) == tensor(1)
    assert len(outgoing) == 0


def test_what_is_undelivered_can_be_told_again_in_its_order() -> None:
    outgoing = sender(b"a", bytes(9 * CHUNK), b"c")
    sent(outgoing, 0.0)
    outgoing.acknowledge(0, 0, 0.0)
    assert [(message.group, bytes(body)) for message, body in outgoing.undelivered()] == [
        (1, bytes(9 * CHUNK)),
        (2, b"c"),
    ]


def test_messages_can_be_forgotten() -> None:
    outgoing = sender(b"a", bytes(9 * CHUNK), b"c", b"d")
    sent(outgoing, 0.0)
    outgoing.forget(lambda message: message.group in (1, 2))
    assert [message.group for message, _ in outgoing.undelivered()] == [0, 3]
    assert sent(outgoing, 0.0) == [(3, 0)]
    outgoing.acknowledge(0, 0, 0.1)
    outgoing.acknowledge(3, 0, 0.1)
    assert len(outgoing) == 0
    assert sent(outgoing, 9.0) == []


def chunks_of(*bodies: bytes) -> list[list[bytes]]:
    outgoing = sender(*bodies, window=1000)
    return list(outgoing.frames(0.0))


def test_chunks_come_in_any_order_and_count_once() -> None:
    incoming, frames = Incoming(5), chunks_of(b"abc" * CHUNK)
    assert receive(incoming, frames[2]) is None
    with pytest.raises(ProtocolError, match="repeated"):
        receive(incoming, frames[2])
    assert receive(incoming, frames[0]) is None
    message = receive(incoming, frames[1])
    assert message == Message(Kind.SHARE, ROUND, 0, 0, bytearray(b"abc" * CHUNK))
    for each in frames:
        with pytest.raises(ProtocolError, match="repeated"):
            receive(incoming, each)


def test_nothing_is_kept_of_what_is_not_awaited() -> None:
    def refuse(header: Header) -> None:
        raise ProtocolError("wrong round")

    incoming, frames = Incoming(5), chunks_of(bytes(2 * CHUNK))
    with pytest.raises(ProtocolError, match="wrong round"):
        receive(incoming, frames[0], refuse)
    assert not incoming._partial
    receive(incoming, frames[0])
    assert receive(incoming, frames[1], refuse) is not None  # it was awaited when it began


def test_chunks_of_one_message_must_agree() -> None:
    incoming, frames = Incoming(5), chunks_of(bytes(2 * CHUNK))
    receive(incoming, frames[0])
    header, part = decode_chunk(frames[1])
    with pytest.raises(ProtocolError, match="contradictory"):
        incoming.receive(header._replace(group=1), part, lambda header: None)
    assert receive(incoming, frames[1]) is not None


def test_only_a_few_messages_come_at_once() -> None:
    frames = chunks_of(*[bytes(2 * CHUNK)] * (WINDOW + 1))
    incoming = Incoming(5)
    for each in frames[: 2 * WINDOW : 2]:
        receive(incoming, each)
    with pytest.raises(ProtocolError, match="too many at once"):
        receive(incoming, frames[2 * WINDOW])
    assert receive(incoming, frames[1]) is not None
    assert receive(incoming, frames[2 * WINDOW]) is None


def test_parts_of_messages_can_be_forgotten() -> None:
    incoming, frames = Incoming(5), chunks_of(bytes(2 * CHUNK), bytes(2 * CHUNK))
    receive(incoming, frames[0])
    receive(incoming, frames[2])
    incoming.forget(lambda header: header.group == 0)
    assert receive(incoming, frames[1]) is None
    assert receive(incoming, frames[3]) is not None


def test_what_is_no_message_of_its_kind_is_not_taken_for_received() -> None:
    outgoing = Outgoing(ONE, 5)
    outgoing.send(Message(Kind.SEED, ROUND, 0, 0, None), b"\xc0")
    (frames,) = outgoing.frames(0.0)
    incoming = Incoming(5)
    for _ in range(2):
        with pytest.raises(ProtocolError, match="wrong schema"):
            receive(incoming, frames)


def test_a_limited_number_of_messages_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "REMEMBERED", 10)
    incoming, frames = Incoming(5), chunks_of(*[b""] * 100, bytes(2 * CHUNK))
    receive(incoming, frames[100])
    for each in frames[:50]:
        receive(incoming, each)
    assert len(incoming._complete) == 10
    receive(incoming, frames[99])
    assert len(incoming._complete) == 1
    with pytest.raises(ProtocolError, match="repeated"):
        receive(incoming, frames[89])
    assert receive(incoming, frames[90]) is not None
    header, part = decode_chunk(frames[100])
    for late in (header._replace(sequence=89), header._replace(sequence=88)):
        with pytest.raises(ProtocolError, match="repeated"):
            incoming.receive(late, part, lambda header: None)
    assert receive(incoming, frames[101]) is not None


def test_a_message_that_began_long_ago_is_still_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "REMEMBERED", 10)
    incoming, frames = Incoming(5), chunks_of(bytes(2 * CHUNK), *[b""] * 30)
    receive(incoming, frames[0])
    for each in frames[2:]:
        receive(incoming, each)
    assert receive(incoming, frames[1]) is not None
    with pytest.raises(ProtocolError, match="repeated"):
        receive(incoming, frames[1])


@pytest.mark.parametrize(
    ("session", "past"), [(100, False), (99, True), (101, False), (100 - SESSIONS, False), (101 - SESSIONS, True)]
)
def test_earlier_sessions_of_a_process_are_known(session: int, past: bool) -> None:
    assert is_past(session, present=100) is past


def test_acknowledgements_say_which_chunk_has_come() -> None:
    (_, frames) = chunks_of(bytes(2 * CHUNK))
    header, part = decode_chunk(acknowledgement(decode_chunk(frames)[0], OTHER))
    assert header == Header(Kind.ACKNOWLEDGE, ROUND, 0, 0, OTHER, 5, 0, 1, 2, 0)
    assert not part
