"""Aggregation profiles: how models become vectors over Z_2^64 that can be shared, summed and become a model again.

A profile is a class that registers itself under its name, so that a server can tell peers which one is used: names and
numbers go over the wire, never code. Values are fixed-point numbers with `digits_to_keep` decimal digits, rounded to
the nearest (ties to even), each times the peer's weight; the weight itself is the last word. All arithmetic is modulo
2^64, and exact as long as n · max_weight · clip · 10^digits < 2^63, which is checked. The mean is off by 10^-digits / 2
at most, before it is rounded to the dtype of its entry.

Integer entries, such as the counters of batch normalisation, are shared as they are, and their mean is rounded to the
nearest integer, halves up.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from peers.secure_aggregation.layout import Entry, Layout, pack_arrays, unpack_arrays
from peers.secure_aggregation.shares import expand, split
from tools.registry import Registry

MODULUS = 1 << 64
LIMIT = 1 << 63
MOST_DIGITS = 18


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

    def check_weight(self, weight: int) -> None:
        """Raise ValueError or TypeError for a weight that peers cannot have."""
        if weight != 1:
            raise ValueError(f"{type(self).__name__}: expected weight 1, got {weight!r}: this profile has no weights")

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

    @abstractmethod
    def pack(self, data: Any, layout: Layout) -> bytes:
        """Return a model that `unprepare` gave as bytes."""

    @abstractmethod
    def unpack(self, packed: bytes, layout: Layout, like: Any) -> Any:
        """Return the model that these bytes stand for, in the order and on the devices of another."""


profiles: Registry[AggregationProfile] = Registry("aggregation profile")


class AverageAdditiveSharingModelProfile(AggregationProfile, name="average-numpy"):
    """Weighted average of dictionaries of NumPy arrays.

    Args:
        digits_to_keep: decimal digits after the point, 0 to 18.
        clip: the largest magnitude that values may have; larger ones are refused, never changed.
        max_weight: the largest weight of a peer, such as its number of samples.
    """

    def __init__(self, digits_to_keep: int, clip: float = 1e6, max_weight: int = 1) -> None:
        if type(digits_to_keep) is not int or not 0 <= digits_to_keep <= MOST_DIGITS:
            raise ValueError(f"digits_to_keep: expected a whole number from 0 to {MOST_DIGITS}, got {digits_to_keep!r}")
        if isinstance(clip, bool) or not isinstance(clip, int | float) or not (0 < clip < math.inf):
            raise ValueError(f"clip: expected a finite number above 0, got {clip!r}")
        if type(max_weight) is not int or max_weight < 1:
            raise ValueError(f"max_weight: expected a whole number of at least 1, got {max_weight!r}")
        self.digits_to_keep, self.clip, self.max_weight = digits_to_keep, clip, max_weight
        self.scale = 10**digits_to_keep
        self.check(1)

    def check(self, n: int) -> None:
        largest = (
            math.ceil(self.clip * self.scale)
            if isinstance(self.clip, int)
            else math.ceil(_exact(self.clip, self.scale))
        )
        if n * self.max_weight * largest >= LIMIT:
            raise ValueError(
                f"expected n · max_weight · clip · 10^digits below 2^63 ({float(LIMIT):.4g}), got {n} · "
                f"{self.max_weight} · {self.clip:g} · 10^{self.digits_to_keep} = "
                f"{float(n * self.max_weight * largest):.4g}; lower digits_to_keep, clip or max_weight"
            )

    def check_weight(self, weight: int) -> None:
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
        """
        self.check_weight(weight)
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
        sums, weight = prepared.values.view(np.int64), int(prepared.values.view(np.int64)[-1])
        if weight < 1:
            raise ValueError(f"expected a sum of weights of at least 1, got {weight}: the sum is damaged")
        return {
            entry.name: self._mean(entry, sums[place].reshape(entry.shape), weight)
            for entry, place in prepared.layout.slices()
        }

    def pack(self, data: Mapping[str, Any], layout: Layout) -> bytes:
        return pack_arrays(layout, data)

    def unpack(self, packed: bytes, layout: Layout, like: Mapping[str, Any]) -> dict[str, Any]:
        arrays = unpack_arrays(layout, packed)
        return {name: arrays[name] for name in like}

    def entry(self, name: str, value: Any) -> Entry:
        """Return the name, dtype and shape of a value."""
        if not isinstance(value, np.ndarray | np.generic):
            raise ValueError(f"entry {name!r}: expected a NumPy array, got {type(value).__name__}")
        return Entry(name, value.dtype.name, value.shape)

    def numbers(self, value: Any) -> np.ndarray:
        """Return the values of an entry, flat: float64 where they are floating-point numbers."""
        return np.asarray(value).astype(np.float64 if value.dtype.kind == "f" else np.int64).reshape(-1)

    def from_mean(self, mean: np.ndarray, entry: Entry) -> Any:
        """Return a mean, float64 or int64, in an entry's dtype."""
        return mean.astype(entry.dtype)

    def _fixed_point(self, entry: Entry, value: Any) -> np.ndarray:
        numbers = self.numbers(value)
        if entry.is_float:
            self._require(entry, numbers, np.isfinite(numbers), "finite values")
            self._require(entry, numbers, np.abs(numbers) <= self.clip, f"magnitudes of at most clip = {self.clip:g}")
            # by the nearest integer that float64 can hold: beyond 2^53 that is the precision of the value itself
            return np.rint(numbers * self.scale).astype(np.int64).view(np.uint64)
        largest = math.floor(self.clip * self.scale)
        within = (numbers <= largest) & (numbers >= -largest)
        self._require(entry, numbers, within, f"integers of magnitude at most clip · 10^digits = {largest}")
        return numbers.view(np.uint64)

    def _require(self, entry: Entry, numbers: np.ndarray, good: np.ndarray, expected: str) -> None:
        if not good.all():
            first = int(np.argmin(good))
            index = tuple(int(i) for i in np.unravel_index(first, entry.shape)) if entry.shape else ()
            raise ValueError(f"entry {entry.name!r}: expected {expected}, got {numbers[first]} at {index}")

    def _mean(self, entry: Entry, sums: np.ndarray, weight: int) -> Any:
        if entry.is_float:
            return self.from_mean(sums / (float(weight) * float(self.scale)), entry)
        quotient, remainder = np.divmod(sums, weight)
        return self.from_mean(np.asarray(quotient + (remainder >= weight - remainder)), entry)


def _exact(number: float, factor: int) -> Any:
    numerator, denominator = number.as_integer_ratio()
    return -(-numerator * factor // denominator)


class AverageTorchAdditiveSharingModelProfile(AverageAdditiveSharingModelProfile, name="average-torch"):
    """Weighted average of state dictionaries of PyTorch; see the base class."""

    def entry(self, name: str, value: Any) -> Entry:
        import torch

        if not isinstance(value, torch.Tensor):
            raise ValueError(f"entry {name!r}: expected a tensor, got {type(value).__name__}")
        return Entry(name, str(value.dtype).removeprefix("torch."), tuple(value.shape))

    def numbers(self, value: Any) -> np.ndarray:
        value = value.detach().cpu()
        return (value.double() if value.is_floating_point() else value.long()).reshape(-1).numpy()

    def from_mean(self, mean: np.ndarray, entry: Entry) -> Any:
        import torch

        return torch.from_numpy(np.asarray(mean)).to(getattr(torch, entry.dtype))

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
