"""What poisoners train on; see also test_defence.py, where whole runs use it."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from attacks import Attack, attacks
from experiments.datasets import Augmentation, Data
from experiments.poisoning import PoisonedStream
from experiments.sampling import SampleStream
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


def test_batches_are_those_of_a_stream_of_its_own_augmented_then_poisoned() -> None:
    data = images()
    poisoned = PoisonedStream(data, 1, Shifted, {"shift": 2}, generator())
    clean, draw = SampleStream(data.train, 1, "poison", data.augmentation), generator()
    for _ in range(3):
        ours, theirs = poisoned.take(5, 2), clean.take(5, 2)
        assert torch.equal(ours.inputs, theirs.inputs + torch.rand((), generator=draw))
        assert torch.equal(ours.targets, (theirs.targets + 2) % 3)
        assert ours.sizes == theirs.sizes
    honest = SampleStream(data.train, 1, "training", data.augmentation).take(5, 2)
    assert not torch.equal(honest.targets, SampleStream(data.train, 1, "poison").take(5, 2).targets)


def test_one_output_tells_two_classes_apart() -> None:
    data = make_data()
    binary = dataclasses.replace(data.train, targets=(data.train.targets > 0).float())
    data = dataclasses.replace(data, train=binary, num_outputs=1)
    poisoned = PoisonedStream(data, 1, attacks["labelflip"], {}, generator()).take(37, 1)
    assert torch.equal(poisoned.targets, 1 - SampleStream(binary, 1, "poison").take(37, 1).targets)
    assert set(poisoned.targets.tolist()) == {0.0, 1.0}
