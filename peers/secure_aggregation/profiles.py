"""Aggregation profiles: how models become vectors over Z_2^64 that can be shared, summed and become a model again.

A profile is a class that registers itself under its name, so that a server can tell peers which one is used: names and
numbers go over the wire, never code. Values are fixed-point numbers with `digits_to_keep` decimal digits, rounded to
the nearest (ties to even), each times the peer's weight; the weight itself is the last word. All arithmetic is modulo
2^64, and exact as long as n · max_weight · clip · 10^digits < 2^63, which is checked.

The mean is off by 10^-digits / 2 + 2^-51 at most, before it is rounded to float64 and to the dtype of its entry: 2^-51
is for the conversions, which compute in float64. So more than 15 digits bring next to nothing.

Integer entries, such as the counters of batch normalisation, are shared as they are, and their mean is rounded to the
nearest integer, halves up.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from peers.secure_aggregation.layout import Entry, Layout, pack_arrays, unpack_arrays
from peers.secure_aggregation.shares import expand, split
from tools.registry import Registry

LIMIT = 1 << 63
MOST_DIGITS = 18
BLOCK = 1 << 15
"""Values that are worked on at a time: they stay in the processor's cache, which takes half the time."""


@dataclass(frozen=True)
class Prepared:
    """A model, or a sum of models, as a vector.

    Attributes:
        values: uint64 (L,), the last word being the weight.
    """

    layout: Layout
    values: np.ndarray


@dataclass(frozen=True)
class Share:
    """A share of a prepared model: a vector, or the seed of one.

    Attributes:
        words: uint64 (L,); None where there is a seed.
        seed: 32 bytes; None where there are words.
    """

    layout: Layout
    words: np.ndarray | None = None
    seed: bytes | None = None

    @property
    def values(self) -> np.ndarray:
        """The share, uint64 (L,)."""
        return expand(self.seed, self.layout.words) if self.words is None else self.words


class AggregationProfile(ABC):
    """How models are averaged.

    A subclass `class Median(AggregationProfile, name="…")` can be sent to peers that have imported it; its constructor
    takes plain numbers, texts and truth values, which are its `arguments`.
    """

    name: ClassVar[str]
    arguments: dict[str, Any]

    def __init_subclass__(cls, /, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:
            cls.name = name
            profiles.register(name, cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> "AggregationProfile":
        profile = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind(profile, *args, **kwargs)
        bound.apply_defaults()
        profile.arguments = dict(list(bound.arguments.items())[1:])
        return profile

    def check(self, n: int) -> None:
        """Raise ValueError if sums over n peers could overflow."""

    def check_sum(self, prepared: Prepared, least: int, most: int) -> None:
        """Raise ValueError for what cannot be a sum over `least` to `most` peers."""

    @abstractmethod
    def prepare(self, data: Any, weight: int = 1) -> Prepared:
        """Return a model as a vector over Z_2^64, times its weight."""

    @abstractmethod
    def create_shares_on_prepared_data(self, prepared: Prepared, num_shares: int) -> Sequence[Share]:
        """Return fresh shares that sum to a prepared model, those that are vectors before those that are seeds."""

    @abstractmethod
    def aggregate(self, shares: Sequence[Share | Prepared]) -> Prepared:
        """Return the sum of shares."""

    @abstractmethod
    def unprepare(self, prepared: Prepared) -> Any:
        """Return the model that a sum of prepared models stands for."""

    def pack(self, data: Any, layout: Layout) -> bytes:
        """Return a model that `unprepare` gave as bytes: a dictionary of NumPy arrays, unless this is overridden."""
        return pack_arrays(layout, data)

    def unpack(self, packed: bytes, layout: Layout, like: Any) -> Any:
        """Return the model that these bytes stand for, in the order and on the devices of another."""
        arrays = unpack_arrays(layout, packed)
        return {name: arrays[name] for name in like}


profiles: Registry[AggregationProfile] = Registry("aggregation profile")


class AverageAdditiveSharingModelProfile(AggregationProfile, name="average-numpy"):
    """Weighted average of dictionaries of NumPy arrays.

    Args:
        digits_to_keep: decimal digits after the point, 0 to 18.
        clip: the largest magnitude that values may have; larger ones are refused, never changed. Integer entries may
            have magnitudes of up to clip · 10^digits.
        max_weight: the largest weight of a peer, such as its number of samples.
    """

    def __init__(self, digits_to_keep: int, clip: float = 1e6, max_weight: int = 1) -> None:
        if type(digits_to_keep) is not int or not 0 <= digits_to_keep <= MOST_DIGITS:
            raise ValueError(f"digits_to_keep: expected a whole number from 0 to {MOST_DIGITS}, got {digits_to_keep!r}")
        if isinstance(clip, bool) or not isinstance(clip, int | float) or not 0 < clip < LIMIT:
            raise ValueError(f"clip: expected a number above 0 and below 2^63, got {clip!r}")
        if type(max_weight) is not int or not 1 <= max_weight < LIMIT:
            raise ValueError(f"max_weight: expected a whole number from 1 to below 2^63, got {max_weight!r}")
        self.digits_to_keep, self.clip, self.max_weight = digits_to_keep, clip, max_weight
        self.scale = 10**digits_to_keep
        self._bound = Fraction(clip) * self.scale
        # the largest float64 that is at most clip: integers near 2^63 are none themselves
        self._largest = float(clip) if float(clip) <= clip else math.nextafter(float(clip), 0)
        self.check(1)

    def check(self, n: int) -> None:
        largest = n * self.max_weight * math.ceil(self._bound)
        if largest >= LIMIT:
            raise ValueError(
                f"expected n · max_weight · clip · 10^digits below 2^63 ({LIMIT:.4g}), got {n} · {self.max_weight} · "
                f"{self.clip:g} · 10^{self.digits_to_keep} = {largest:.4g}; lower digits_to_keep, clip or max_weight"
            )

    def check_sum(self, prepared: Prepared, least: int, most: int) -> None:
        weight, most = int(prepared.values.view(np.int64)[-1]), most * self.max_weight
        if not least <= weight <= most:
            raise ValueError(
                f"expected a sum of weights of {least} to {most}, got {weight}: somebody has damaged it, or lied about "
                "the number of peers"
            )

    def check_weight(self, weight: int) -> None:
        """Raise ValueError or TypeError for a weight that peers cannot have."""
        if isinstance(weight, bool) or not isinstance(weight, int | np.integer):
            raise TypeError(f"weight: expected a whole number, got {weight!r}")
        if not 1 <= weight <= self.max_weight:
            raise ValueError(
                f"weight: expected 1 to {self.max_weight}, the profile's max_weight, got {weight}; raise max_weight"
            )

    def prepare(self, data: Mapping[str, Any], weight: int = 1) -> Prepared:
        """Return a model as a vector.

        Raises:
            ValueError: a value that is not finite, or larger than `clip`; a dtype that cannot be averaged.
            TypeError: no dictionary, or a weight that is no whole number.
        """
        self.check_weight(weight)
        if not isinstance(data, Mapping):
            raise TypeError(f"expected a dictionary of arrays or tensors by name, got {type(data).__name__}")
        layout = Layout.of(self.entry(name, value) for name, value in data.items())
        values = np.empty(layout.words, dtype=np.uint64)
        for entry, place in layout.slices():
            values[place] = self._fixed_point(entry, data[entry.name])
        values *= np.uint64(weight)
        values[-1] = weight
        return Prepared(layout, values)

    def create_shares_on_prepared_data(self, prepared: Prepared, num_shares: int) -> list[Share]:
        if num_shares < 1:
            raise ValueError(f"expected at least 1 share, got {num_shares}")
        words, seeds = split(prepared.values, num_shares)
        return [Share(prepared.layout, words=words), *(Share(prepared.layout, seed=seed) for seed in seeds)]

    def aggregate(self, shares: Sequence[Share | Prepared]) -> Prepared:
        if not shares:
            raise ValueError("expected at least one share, got none")
        layout = shares[0].layout
        total = np.zeros(layout.words, dtype=np.uint64)
        for share in shares:
            if share.layout != layout:
                raise ValueError(f"expected shares of one layout: {layout.difference(share.layout)}")
            total += share.values
        return Prepared(layout, total)

    def unprepare(self, prepared: Prepared) -> dict[str, Any]:
        """Return the weighted mean.

        Raises:
            ValueError: the sum of weights is not positive.
        """
        return {entry.name: self.from_mean(mean, entry) for entry, mean in self.means(prepared)}

    def means(self, prepared: Prepared) -> Iterator[tuple[Entry, np.ndarray]]:
        """Yield the weighted mean of every entry, flat: float64, or int64 where entries are integers.

        Raises:
            ValueError: the sum of weights is not positive.
        """
        sums, weight = prepared.values.view(np.int64), int(prepared.values.view(np.int64)[-1])
        if weight < 1:
            raise ValueError(f"expected a sum of weights of at least 1, got {weight}: the sum is damaged")
        for entry, place in prepared.layout.slices():
            yield entry, self._mean(entry, sums[place], weight)

    def entry(self, name: str, value: Any) -> Entry:
        """Return the name, dtype and shape of a value."""
        if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind == "V":  # no dtype of NumPy's own
            got = getattr(value, "dtype", type(value).__name__)
            raise ValueError(f"entry {name!r}: expected a NumPy array of numbers, got {got}")
        return Entry(name, value.dtype.name, value.shape)

    def numbers(self, value: Any) -> np.ndarray:
        """Return the values of an entry, flat: float64 where they are floating-point numbers, else int64."""
        return np.asarray(value).astype(np.float64 if value.dtype.kind == "f" else np.int64).reshape(-1)

    def from_mean(self, mean: np.ndarray, entry: Entry) -> Any:
        """Return a mean, flat and float64 or int64, in an entry's dtype and shape."""
        return mean.astype(entry.dtype).reshape(entry.shape)

    def _fixed_point(self, entry: Entry, value: Any) -> np.ndarray:
        numbers = self.numbers(value)
        if not entry.is_float:
            largest = math.floor(self._bound)
            self._require(entry, numbers, largest, f"integers of magnitude at most clip · 10^digits = {largest}")
            return numbers.view(np.uint64)
        self._require(entry, numbers, self._largest, f"finite values of magnitude at most clip = {self.clip:g}")
        largest = math.ceil(self._bound)

        def scaled(block: np.ndarray) -> np.ndarray:
            # whole part and fraction apart: the product of a large value and 10^digits has more digits than float64
            whole = np.rint(block)
            fixed = np.rint((block - whole) * self.scale).astype(np.int64)
            fixed += whole.astype(np.int64) * self.scale
            # the product of the fraction may have been rounded beyond the bound that keeps sums from overflowing
            return np.clip(fixed, -largest, largest, out=fixed)

        return _in_blocks(scaled, numbers, np.int64).view(np.uint64)

    def _require(self, entry: Entry, numbers: np.ndarray, largest: float, expected: str) -> None:
        if not -largest <= numbers.min(initial=0) <= numbers.max(initial=0) <= largest:  # so for NaN
            first = int(np.argmin((numbers >= -largest) & (numbers <= largest)))
            index = tuple(int(i) for i in np.unravel_index(first, entry.shape))
            raise ValueError(f"entry {entry.name!r}: expected {expected}, got {numbers[first]} at {index}")

    def _mean(self, entry: Entry, sums: np.ndarray, weight: int) -> np.ndarray:
        if not entry.is_float:
            quotient, remainder = np.divmod(sums, weight)
            return quotient + (remainder >= weight - remainder)
        divisor = weight * self.scale

        def divided(block: np.ndarray) -> np.ndarray:
            mean = block / float(divisor)
            if divisor >= LIMIT:  # then clip is below 1, and so is the mean
                return mean
            # whole part and fraction apart, as a sum has more digits than float64
            whole = np.rint(mean)
            return whole + (block - whole.astype(np.int64) * divisor) / float(divisor)

        return _in_blocks(divided, sums, np.float64)


def _in_blocks(function: Callable[[np.ndarray], np.ndarray], values: np.ndarray, dtype: type) -> np.ndarray:
    """Return function(values), flat, worked out block by block."""
    out = np.empty(len(values), dtype)
    for start in range(0, len(values), BLOCK):
        out[start : start + BLOCK] = function(values[start : start + BLOCK])
    return out


class AverageTorchAdditiveSharingModelProfile(AverageAdditiveSharingModelProfile, name="average-torch"):
    """Weighted average of state dictionaries of PyTorch; see the base class."""

    def entry(self, name: str, value: Any) -> Entry:
        import torch

        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_meta:
            got = f"one on {value.device}, {value.layout}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"entry {name!r}: expected a dense tensor with values, got {got}")
        return Entry(name, str(value.dtype).removeprefix("torch."), tuple(value.shape))

    def numbers(self, value: Any) -> np.ndarray:
        value = value.detach().cpu()
        return (value.double() if value.is_floating_point() else value.long()).reshape(-1).resolve_neg().numpy()

    def from_mean(self, mean: np.ndarray, entry: Entry) -> Any:
        import torch

        return torch.from_numpy(mean).to(getattr(torch, entry.dtype)).reshape(entry.shape)

    def pack(self, data: Mapping[str, Any], layout: Layout) -> bytes:
        import torch

        arrays = {
            name: (value.view(torch.int16) if value.dtype == torch.bfloat16 else value) for name, value in data.items()
        }
        return pack_arrays(layout, {name: value.numpy() for name, value in arrays.items()})

    def unpack(self, packed: bytes, layout: Layout, like: Mapping[str, Any]) -> dict[str, Any]:
        import torch

        tensors = {name: torch.from_numpy(array) for name, array in unpack_arrays(layout, packed).items()}
        return {
            name: (tensors[name].view(torch.bfloat16) if value.dtype == torch.bfloat16 else tensors[name]).to(
                value.device
            )
            for name, value in like.items()
        }
