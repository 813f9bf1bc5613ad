"""What poisoners train on; see also test_defence.py, where whole runs use it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks import Attack, attacks
from experiments.datasets import Augmentation, Data
from experiments.poisoning import PoisonedStream
from experiments.sampling import SampleStream
from experiments.worker_streams import ShardedStream, SharedStream, WorkerStream
from tests.experiments.test_server import make_data


class Shifted(Attack):
    """Adds what it is told, and random numbers."""

    name = "shifted"

    @classmethod
    def poison(
        cls,
        inputs: Tensor,
        targets: Tensor,
        /,
        *,
        num_classes: int,
        shift: int,
        generator: torch.Generator,
        **specialized: Any,
    ) -> tuple[Tensor, Tensor]:
        return inputs + torch.rand((), generator=generator), (targets + shift) % num_classes


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def images() -> Data:
    return make_data(shape=(1, 4, 4), augmentation=Augmentation(flip=True, crop=1, fill=(0.0,)))


def shared(data: Data) -> SharedStream:
    return SharedStream(SampleStream(data.train, 1, "poison", data.augmentation), 4)


def sharded(data: Data) -> ShardedStream:
    shards = torch.arange(len(data.train)).chunk(4)
    return ShardedStream(data.train, shards, 1, "poison", data.augmentation)


@pytest.mark.parametrize("make", [shared, sharded])
def test_batches_are_those_of_its_stream_poisoned(make: Callable[[Data], WorkerStream]) -> None:
    data = images()
    poisoned = PoisonedStream(make(data), 3, Shifted, {"shift": 2}, generator())
    clean, draw = make(data), generator()
    for workers in (None, [0, 3], slice(1, 3)):
        ours, theirs = poisoned.take(5, 2, workers), clean.take(5, 2, workers)
        assert torch.equal(ours.inputs, theirs.inputs + torch.rand((), generator=draw))
        assert torch.equal(ours.targets, (theirs.targets + 2) % 3)
        assert ours.sizes == theirs.sizes
    assert poisoned.samples is data.train
    state = poisoned.state_dict()
    expected = poisoned.take(5).targets
    again = PoisonedStream(make(data), 3, Shifted, {"shift": 2}, generator())
    again.load_state_dict(state)
    assert torch.equal(again.take(5).targets, expected)


def test_one_output_tells_two_classes_apart() -> None:
    data = make_data()
    binary = dataclasses.replace(data.train, targets=(data.train.targets > 0).float())
    data = dataclasses.replace(data, train=binary, num_outputs=1)
    poisoned = PoisonedStream(shared(data), 1, attacks["labelflip"], {}, generator()).take(37, 1, [0])
    assert torch.equal(poisoned.targets, 1 - SampleStream(binary, 1, "poison").take(37, 1).targets)
    assert set(poisoned.targets.tolist()) == {0.0, 1.0}
