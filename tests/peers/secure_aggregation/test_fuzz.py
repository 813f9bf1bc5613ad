import contextlib
import gc
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import fuzz_peers
from benchmarks.fuzz_peers import ADDRESSES, STEP_S, Report, World, fuzz
from peers.keys import Identity, create_several
from peers.secure_aggregation import channel, messages
from peers.secure_aggregation import peer as peer_module
from peers.secure_aggregation.assignment import decode_assignment
from peers.secure_aggregation.messages import (
    ASSIGNMENT,
    BODIES,
    TENSORS,
    UNACKNOWLEDGED,
    Bytes,
    Flag,
    Header,
    Kind,
    Listing,
    ProtocolError,
    Row,
    Text,
    Whole,
    decode_body,
    decode_chunk,
    encode_body,
    encode_header,
    number_of_chunks,
    pack,
)

KEYS = [bytes([i]) * 32 for i in range(5)]


def values_of(schema: Any) -> st.SearchStrategy:
    """Return any values of a schema, numbers and keys being few, so that they meet again."""
    match schema:
        case Bytes(32, True):
            return st.sampled_from(KEYS)
        case Bytes(length, exact):
            return st.binary(min_size=length if exact else 0, max_size=min(length, 64))
        case Text(most):
            return st.text(max_size=min(most, 40))
        case Whole(below):
            return st.integers(0, 5) | st.integers(0, below - 1)
        case Flag():
            return st.booleans()
        case Listing(of, most):
            return st.lists(values_of(of), max_size=min(most, 5))
        case Row(fields):
            return st.tuples(*map(values_of, fields)).map(list)


# Decoding


@given(st.lists(st.binary(max_size=300), max_size=3))
def test_noise_is_no_chunk(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        decode_chunk(frames)


@given(values_of(messages.HEADER), st.binary(max_size=8), st.sampled_from([0, 1, 2]), st.integers(0, 30))
def test_any_header_is_taken_as_it_is_or_dropped(fields: list[Any], part: bytes, version: int, kind: int) -> None:
    fields[:2] = [version, kind]
    try:
        header, rest = decode_chunk([pack(fields), part])
    except ProtocolError:
        return
    assert version == 1
    assert [1, int(header.kind), *header[1:]] == fields
    assert rest == part
    if header.kind not in UNACKNOWLEDGED:
        assert header.chunk < header.chunks == number_of_chunks(header.length)


@given(st.sampled_from(sorted(BODIES)), st.binary(max_size=200))
def test_bytes_are_a_body_in_one_way_or_dropped(kind: Kind, data: bytes) -> None:
    try:
        values = decode_body(kind, data)
    except ProtocolError:
        return
    assert encode_body(kind, values) == data


@given(st.data())
def test_any_body_comes_back_and_none_with_a_byte_changed_is_another_form_of_it(data: Any) -> None:
    kind = data.draw(st.sampled_from(sorted(BODIES)))
    values = data.draw(values_of(BODIES[kind]))
    body = bytearray(encode_body(kind, values))
    assert decode_body(kind, body) == values
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ProtocolError):
        assert decode_body(kind, body) != values


@given(values_of(ASSIGNMENT))
def test_any_assignment_is_taken_as_it_is_or_dropped(fields: list[Any]) -> None:
    data = pack(fields)
    try:
        assignment = decode_assignment(data)
    except ProtocolError:
        return
    for key in KEYS:
        with contextlib.suppress(ProtocolError):
            assignment.check(key)
            assert assignment.encode() == data


# Endpoints in the middle of rounds


def test_a_server_and_peers_survive_what_villains_send() -> None:
    report = fuzz(6000, seed=3)
    assert not report.crashes
    assert report.rounds > 0
    assert report.outcomes["an average"] > 0
    assert len(report.frames) == 10
    assert report.frames.total() >= 6000
    decoding = "number of frames, schema, length, number of chunks"
    assert {f"wrong {what}" for what in decoding.split(", ")} <= set(report.undecoded)
    assert {"too long", "not the shortest form", "other version", "unknown kind"} <= set(report.undecoded)
    assert {"wrong sender", "wrong session", "wrong round", "wrong kind", "repeated"} <= set(report.dropped)


def test_a_crash_is_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fuzz_peers.Scheduler, "_on_beat", lambda self, sender, message: 1 / 0)
    assert fuzz_peers.main(["--frames", "200"]) == 1
    printed = capsys.readouterr()
    assert "ZeroDivisionError: division by zero in test_fuzz.py:" in printed.out
    assert "malformed frames in" in printed.out


# Floods: nobody who is permitted may fill another's memory with what is well-formed


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    names = ["server", *(f"p{i}" for i in range(fuzz_peers.PEERS))]
    return create_several(names, Path(tmp_path_factory.mktemp("fuzz"), "keys"))


@pytest.fixture
def world(identities: list[Identity], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(channel, "REMEMBERED", 64)  # limits that are reached soon
    monkeypatch.setattr(peer_module, "MOST_EARLY", 100)
    world = World(identities, Report(), random.Random(1), combined=False)
    world.change_villains = lambda: None
    yield world
    assert not world.report.crashes


def go_on(world: World, until: Callable[[], Any], seconds: float = 60) -> None:
    for _ in range(int(seconds / STEP_S)):
        if until():
            return
        for _ in world.step():
            pass
    raise AssertionError("it never happened")


def attempts(world: World) -> list[Any]:
    return [peer for peer in map(world.endpoints.get, world.keys[1:]) if peer.attempt is not None]


class Flood:
    """One who sends messages of a kind to one receiver, and acknowledges nothing."""

    def __init__(self, world: World, sender: bytes, receiver: bytes) -> None:
        self.world, self.sender, self.receiver = world, sender, receiver
        self.session = world.endpoints[sender].channel(receiver).session
        self.sequence = 1000

    def send(self, kind: Kind, *values: Any, body: bytes | None = None, **fields: Any) -> None:
        body = encode_body(kind, values) if kind not in TENSORS else body
        self.sequence += 1
        header = Header(kind, bytes(32), 0, 0, self.sender, self.session, self.sequence, 0, 1, len(body))
        self.world.deliver(self.sender, self.receiver, [encode_header(header._replace(**fields)), body])

    def growth(self, send: Callable[[int], None]) -> float:
        """Return by how many bytes the receiver has grown for each of many messages."""
        held, count, receiver = [], 500, self.world.endpoints[self.receiver]
        tracemalloc.start()
        try:
            for i in range(2 * count):
                send(i)
                if i in (count - 1, 2 * count - 1):  # whatever has a limit has reached it when the second half begins
                    receiver.outgoing(self.world.now_s)
                    gc.collect()
                    held.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        return (held[1] - held[0]) / count


MOST_BYTES = 30
"""For each message of a flood; a number that is kept would take more, with its place in a set."""


def flood_of_server(world: World) -> Flood:
    """Return a villain who is in a round that has begun."""
    go_on(world, lambda: world.endpoints[world.server.key].round is not None)
    round_ = world.endpoints[world.server.key].round
    flood = Flood(world, round_.members[0], world.server.key)
    flood.round = {"round": round_.id, "attempt": round_.attempt}
    return flood


TO_THE_SERVER = ["HELLO", "HELLO of new processes", "BYE and HELLO", "SIGN_UP", "DELIVERED"]


@pytest.mark.parametrize("kind", [*TO_THE_SERVER, "BEAT", "READY", "DONE", "ABORTED", "unknown"])
def test_floods_do_not_fill_the_server(world: World, kind: str) -> None:
    flood = flood_of_server(world)
    peer = world.endpoints[flood.sender]

    def hello(session: int) -> None:
        flood.session += 1
        flood.send(Kind.HELLO, session, ADDRESSES[0])

    send: dict[str, Callable[[int], None]] = {
        "HELLO": lambda i: hello(peer.session),
        "HELLO of new processes": hello,
        "SIGN_UP": lambda i: flood.send(Kind.SIGN_UP, 100 + i, [["x", "bool", [1]]]),
        "DELIVERED": lambda i: flood.send(Kind.DELIVERED, group=i, **flood.round),
        "BEAT": lambda i: flood.send(Kind.BEAT, i, [world.keys[1]]),
        "READY": lambda i: flood.send(Kind.READY, i.to_bytes(32, "big"), **flood.round),
        "DONE": lambda i: flood.send(Kind.DONE, **flood.round),
        "ABORTED": lambda i: flood.send(Kind.ABORTED, True, False, **flood.round),
        "BYE and HELLO": lambda i: flood.send(Kind.BYE) if i % 2 else hello(i),
        "unknown": lambda i: flood.send(Kind.DONE, session=i),
    }
    server = world.endpoints[world.server.key]
    before = server.dropped.total()
    assert flood.growth(send[kind]) < MOST_BYTES
    if kind in TO_THE_SERVER:
        assert server.dropped.total() == before, "the flood did not come through"


@pytest.mark.parametrize(
    "kind", ["CONFIRM", "CONFIRM of the next attempt", "PREPARED", "PREPARED of a past round", "SHARE", "RESULT", "KEY"]
)
def test_floods_do_not_fill_a_peer(world: World, kind: str) -> None:
    go_on(world, lambda: len(attempts(world)) == fuzz_peers.TARGET)
    victim = next(peer for peer in attempts(world) if peer.attempt.assignment.groups[-1].is_root)
    assignment = victim.attempt.assignment
    root = assignment.groups[-1]
    where = {"round": assignment.round, "attempt": assignment.attempt, "group": root.number}
    flood = Flood(world, next(key for key in root.actors if key != victim.key), victim.key)
    if "past" in kind:
        go_on(world, lambda: victim.attempt is None or victim.attempt.assignment is not assignment)
    share, result = bytes(8 * victim.wish.layout.words), bytes(victim.wish.layout.packed_bytes)
    send: dict[str, Callable[[int], None]] = {
        "CONFIRM": lambda i: flood.send(Kind.CONFIRM, bytes(32), round=i.to_bytes(32, "big")),
        "CONFIRM of the next attempt": lambda i: flood.send(
            Kind.CONFIRM, bytes(32), **{**where, "attempt": assignment.attempt + 1}
        ),
        "PREPARED": lambda i: flood.send(Kind.PREPARED, **where),
        "PREPARED of a past round": lambda i: flood.send(Kind.PREPARED, **where),
        "SHARE": lambda i: flood.send(Kind.SHARE, body=share, **where),
        "RESULT": lambda i: flood.send(Kind.RESULT, body=result, **where),
        "KEY": lambda i: flood.send(Kind.KEY, bytes(32), **where),
    }
    assert flood.growth(send[kind]) < MOST_BYTES
