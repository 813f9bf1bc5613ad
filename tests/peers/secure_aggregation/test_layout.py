import hashlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.secure_aggregation import layout as module
from peers.secure_aggregation.layout import (
    FLOATS,
    INTEGERS,
    ITEM_BYTES,
    Entry,
    Layout,
    numpy_dtype,
    pack_arrays,
    unpack_arrays,
)
from peers.secure_aggregation.messages import MOST_BODY_BYTES, MOST_LAYOUT_BYTES, pack

TWO = [Entry("b", "float16", (2, 3)), Entry("a", "int64", ())]


def entry(name: object = "a", dtype: str = "float32", shape: tuple[int, ...] = (2,)) -> Entry:
    return Entry(name, dtype, shape)


def test_entries_are_sorted_by_name_and_counted() -> None:
    layout = Layout.of(TWO)
    assert [each.name for each in layout.entries] == ["a", "b"]
    assert layout.words == 1 + 6 + 1
    assert layout.packed_bytes == 8 + 12
    assert [(each.name, place) for each, place in layout.slices()] == [("a", slice(0, 1)), ("b", slice(1, 7))]
    assert layout.to_lists() == [["a", "int64", []], ["b", "float16", [2, 3]]]
    assert Layout.from_lists(layout.to_lists()) == layout == Layout.of(reversed(TWO))


def test_digest_is_of_names_dtypes_and_shapes() -> None:
    told = b"\x92" + b"\x93\xa1a\xa5int64\x90" + b"\x93\xa1b\xa7float16\x92\2\3"
    assert Layout.of(TWO).digest == hashlib.sha256(told).digest()
    others = [entry("b"), entry("a", "float64"), entry("a", "float32", (2, 1)), entry("a", "float32", (1, 2))]
    assert len({Layout.of([each]).digest for each in [entry(), *others]}) == 5


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ([TWO[0]], "entry 'a': the group agreed on int64 (), got no such entry"),
        ([*TWO, entry("c")], "entry 'c': the group agreed on no such entry, got float32 (2,)"),
        ([TWO[0], entry("a", "int32", ())], "entry 'a': the group agreed on int64 (), got int32 ()"),
        ([TWO[1], entry("b", "float16", (6,))], "entry 'b': the group agreed on float16 (2, 3), got float16 (6,)"),
        ([entry("a"), entry("b")], "entry 'a': the group agreed on int64 (), got float32 (2,)"),
        (TWO, None),
    ],
)
def test_the_first_difference_is_named(other: list[Entry], text: str | None) -> None:
    assert Layout.of(TWO).difference(Layout.of(other)) == text


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([], "expected a model of at least one value, fewer than 2.35, got 0 in all entries"),
        ([entry(shape=(3, 0))], "expected a model of at least one value, fewer than 2.35, got 0 in all entries"),
        ([entry(shape=(2**35 - 1,))], "at least one value, fewer than 2.35, got 34359738367 in all entries"),
        ([entry("w", "bool")], "entry 'w': expected a dtype of float16, bfloat16, float32, .*, int64, got bool"),
        ([entry("w", "uint16")], "entry 'w': expected a dtype of float16, .* got uint16"),
        ([entry("w", "complex64")], "entry 'w': expected a dtype of float16, .* got complex64"),
        ([entry(shape=(1,) * 17)], "entry 'a': expected at most 16 axes, got 17"),
        ([entry("x" * 1025)], "entry 'x*': expected a text of at most 1024 characters as its name"),
        ([entry(3), entry("a")], "entry 3: expected a text of at most 1024 characters as its name"),
        ([entry(np.str_("a"))], "expected a text of at most 1024 characters"),
        ([entry("\ud800")], "surrogates not allowed"),
    ],
)
def test_what_cannot_be_averaged_or_told_is_refused(entries: list[Entry], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Layout.of(entries)


@pytest.mark.parametrize(
    "entries",
    [
        [entry(shape=(2**35 - 2,))],
        [entry(shape=(1,) * 16)],
        [entry("x" * 1024)],
        [entry("")],
        [entry(shape=(0,)), entry("b", shape=())],
    ],
    ids=["values", "axes", "name", "no name", "empty entry"],
)
def test_the_largest_and_smallest_models(entries: list[Entry]) -> None:
    layout = Layout.of(entries)
    assert Layout.from_lists(layout.to_lists()) == layout
    assert layout.words * 8 < MOST_BODY_BYTES


def test_the_number_of_entries_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.MOST_ENTRIES == 2**16
    monkeypatch.setattr(module, "MOST_ENTRIES", 3)
    Layout.of([entry("a"), entry("b"), entry("c")])
    with pytest.raises(ValueError, match=r"at most 3 entries, whose names and shapes .* got 4 entries"):
        Layout.of([entry("a"), entry("b"), entry("c"), entry("d")])


def test_what_names_take_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry("é" * 1024), entry("b" * 1024)]
    size = len(pack(Layout.of(entries).to_lists()))
    assert size < MOST_LAYOUT_BYTES
    monkeypatch.setattr(module, "MOST_LAYOUT_BYTES", size)
    Layout.of(entries)
    monkeypatch.setattr(module, "MOST_LAYOUT_BYTES", size - 1)
    with pytest.raises(ValueError, match=f"whose names and shapes take at most {size - 1} bytes, got 2 entries"):
        Layout.of(entries)


@pytest.mark.parametrize("names", ["ba", "aa", "abb"])
def test_lists_that_are_not_sorted_are_refused(names: str) -> None:
    with pytest.raises(ValueError, match="expected entries sorted by name"):
        Layout.from_lists([[name, "float32", [1]] for name in names])


@pytest.mark.parametrize(
    ("dtype", "values", "hexadecimal"),
    [
        ("float16", [1.0, -2.0], "003c00c0"),
        ("float32", [1.0, -2.0], "0000803f000000c0"),
        ("float64", [1.0], "000000000000f03f"),
        ("bfloat16", [0x3F80, 0xC000], "803f00c0"),  # 1 and −2 as 16 bits
        ("uint8", [255], "ff"),
        ("int8", [-1, 2], "ff02"),
        ("int16", [-2], "feff"),
        ("int32", [258], "02010000"),
        ("int64", [-2], "feffffffffffffff"),
    ],
)
@pytest.mark.parametrize("order", "<>")
def test_bytes_are_little_endian(dtype: str, values: list[float], hexadecimal: str, order: str) -> None:
    layout = Layout.of([entry("a", dtype, (len(values),))])
    array = np.array(values, np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder(order))
    packed = pack_arrays(layout, {"a": array})
    assert packed.hex() == hexadecimal
    back = unpack_arrays(layout, packed)["a"]
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.tolist() == values


def test_every_dtype_has_its_size() -> None:
    assert set(ITEM_BYTES) == set(FLOATS) | set(INTEGERS)
    for dtype, size in ITEM_BYTES.items():
        assert numpy_dtype(entry("a", dtype)).itemsize == size
        assert entry("a", dtype).is_float == ("float" in dtype)


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@given(st.lists(st.tuples(st.sampled_from(sorted(ITEM_BYTES)), shapes), min_size=1, max_size=5), st.randoms())
def test_packed_arrays_come_back_in_memory_of_their_own(kinds: list[tuple[str, tuple[int, ...]]], rng) -> None:
    entries = [Entry(f"e{i}", dtype, shape) for i, (dtype, shape) in enumerate(kinds)]
    if not any(math.prod(each.shape) for each in entries):
        entries.append(Entry("z", "float32", ()))
    layout = Layout.of(entries)
    arrays = {
        each.name: np.frombuffer(bytearray(rng.randbytes(each.size * ITEM_BYTES[each.dtype])), numpy_dtype(each))
        for each in layout.entries
    }
    packed = pack_arrays(layout, arrays)
    assert len(packed) == layout.packed_bytes
    given = bytearray(packed)
    back = unpack_arrays(layout, given)
    given[:] = bytes(len(given))
    assert list(back) == [each.name for each in layout.entries]
    for each in layout.entries:
        assert back[each.name].shape == each.shape
        assert back[each.name].tobytes() == arrays[each.name].tobytes()
        assert back[each.name].flags.writeable
    for first, second in itertools.combinations([*back.values(), *arrays.values()], 2):
        assert not np.shares_memory(first, second)
    for wrong in (packed[:-1], packed + b"\0"):
        with pytest.raises(ValueError, match=f"expected {len(packed)} bytes, got {len(wrong)}"):
            unpack_arrays(layout, wrong)
