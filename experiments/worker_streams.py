"""Streams of samples for many workers: one that they share, or one shard each."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.batches import Batches
from experiments.datasets import Augmentation, Samples
from experiments.sampling import SampleStream
from tools.seeding import derive_seed

Workers = Sequence[int] | slice
"""Some of the workers of a stream, by their places in it, each at most once."""


def random_bits(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Return the draws of SplitMix64 with these counters, each of 64 bits, of the generators seeded by these keys.

    A draw costs the same wherever it is in a stream, so that a position in it is all there is to remember.

    Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, figures 16 and 17.

    Args:
        keys: of dtype uint64.
        counters: from 0, of shapes that go together with those of keys.
    """
    bits = keys + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def random_ranks(seed: int, purpose: str, step: int, n: int) -> np.ndarray:
    """Return in which order each of n nodes draws all nodes in a round, (n, n) ranks from 0; no draw depends on n."""
    keys = np.array([derive_seed(seed, purpose, node) for node in range(n)], dtype=np.uint64)
    draws = random_bits(keys[:, None], (step << 32) + np.arange(n))
    return draws.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")


class WorkerStream(ABC):
    """Endless batches for each of several workers.

    Attributes:
        samples: the data, on the device where batches are wanted.
    """

    samples: Samples

    @abstractmethod
    def take(self, batch_size: int, count: int = 1, workers: Workers | None = None) -> Batches:
        """Return the next `count` batches of each of these workers, all by default, those of one after another."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called."""


class SharedStream(WorkerStream):
    """One stream whose batches go to whichever worker is next.

    Args:
        stream: of samples; its passes end with a partial batch.
        workers: how many there are.
    """

    def __init__(self, stream: SampleStream, workers: int) -> None:
        self.samples = stream.samples
        self._stream = stream
        self._workers = range(workers)

    def take(self, batch_size: int, count: int = 1, workers: Workers | None = None) -> Batches:
        if workers is None or isinstance(workers, slice):
            workers = self._workers[workers or slice(None)]
        return self._stream.take(batch_size, count * len(workers))

    def state_dict(self) -> dict[str, Any]:
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._stream.load_state_dict(state)


class JoinedStream(WorkerStream):
    """The batches of all workers of one stream, then of all of another."""

    def __init__(self, first: WorkerStream, second: WorkerStream) -> None:
        self.samples = first.samples
        self._parts = first, second

    def take(self, batch_size: int, count: int = 1, workers: Workers | None = None) -> Batches:
        if workers is not None:
            raise ValueError("expected all workers of both streams")
        first, second = (part.take(batch_size, count) for part in self._parts)
        return first + second

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, stored in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(stored)


class ShardedStream(WorkerStream):
    """A stream per worker: its shard in random order, pass after pass.

    All batches have the size that is asked for, whatever the shards': one that reaches the end of a pass takes the
    rest of its samples from the next, as often as a small shard needs it. The n-th sample of a worker, and how it is
    augmented, depend on nothing but seed, purpose, its number and its shard.

    Args:
        samples: the data, on the device where batches are wanted.
        shards: indices of the samples of each worker, at least one each.
        seed: of the run.
        purpose: what the stream is for; streams of different purposes are independent.
        augmentation: random changes of the inputs.
        numbers: of the workers, all different, which seeds are made of; by default their places.
    """

    def __init__(
        self,
        samples: Samples,
        shards: Sequence[Tensor],
        seed: int,
        purpose: str,
        augmentation: Augmentation | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        numbers = range(len(shards)) if numbers is None else numbers
        for number, shard in zip(numbers, shards, strict=True):
            if not len(shard):
                raise ValueError(f"expected at least one sample for each worker, got none for worker {number}")

        def keys(use: str) -> np.ndarray:
            return np.array([derive_seed(seed, purpose, use, number) for number in numbers], dtype=np.uint64)

        self.samples = samples
        self.augmentation = augmentation
        self._order_keys, self._augmentation_keys = keys("order"), keys("augmentation")
        self._everybody = np.arange(len(shards))
        self._sizes = np.array([len(shard) for shard in shards])
        self._shards = torch.cat(list(shards)).numpy()
        self._shard_starts = np.cumsum(self._sizes) - self._sizes
        self._taken = np.zeros(len(shards), dtype=np.int64)  # samples so far
        self._make_windows(1)

    def _make_windows(self, length: int) -> None:
        """Make room for the orders of as many passes as `length` consecutive samples of each worker can touch."""
        self._longest = length
        self._passes = -(-length // self._sizes) + 1
        room = self._passes * self._sizes
        self._window_starts = np.cumsum(room) - room
        self._window = torch.empty(int(room.sum()), dtype=torch.int64, device=self.samples.inputs.device)
        self._firsts = np.zeros_like(self._taken)  # which of its samples a worker's window begins with
        self._ends = np.zeros_like(self._taken)  # and which is the first one after it

    def _fill_windows(self, workers: np.ndarray) -> None:
        """Draw orders from the present pass on."""
        device = self._window.device
        for size in np.unique(self._sizes[workers]):  # rows of one length are sorted many times faster than others
            equal = workers[self._sizes[workers] == size]
            room = self._passes[equal[0]] * size
            firsts = self._taken[equal] // size * size
            self._firsts[equal], self._ends[equal] = firsts, firsts + room
            draws = random_bits(self._order_keys[equal, None], firsts[:, None] + np.arange(room))
            orders = draws.reshape(len(equal), -1, size).argsort(axis=2, kind="stable").reshape(len(equal), room)
            indices = torch.from_numpy(self._shards[self._shard_starts[equal, None] + orders])
            places = torch.from_numpy(self._window_starts[equal, None] + np.arange(room))
            self._window[places.to(device)] = indices.to(device)

    def take(self, batch_size: int, count: int = 1, workers: Workers | None = None) -> Batches:
        chosen = self._everybody[slice(None) if workers is None else workers]
        length = batch_size * count
        if length > self._longest:
            self._make_windows(length)
        taken = self._taken[chosen]
        ending = chosen[taken + length > self._ends[chosen]]
        if len(ending):
            self._fill_windows(ending)
        device = self._window.device
        places = torch.from_numpy(self._window_starts[chosen] + taken - self._firsts[chosen]).to(device)
        indices = self._window[(places.unsqueeze(1) + torch.arange(length, device=device)).flatten()]
        inputs = self.samples.inputs.index_select(0, indices)
        if self.augmentation is not None:
            counters = 3 * (taken[:, None] + np.arange(length)) + np.arange(3)[:, None, None]
            bits = random_bits(self._augmentation_keys[chosen, None], counters).reshape(3, -1)
            inputs = self.augmentation.change(inputs, torch.from_numpy((bits >> np.uint64(32)) / 2**32))
        self._taken[chosen] += length
        return Batches(inputs, self.samples.targets.index_select(0, indices), (batch_size,) * (count * len(chosen)))

    def state_dict(self) -> dict[str, Any]:
        return {"taken": torch.from_numpy(self._taken.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._taken[:] = state["taken"].numpy()
        self._ends[:] = 0
