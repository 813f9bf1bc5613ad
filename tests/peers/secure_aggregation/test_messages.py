import struct
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.secure_aggregation.messages import (
    ASSIGNMENT,
    BODIES,
    CHUNK_BYTES,
    HEADER,
    LAYOUT,
    MOST_BODY_BYTES,
    MOST_BYTES,
    MOST_CONTROL_BYTES,
    MOST_ENTRIES,
    MOST_HEADER_BYTES,
    MOST_PEERS,
    MOST_SETTINGS,
    TENSORS,
    UNACKNOWLEDGED,
    WORD,
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
    unpack,
)

A, B, C = (bytes([i]) * 32 for i in (1, 2, 3))
BIN_A, BIN_B, BIN_C = ("c420" + f"{i:02}" * 32 for i in (1, 2, 3))
BODY_BYTES: dict[Kind, tuple[list[Any], str]] = {
    Kind.HELLO: ([5, "tcp://a:1"], "9205a9" + b"tcp://a:1".hex()),
    Kind.WELCOME: (["{}"], "91a27b7d"),
    Kind.SIGN_UP: (
        [3, [["w", "float32", [2, 300]], ["é", "int64", []]]],
        "92039293a177a7666c6f617433329202cd012c93a2c3a9a5696e74363490",
    ),
    Kind.STATUS: ([2, 6], "920206"),
    Kind.REFUSE: (["no"], "91a26e6f"),
    Kind.ASSIGN: ([b"\1\2", bytes(64)], "92c4020102c440" + "00" * 64),
    Kind.CONFIRM: ([A], "91" + BIN_A),
    Kind.SEED: ([B], "91" + BIN_B),
    Kind.DELIVERED: ([], "90"),
    Kind.READY: ([A], "91" + BIN_A),
    Kind.OPEN: ([[[A, B], [B, C]]], "919292" + BIN_A + BIN_B + "92" + BIN_B + BIN_C),
    Kind.PREPARED: ([], "90"),
    Kind.KEY: ([C], "91" + BIN_C),
    Kind.DONE: ([], "90"),
    Kind.BEAT: ([70000, [A]], "92ce0001117091" + BIN_A),
    Kind.ABORT: ([[A, B]], "9192" + BIN_A + BIN_B),
    Kind.ABORTED: ([True, False], "92c3c2"),
    Kind.FAIL: (["x" * 40], "91d928" + "78" * 40),
    Kind.EXPECT: ([[A, 2**62, "tcp://[::1]:7"]], "9193" + BIN_A + "cf4000000000000000ad" + b"tcp://[::1]:7".hex()),
    Kind.SERVE: ([[B, 9, ""]], "9193" + BIN_B + "09a0"),
    Kind.BYE: ([], "90"),
}
HEADERS: list[tuple[Header, str]] = [
    (
        Header(Kind.SHARE, bytes(range(32)), 0, 300, bytes(range(32, 64)), 2**62 - 1, 128, 1, 2, CHUNK_BYTES + 8),
        "9b" "01" "0a" "c420" + bytes(range(32)).hex() + "00" "cd012c" "c420" + bytes(range(32, 64)).hex()
        + "cf3fffffffffffffff" "cc80" "01" "02" "ce00100008",
    ),
    (
        Header(Kind.ACKNOWLEDGE, A, 2, 0, B, 7, 0, 3, 4, 0),
        "9b" "01" "00" + BIN_A + "02" "00" + BIN_B + "07" "00" "03" "04" "00",
    ),
    (
        Header(Kind.WHO, bytes(32), 0, 0, A, 0, 0, 0, 0, 0),
        "9b" "01" "01" "c420" + "00" * 32 + "00" "00" + BIN_A + "00" * 5,
    ),
    (
        Header(Kind.BYE, A, 1, 1, A, 1, 1, 0, 1, 1),
        "9b" "01" "19" + BIN_A + "01" "01" + BIN_A + "01" "01" "00" "01" "01",
    ),
]  # fmt: skip
forms = pytest.mark.parametrize("form", [bytes, bytearray, memoryview])


def drop(reason: str, call: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(ProtocolError) as error:
        call(*arguments)
    assert error.value.reason == reason == str(error.value)


# Exact bytes


def test_numbers_of_kinds_stay() -> None:
    names = (
        "ACKNOWLEDGE WHO HELLO WELCOME SIGN_UP STATUS REFUSE ASSIGN CONFIRM SEED SHARE DELIVERED SEALED READY OPEN "
        "PREPARED KEY RESULT DONE BEAT ABORT ABORTED FAIL EXPECT SERVE BYE"
    )
    assert {kind.name: int(kind) for kind in Kind} == {name: i for i, name in enumerate(names.split())}


@forms
@pytest.mark.parametrize("kind", BODIES)
def test_bytes_of_every_body(kind: Kind, form: type) -> None:
    values, hexadecimal = BODY_BYTES[kind]
    assert encode_body(kind, values).hex() == hexadecimal
    assert decode_body(kind, form(bytes.fromhex(hexadecimal))) == values


def test_every_kind_has_a_body_of_its_own() -> None:
    assert set(BODIES) | TENSORS | UNACKNOWLEDGED == set(Kind)
    assert len(BODIES) + len(TENSORS) + len(UNACKNOWLEDGED) == len(Kind)
    assert set(BODY_BYTES) == set(BODIES)


@forms
@pytest.mark.parametrize(("header", "hexadecimal"), HEADERS, ids=[header.kind.name for header, _ in HEADERS])
def test_bytes_of_headers(header: Header, hexadecimal: str, form: type) -> None:
    assert encode_header(header).hex() == hexadecimal
    part = bytes(max(min(CHUNK_BYTES, header.length - header.chunk * CHUNK_BYTES), 0))
    got, rest = decode_chunk([form(bytes.fromhex(hexadecimal)), form(part)])
    assert got == header
    assert type(got.kind) is Kind
    assert bytes(rest) == part


@forms
@pytest.mark.parametrize("kind", sorted(TENSORS))
def test_bodies_of_tensors_are_raw(kind: Kind, form: type) -> None:
    data = form(b"\xc1\xff\0")
    assert decode_body(kind, data) is data


def test_the_largest_header_fits() -> None:
    largest = Header(Kind.BYE, A, 2**31 - 1, 2**31 - 1, A, 2**63 - 1, 2**63 - 1, 2**31 - 1, 2**31 - 1, 2**38 - 1)
    assert len(encode_header(largest)) == 118 < MOST_HEADER_BYTES
    assert MOST_BODY_BYTES == 2**38  # 2^32 blocks of 64 bytes: the counter of ChaCha20


def test_bodies_that_are_not_of_their_schema_are_not_encoded() -> None:
    for kind, values in [(Kind.STATUS, [1]), (Kind.BYE, [0]), (Kind.SEED, [bytes(31)]), (Kind.ABORTED, [1, 0])]:
        with pytest.raises(ValueError, match=f"{kind.name}: expected a body of its schema, got"):
            encode_body(kind, values)


@given(
    st.sampled_from(sorted(set(Kind) - UNACKNOWLEDGED)),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 5 * CHUNK_BYTES),
    st.data(),
)
def test_any_header_comes_back(
    kind: Kind, key: bytes, attempt: int, group: int, session: int, sequence: int, length: int, data: Any
) -> None:
    length = min(length, MOST_BYTES.get(kind, length))
    chunks = number_of_chunks(length)
    chunk = data.draw(st.integers(0, chunks - 1))
    header = Header(kind, key[::-1], attempt, group, key, session, sequence, chunk, chunks, length)
    part = bytes(min(CHUNK_BYTES, length - chunk * CHUNK_BYTES))
    assert decode_chunk([encode_header(header), part]) == (header, part)


# Bounds of each schema, on both sides


def least(field: Any) -> Any:
    """Return the smallest value of a schema."""
    match field:
        case Bytes(length, exact):
            return bytes(length if exact else 0)
        case Text():
            return ""
        case Whole():
            return 0
        case Flag():
            return False
        case Listing():
            return []
        case Row(fields):
            return [least(each) for each in fields]


def within(field: Any) -> Iterator[tuple[str, Any]]:
    """Yield the largest value of a schema, or of each of its parts."""
    match field:
        case Bytes(length, exact) if not exact:
            yield "bytes", bytes(min(length, MOST_CONTROL_BYTES - 100))
        case Text(most):
            yield "text", "x" * most
            yield "wide text", "\U0001f600" * most
        case Whole(below):
            yield "number", below - 1
        case Flag():
            yield "flag", True
        case Listing(of, most):
            for label, value in within(of):
                yield f"one {label}", [value]
            if most * len(pack(least(of))) < MOST_CONTROL_BYTES - 100:
                yield "list", [least(of)] * most
        case Row(fields):
            for i, each in enumerate(fields):
                for label, value in within(each):
                    yield f"{i} {label}", [*map(least, fields[:i]), value, *map(least, fields[i + 1 :])]


def beyond(field: Any) -> Iterator[tuple[str, Any]]:
    """Yield values just outside a schema, each wrong in one place."""
    strange = [("none", None), ("map", {}), ("float", 0.0), ("ext", msgpack.ExtType(1, b""))]
    match field:
        case Bytes(length, exact):
            if exact:
                yield "short", bytes(length - 1)
            if length + 1 < MOST_CONTROL_BYTES:
                yield "long", bytes(length + 1)
            yield from [*strange, ("text", "x" * length if exact else ""), ("number", 0), ("list", [])]
        case Text(most):
            yield "long", "x" * (most + 1)
            yield from [*strange, ("bytes", b""), ("number", 0), ("list", [])]
        case Whole(below):
            yield "large", below
            yield "negative", -1
            yield from [*strange, ("truth value", True), ("text", "0"), ("bytes", b"\0"), ("list", [0])]
        case Flag():
            yield from [*strange, ("number", 1), ("text", "true"), ("list", [])]
        case Listing(of, most):
            if (most + 1) * len(pack(least(of))) < MOST_CONTROL_BYTES - 100:
                yield "long", [least(of)] * (most + 1)
            for label, value in beyond(of):
                yield f"one {label}", [value]
            yield from [*strange, ("text", ""), ("bytes", b""), ("number", 0)]
        case Row(fields):
            yield "long", [*map(least, fields), 0]
            if fields:
                yield "short", [*map(least, fields[:-1])]
            for i, each in enumerate(fields):
                for label, value in beyond(each):
                    yield f"{i} {label}", [*map(least, fields[:i]), value, *map(least, fields[i + 1 :])]
            yield from [*strange, ("text", ""), ("bytes", b""), ("number", 0)]


SCHEMAS = {kind.name: schema for kind, schema in BODIES.items()} | {"assignment": ASSIGNMENT, "header": HEADER}


@pytest.mark.parametrize("name", SCHEMAS)
def test_largest_and_smallest_values_of_each_schema(name: str) -> None:
    schema = SCHEMAS[name]
    for label, value in [("least", least(schema)), *within(schema)]:
        assert schema.check(value), label
        assert unpack(schema, pack(value)) == value, label


@pytest.mark.parametrize("name", SCHEMAS)
def test_values_just_outside_each_schema_are_dropped(name: str) -> None:
    schema = SCHEMAS[name]
    for label, value in beyond(schema):
        assert not schema.check(value), label
        drop("wrong schema", unpack, schema, pack(value))


def test_limits_that_others_rely_on() -> None:
    assert BODIES[Kind.SIGN_UP].fields[1].most == MOST_ENTRIES
    assert BODIES[Kind.WELCOME].fields[0].most == MOST_SETTINGS
    for schema in BODIES.values():
        assert all(field.most == MOST_PEERS for field in schema.fields if isinstance(field, Listing)) or (
            schema is BODIES[Kind.SIGN_UP]
        )


def test_lengths_of_bodies_and_headers_are_limited() -> None:
    schema = Row((Bytes(MOST_CONTROL_BYTES, exact=False),))
    largest = pack([bytes(MOST_CONTROL_BYTES - 6)])
    assert len(largest) == MOST_CONTROL_BYTES
    assert unpack(schema, largest) == [bytes(MOST_CONTROL_BYTES - 6)]
    drop("too long", unpack, schema, largest + b"\0")
    drop("too long", decode_body, Kind.FAIL, bytes(MOST_BYTES[Kind.FAIL] + 1))
    drop("too long", decode_chunk, [bytes(MOST_HEADER_BYTES + 1), b""])
    drop("wrong schema", decode_chunk, [bytes(MOST_HEADER_BYTES), b""])


def longest(field: Any) -> Any:
    """Return the value of a schema that takes most bytes."""
    match field:
        case Bytes(length, _):
            return bytes(length)
        case Text(most):
            return "\U0001f600" * most
        case Whole(below):
            return below - 1
        case Flag():
            return True
        case Listing(of, most):
            return [longest(of)] * most
        case Row(fields):
            return list(map(longest, fields))
    raise AssertionError(field)


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_have_room_for_all_of_their_schema_and_little_else(kind: Kind) -> None:
    schema = Row(tuple(each._replace(most=20) if isinstance(each, Listing) else each for each in BODIES[kind].fields))
    if kind == Kind.SIGN_UP:
        schema = Row((WORD, Listing(LAYOUT.of, 20)))
    size = len(pack(longest(schema)))
    assert size <= schema.most_bytes <= 1.5 * size + 10
    assert MOST_BYTES[kind] == min(BODIES[kind].most_bytes, MOST_CONTROL_BYTES)


def chunk_of(kind: Kind, length: int) -> list[bytes]:
    header = Header(kind, A, 0, 0, B, 0, 0, 0, number_of_chunks(length), length)
    return [encode_header(header), bytes(min(length, CHUNK_BYTES))]


@pytest.mark.parametrize("kind", BODIES)
def test_the_length_of_a_body_is_limited_by_its_schema_before_it_is_there(kind: Kind) -> None:
    decode_chunk(chunk_of(kind, MOST_BYTES[kind]))
    drop("too long", decode_chunk, chunk_of(kind, MOST_BYTES[kind] + 1))


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_are_as_long_as_they_are(kind: Kind) -> None:
    decode_chunk(chunk_of(kind, 100 * MOST_CONTROL_BYTES))


# Not the shortest form


@pytest.mark.parametrize(
    ("name", "hexadecimal"),
    [
        ("number of 8 bits", "92" "cc05" "06"),
        ("number of 16 bits", "92" "cd0005" "06"),
        ("number of 32 bits", "92" "ce00000005" "06"),
        ("number of 64 bits", "92" "cf0000000000000005" "06"),
        ("signed number", "92" "d005" "06"),
        ("list of 16 bits", "dc0002" "05" "06"),
        ("list of 32 bits", "dd00000002" "05" "06"),
        ("something behind", "92" "05" "06" "00"),
        ("another body behind", "92" "05" "06" "92" "05" "06"),
        ("an unfinished list behind", "92" "05" "06" "dd"),
    ],
)  # fmt: skip
def test_other_forms_of_the_same_numbers_are_dropped(name: str, hexadecimal: str) -> None:
    assert unpack(BODIES[Kind.STATUS], bytes.fromhex("920506")) == [5, 6]
    drop("not the shortest form", unpack, BODIES[Kind.STATUS], bytes.fromhex(hexadecimal))


@pytest.mark.parametrize("hexadecimal", ["91d90178", "91da000178", "91db0000000178"])
def test_other_forms_of_the_same_text_are_dropped(hexadecimal: str) -> None:
    assert unpack(BODIES[Kind.FAIL], bytes.fromhex("91a178")) == ["x"]
    drop("not the shortest form", unpack, BODIES[Kind.FAIL], bytes.fromhex(hexadecimal))


@pytest.mark.parametrize("head", ["c50020", "c600000020"])
def test_other_forms_of_the_same_bytes_are_dropped(head: str) -> None:
    drop("not the shortest form", unpack, BODIES[Kind.SEED], bytes.fromhex("91" + head) + A)


NONSENSE = "- 91 91a2 91a278 91a1ff 91a3eda080 c1 91c1 91d4017f 91d6ff00000000 91c70001 81a0a0"


@pytest.mark.parametrize("hexadecimal", [each.strip("-") for each in NONSENSE.split()])
def test_what_is_no_msgpack_or_no_such_text_is_dropped(hexadecimal: str) -> None:
    drop("wrong schema", unpack, BODIES[Kind.FAIL], bytes.fromhex(hexadecimal))


# Memory


HUGE = struct.pack(">I", 2**32 - 1)


@pytest.mark.parametrize("kind", [Kind.SIGN_UP, Kind.OPEN, Kind.BEAT, Kind.FAIL, Kind.ASSIGN])
@pytest.mark.parametrize(
    "attack",
    [
        b"\xdd" + HUGE,
        b"\x91\xdd" + HUGE,
        b"\x92\0\xdd" + HUGE,
        b"\x92\0\xdd" + struct.pack(">I", MOST_PEERS),
        b"\x91\xdb" + HUGE,
        b"\x91\xc6" + HUGE,
        b"\x91\xdf" + HUGE,
        b"\x91\xc9" + HUGE + b"\1",
        b"\x91" * 2000,
        (b"\xdd" + HUGE) * 2000,
        (b"\xdd" + struct.pack(">I", 10_000)) * 1000 + bytes(5000),
        b"\x91" + (b"\xdd" + struct.pack(">I", 10_000)) * 1000 + bytes(5000),
        b"\x92\0\x91" + (b"\xdd" + struct.pack(">I", 10_000)) * 1000 + bytes(5000),
        b"\x92\0\xdd" + struct.pack(">I", 60_000) + b"\x93\xa0\xa0" * 1000,
    ],
    ids=lambda attack: attack[:12].hex(),
)
def test_no_memory_is_taken_for_what_is_only_claimed(kind: Kind, attack: bytes) -> None:
    tracemalloc.start()
    try:
        drop("wrong schema" if len(attack) <= MOST_BYTES[kind] else "too long", decode_body, kind, attack)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_a_body_full_of_small_lists_stops_at_the_first() -> None:
    attack = b"\x92\0\xdd" + struct.pack(">I", MOST_ENTRIES) + b"\x90" * (MOST_CONTROL_BYTES - 7)
    tracemalloc.start()
    try:
        drop("wrong schema", decode_body, Kind.SIGN_UP, attack)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * MOST_CONTROL_BYTES  # its own buffer, and no object for any of the lists


# Chunks


def chunk(**changes: Any) -> list[bytes]:
    header = Header(Kind.SHARE, A, 0, 0, B, 1, 2, 0, 1, 1)._replace(**changes)
    return [encode_header(header), bytes(1)]


@pytest.mark.parametrize("frames", [[], [b""], [b"", b"", b""], chunk()[:1], [*chunk(), b""], [b"", *chunk()]])
def test_other_numbers_of_frames_are_dropped(frames: list[bytes]) -> None:
    drop("wrong number of frames", decode_chunk, frames)


def test_other_versions_and_kinds_are_dropped() -> None:
    head, part = chunk()
    for version in (0, 2, 2**31 - 1):
        drop("other version", decode_chunk, [pack([version, *msgpack.unpackb(head)[1:]]), part])
    for kind in (26, 2**31 - 1):
        drop("unknown kind", decode_chunk, [pack([1, kind, *msgpack.unpackb(head)[2:]]), part])


@pytest.mark.parametrize(
    ("changes", "size", "reason"),
    [
        ({}, 1, None),
        ({}, 0, "wrong length"),
        ({}, 2, "wrong length"),
        ({"length": 0}, 0, None),
        ({"length": 0}, 1, "wrong length"),
        ({"length": 0, "chunks": 0}, 0, "wrong number of chunks"),
        ({"chunk": 1}, 1, "wrong number of chunks"),
        ({"chunks": 2}, 1, "wrong number of chunks"),
        ({"chunks": 2, "chunk": 1, "length": CHUNK_BYTES + 1}, 1, None),
        ({"chunks": 2, "chunk": 1, "length": CHUNK_BYTES + 1}, 0, "wrong length"),
        ({"chunks": 2, "chunk": 1, "length": CHUNK_BYTES + 1}, 2, "wrong length"),
        ({"chunks": 2, "chunk": 0, "length": CHUNK_BYTES + 1}, CHUNK_BYTES, None),
        ({"chunks": 2, "chunk": 0, "length": CHUNK_BYTES + 1}, CHUNK_BYTES + 1, "wrong length"),
        ({"chunks": 2, "chunk": 0, "length": CHUNK_BYTES + 1}, CHUNK_BYTES - 1, "wrong length"),
        ({"chunks": 2, "chunk": 2, "length": CHUNK_BYTES + 1}, 1, "wrong number of chunks"),
        ({"chunks": 1, "chunk": 0, "length": CHUNK_BYTES}, CHUNK_BYTES, None),
        ({"chunks": 2, "chunk": 1, "length": CHUNK_BYTES}, 0, "wrong number of chunks"),
        ({"chunks": 2**18, "chunk": 2**18 - 1, "length": 2**38 - 1}, CHUNK_BYTES - 1, None),
        ({"kind": Kind.ACKNOWLEDGE, "length": 0, "chunk": 7, "chunks": 3}, 0, None),
        ({"kind": Kind.ACKNOWLEDGE, "length": 1}, 0, "wrong length"),
        ({"kind": Kind.WHO, "length": 0}, 1, "wrong length"),
    ],
)
def test_lengths_and_numbers_of_chunks_must_agree(changes: dict[str, Any], size: int, reason: str | None) -> None:
    frames = [chunk(**changes)[0], bytes(size)]
    if reason is None:
        _, part = decode_chunk(frames)
        assert len(part) == size
    else:
        drop(reason, decode_chunk, frames)


@pytest.mark.parametrize(
    ("length", "chunks"),
    [(0, 1), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (2 * CHUNK_BYTES, 2), (2**38 - 1, 2**18)],
)
def test_bodies_are_cut_into_chunks(length: int, chunks: int) -> None:
    assert number_of_chunks(length) == chunks


@given(st.integers(0, 10), st.data())
def test_headers_that_are_cut_or_have_one_byte_changed_are_the_same_or_dropped(cut: int, data: Any) -> None:
    head, part = chunk()
    drop("wrong schema", decode_chunk, [head[: len(head) - 1 - cut], part])
    place, value = data.draw(st.integers(0, len(head) - 1)), data.draw(st.integers(0, 255))
    changed = head[:place] + bytes([value]) + head[place + 1 :]
    try:
        header, _ = decode_chunk([changed, part])
    except ProtocolError:
        assert changed != head
    else:
        assert encode_header(header) == changed
