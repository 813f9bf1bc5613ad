"""What a model looks like on the wire: names, dtypes and shapes of its entries, in the order of names."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from peers.secure_aggregation.messages import (
    MOST_AXES,
    MOST_BODY_BYTES,
    MOST_ENTRIES,
    MOST_LAYOUT_BYTES,
    MOST_TEXT,
    pack,
)

WORD_BYTES = 8
FLOATS = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
INTEGERS = {"uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8}
ITEM_BYTES = FLOATS | INTEGERS


@dataclass(frozen=True)
class Entry:
    """A tensor of a model."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its number of values."""
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether its values are floating-point numbers."""
        return self.dtype in FLOATS

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


@dataclass(frozen=True)
class Layout:
    """The entries of a model, sorted by name.

    On the wire a model is a vector of L = `words` words of 64 bits: all values, then the weight; and an average is
    `packed_bytes` bytes: all values, little-endian, each in its entry's dtype.
    """

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Layout":
        """Return the layout of these entries.

        Raises:
            ValueError: a dtype that cannot be averaged, no values, or what messages cannot say.
        """
        entries = tuple(entries)
        for entry in entries:
            if type(entry.name) is not str or len(entry.name) > MOST_TEXT:
                raise ValueError(f"entry {entry.name!r}: expected a text of at most {MOST_TEXT} characters as its name")
            if entry.dtype not in ITEM_BYTES:
                raise ValueError(
                    f"entry {entry.name!r}: expected a dtype of {', '.join(ITEM_BYTES)}, got {entry.dtype}"
                )
            if len(entry.shape) > MOST_AXES:
                raise ValueError(f"entry {entry.name!r}: expected at most {MOST_AXES} axes, got {len(entry.shape)}")
        layout = cls(tuple(sorted(entries, key=lambda entry: entry.name)))
        if len(entries) > MOST_ENTRIES or len(pack(layout.to_lists())) > MOST_LAYOUT_BYTES:
            raise ValueError(
                f"expected a model of at most {MOST_ENTRIES} entries, whose names and shapes take at most "
                f"{MOST_LAYOUT_BYTES} bytes, got {len(entries)} entries"
            )
        if not 1 < layout.words < MOST_BODY_BYTES // WORD_BYTES:
            raise ValueError(
                f"expected a model of at least one value, fewer than 2^35, got {layout.words - 1} in all entries"
            )
        return layout

    @cached_property
    def words(self) -> int:
        """L: values, and one weight."""
        return sum(entry.size for entry in self.entries) + 1

    @cached_property
    def packed_bytes(self) -> int:
        """The size of an average on the wire."""
        return sum(entry.size * ITEM_BYTES[entry.dtype] for entry in self.entries)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of what peers must agree on."""
        return hashlib.sha256(pack(self.to_lists())).digest()

    def slices(self) -> Iterable[tuple[Entry, slice]]:
        """Yield every entry with its place among the words."""
        start = 0
        for entry in self.entries:
            yield entry, slice(start, start + entry.size)
            start += entry.size

    def difference(self, other: "Layout") -> str | None:
        """Return where another model first differs from this one, which was agreed on; None: nowhere."""
        agreed = {entry.name: entry for entry in self.entries}
        got = {entry.name: entry for entry in other.entries}
        for name in sorted(agreed.keys() | got.keys()):
            if agreed.get(name) != got.get(name):
                sides = [str(entries.get(name, "no such entry")) for entries in (agreed, got)]
                return f"entry {name!r}: the group agreed on {sides[0]}, got {sides[1]}"
        return None

    def to_lists(self) -> list[list[object]]:
        """Return the entries as lists, for messages."""
        return [[entry.name, entry.dtype, list(entry.shape)] for entry in self.entries]

    @classmethod
    def from_lists(cls, lists: Iterable[tuple[str, str, Iterable[int]]]) -> "Layout":
        """Return what `to_lists` gave.

        Raises:
            ValueError: see `of`, or entries not sorted by name.
        """
        entries = [Entry(name, dtype, tuple(shape)) for name, dtype, shape in lists]
        names = [entry.name for entry in entries]
        if any(first >= second for first, second in pairwise(names)):
            raise ValueError("expected entries sorted by name")
        return cls.of(entries)


def numpy_dtype(entry: Entry) -> np.dtype:
    """Return the little-endian dtype of an entry; bfloat16, which NumPy lacks, as 16 bits."""
    return np.dtype("uint16" if entry.dtype == "bfloat16" else entry.dtype).newbyteorder("<")


def pack_arrays(layout: Layout, arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the values of all entries as bytes."""
    return b"".join(arrays[entry.name].astype(numpy_dtype(entry), copy=False).tobytes() for entry in layout.entries)


def unpack_arrays(layout: Layout, packed: bytes) -> dict[str, np.ndarray]:
    """Return what `pack_arrays` was given, in memory of its own.

    Raises:
        ValueError: too many bytes, or too few.
    """
    if len(packed) != layout.packed_bytes:
        raise ValueError(f"expected {layout.packed_bytes} bytes, got {len(packed)}")
    arrays, start = {}, 0
    for entry in layout.entries:
        dtype = numpy_dtype(entry)
        values = np.frombuffer(packed, dtype, entry.size, start).astype(dtype.newbyteorder("="))
        arrays[entry.name] = values.reshape(entry.shape)
        start += values.nbytes
    return arrays
