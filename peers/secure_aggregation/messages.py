"""Messages, byte for byte.

A message is cut into chunks; a chunk on the wire is two frames: a header, which is a msgpack array of fixed schema, and
a part of the message's body. Bodies of tensors are raw little-endian words; all others are msgpack arrays of fixed
schema. Whatever is not exactly so is a `ProtocolError`; nothing is ever unpickled, and nothing is allocated before it
is known to be awaited.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import repeat
from typing import Any, NamedTuple

import msgpack

VERSION = 1
KEY_BYTES = ROUND_BYTES = DIGEST_BYTES = 32
SIGNATURE_BYTES = 64
CHUNK_BYTES = 1 << 20
MOST_HEADER_BYTES = 256
MOST_BODY_BYTES = 1 << 38  # as far as the counter of ChaCha20 goes
MOST_CONTROL_BYTES = 1 << 23
MOST_LAYOUT_BYTES = MOST_CONTROL_BYTES - 16  # there is more in the message that tells it
MOST_SETTINGS = 1 << 14
MOST_TEXT = 1024
MOST_PEERS = 1 << 16
MOST_ENTRIES = 1 << 16
MOST_AXES = 16
LONGEST_PREFIX = 5  # of msgpack: what a value is, and how long
MOST_BYTES_OF_CHARACTER = 4
NO_ROUND = bytes(ROUND_BYTES)


class ProtocolError(ValueError):
    """What came is not what the protocol says; it is dropped and counted under `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Kind(IntEnum):
    """What a message is."""

    ACKNOWLEDGE = 0  # a chunk has come; never itself acknowledged
    WHO = 1  # server to a peer that it does not know: say hello; never acknowledged
    HELLO = 2
    WELCOME = 3
    SIGN_UP = 4
    STATUS = 5
    REFUSE = 6  # a peer's model, or its wish to take part
    ASSIGN = 7
    CONFIRM = 8  # a group as its members were told of it
    SEED = 9
    SHARE = 10
    DELIVERED = 11  # a group needs nothing more of the sender
    SEALED = 12  # a root actor's sum, encrypted
    READY = 13  # the other root actors have the sealed sum: here is its key
    OPEN = 14  # the keys of all
    PREPARED = 15  # as READY, between root actors whose server is gone
    KEY = 16
    RESULT = 17
    DONE = 18
    BEAT = 19
    ABORT = 20
    ABORTED = 21
    FAIL = 22
    EXPECT = 23  # the result will come from another peer
    SERVE = 24  # send the result to another peer
    BYE = 25


TENSORS = frozenset({Kind.SHARE, Kind.SEALED, Kind.RESULT})
UNACKNOWLEDGED = frozenset({Kind.ACKNOWLEDGE, Kind.WHO})


class Header(NamedTuple):
    """What every chunk begins with.

    Attributes:
        round: 32 random bytes; zero outside rounds.
        attempt: of the round, from 0.
        group: number of the group in its tree.
        sender: its public key.
        session: of the sender with this receiver, counted up from a random number in each process.
        sequence: of the message in that session.
        chunk: of the message, of `chunks` in all.
        length: of the body, in bytes.
    """

    kind: Kind
    round: bytes
    attempt: int
    group: int
    sender: bytes
    session: int
    sequence: int
    chunk: int
    chunks: int
    length: int


class Bytes(NamedTuple):
    """A field of bytes, as many as said, or at most."""

    length: int
    exact: bool = True

    @property
    def most_bytes(self) -> int:
        return LONGEST_PREFIX + self.length

    def check(self, value: Any) -> bool:
        return type(value) is bytes and (len(value) == self.length if self.exact else len(value) <= self.length)


class Text(NamedTuple):
    """A field of at most so many characters."""

    most: int = MOST_TEXT

    @property
    def most_bytes(self) -> int:
        return LONGEST_PREFIX + MOST_BYTES_OF_CHARACTER * self.most

    def check(self, value: Any) -> bool:
        return type(value) is str and len(value) <= self.most


class Whole(NamedTuple):
    """A whole number from 0 to below a bound."""

    below: int
    most_bytes = 9

    def check(self, value: Any) -> bool:
        return type(value) is int and 0 <= value < self.below


class Flag(NamedTuple):
    """A truth value."""

    most_bytes = 1

    def check(self, value: Any) -> bool:
        return type(value) is bool


class Listing(NamedTuple):
    """At most so many of the same field."""

    of: Any
    most: int

    @property
    def most_bytes(self) -> int:
        return LONGEST_PREFIX + self.most * self.of.most_bytes

    def check(self, value: Any) -> bool:
        return type(value) is list and len(value) <= self.most and all(self.of.check(item) for item in value)


class Row(NamedTuple):
    """Fields in their order."""

    fields: tuple[Any, ...]

    @property
    def most_bytes(self) -> int:
        return LONGEST_PREFIX + sum(field.most_bytes for field in self.fields)

    def check(self, value: Any) -> bool:
        return (
            type(value) is list
            and len(value) == len(self.fields)
            and all(field.check(item) for field, item in zip(self.fields, value, strict=True))
        )


WORD = Whole(1 << 63)
NUMBER = Whole(1 << 31)
KEY = Bytes(KEY_BYTES)
ADDRESS = Text(256)
HEADER = Row(
    (NUMBER, NUMBER, Bytes(ROUND_BYTES), NUMBER, NUMBER, KEY, WORD, WORD, NUMBER, NUMBER, Whole(MOST_BODY_BYTES))
)
LAYOUT = Listing(Row((Text(), Text(16), Listing(WORD, MOST_AXES))), MOST_ENTRIES)
PEER = Row((KEY, WORD, ADDRESS))  # public key, session, address
GROUP = Row(
    (
        NUMBER,  # number
        NUMBER,  # level
        Flag(),  # whether it is the root
        Listing(PEER, MOST_PEERS),  # members
        Listing(NUMBER, MOST_PEERS),  # which of them are actors
        Listing(Row((NUMBER, NUMBER)), MOST_PEERS),  # origins
    )
)
BODIES: dict[Kind, Row] = {
    Kind.HELLO: Row((WORD, ADDRESS)),  # session with other peers, own address
    Kind.WELCOME: Row((Text(MOST_SETTINGS),)),  # settings, as JSON
    Kind.SIGN_UP: Row((WORD, LAYOUT)),  # number of this wish, layout of the model
    Kind.STATUS: Row((NUMBER, NUMBER)),  # signed up, wanted
    Kind.REFUSE: Row((Text(),)),  # reason
    Kind.ASSIGN: Row((Bytes(MOST_CONTROL_BYTES, exact=False), Bytes(SIGNATURE_BYTES))),  # assignment, signature
    Kind.CONFIRM: Row((Bytes(DIGEST_BYTES),)),
    Kind.SEED: Row((Bytes(32),)),
    Kind.DELIVERED: Row(()),
    Kind.READY: Row((Bytes(32),)),
    Kind.OPEN: Row((Listing(Row((KEY, Bytes(32))), MOST_PEERS),)),  # root actor, key
    Kind.PREPARED: Row(()),
    Kind.KEY: Row((Bytes(32),)),
    Kind.DONE: Row(()),
    Kind.BEAT: Row((WORD, Listing(KEY, MOST_PEERS))),  # chunks moved so far, peers that are waited for
    Kind.ABORT: Row((Listing(KEY, MOST_PEERS),)),  # who is lost
    Kind.ABORTED: Row((Flag(), Flag())),  # whether the sender withholds something; whether it has given away its key
    Kind.FAIL: Row((Text(),)),  # reason
    Kind.EXPECT: Row((PEER,)),
    Kind.SERVE: Row((PEER,)),
    Kind.BYE: Row(()),
}
MOST_BYTES = {kind: min(body.most_bytes, MOST_CONTROL_BYTES) for kind, body in BODIES.items()}
ASSIGNMENT = Row(
    (
        Bytes(ROUND_BYTES),
        NUMBER,  # attempt
        NUMBER,  # n, peers in all
        Bytes(DIGEST_BYTES),  # of the layout
        Bytes(DIGEST_BYTES),  # of the settings
        Listing(GROUP, 64),  # the receiver's own groups
    )
)


@dataclass(frozen=True)
class Message:
    """A whole message.

    Attributes:
        body: raw bytes of a tensor, or else the values of its schema.
    """

    kind: Kind
    round: bytes
    attempt: int
    group: int
    body: Any


def pack(value: Any) -> bytes:
    """Return the msgpack bytes of a value."""
    return msgpack.packb(value, use_bin_type=True)


def unpack(schema: Row, data: bytes | bytearray | memoryview, most: int = MOST_CONTROL_BYTES) -> list[Any]:
    """Return the value that bytes stand for.

    Raises:
        ProtocolError: bytes that `pack` would not have made of a value of that schema.
    """
    if len(data) > most:
        raise ProtocolError("too long")
    source = msgpack.Unpacker(
        read_size=max(len(data), 1), max_buffer_size=most, max_array_len=0, max_map_len=0, max_ext_len=0
    )
    source.feed(data)
    try:
        value = _read(schema, source)
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolError("wrong schema") from error
    if pack(value) != bytes(data):
        raise ProtocolError("not the shortest form")
    return value


def _read(field: Any, source: msgpack.Unpacker) -> Any:
    """Return the next value, read along its schema, so that memory is taken for what is there, not for what is claimed.

    Raises:
        ValueError: another value.
    """
    if isinstance(field, Row):
        fields, length = field.fields, source.read_array_header()
        if length != len(fields):
            raise ValueError(f"expected {len(fields)} fields, got {length}")
    elif isinstance(field, Listing):
        length = source.read_array_header()
        if length > field.most:
            raise ValueError(f"expected at most {field.most} items, got {length}")
        fields = repeat(field.of, length)
    else:
        value = source.unpack()
        if not field.check(value):
            raise ValueError(f"expected {field}, got {type(value).__name__}")
        return value
    return [_read(each, source) for each in fields]


def encode_header(header: Header) -> bytes:
    """Return the frame of a header."""
    return pack([VERSION, int(header.kind), *header[1:]])


def decode_chunk(frames: Sequence[Any]) -> tuple[Header, memoryview]:
    """Return the header of a chunk and its part of the body.

    Raises:
        ProtocolError: anything else than a chunk.
    """
    if len(frames) != 2:
        raise ProtocolError("wrong number of frames")
    head, part = memoryview(frames[0]).cast("B"), memoryview(frames[1]).cast("B")
    version, kind, *rest = unpack(HEADER, head, MOST_HEADER_BYTES)
    if version != VERSION:
        raise ProtocolError("other version")
    try:
        header = Header(Kind(kind), *rest)
    except ValueError:
        raise ProtocolError("unknown kind") from None
    if header.kind in UNACKNOWLEDGED:
        if len(part) or header.length:
            raise ProtocolError("wrong length")
        return header, part
    if header.length > MOST_BYTES.get(header.kind, MOST_BODY_BYTES):
        raise ProtocolError("too long")
    if header.chunks != number_of_chunks(header.length) or header.chunk >= header.chunks:
        raise ProtocolError("wrong number of chunks")
    if len(part) != min(CHUNK_BYTES, header.length - header.chunk * CHUNK_BYTES):
        raise ProtocolError("wrong length")
    return header, part


def number_of_chunks(length: int) -> int:
    """Return into how many chunks a body is cut: at least one."""
    return max(-(-length // CHUNK_BYTES), 1)


def encode_body(kind: Kind, values: Sequence[Any]) -> bytes:
    """Return the body of a message that is no tensor."""
    if not BODIES[kind].check(list(values)):
        raise ValueError(f"{kind.name}: expected a body of its schema, got {values!r}")
    return pack(list(values))


def decode_body(kind: Kind, body: bytes | bytearray) -> Any:
    """Return a body's values, or the bytes of a tensor.

    Raises:
        ProtocolError: not the schema of that kind.
    """
    return body if kind in TENSORS else unpack(BODIES[kind], body, MOST_BYTES[kind])
