"""What poisoners train on: batches of streams of their own, changed by the attack."""

import dataclasses
from typing import Any

import torch

from attacks import Attack
from experiments.batches import Batches
from experiments.worker_streams import Workers, WorkerStream


class PoisonedStream(WorkerStream):
    """A stream whose batches an attack poisons.

    Args:
        stream: of the poisoners.
        num_outputs: of the data.
        attack: one that poisons.
        arguments: of the attack.
        generator: of the attack.
    """

    def __init__(
        self,
        stream: WorkerStream,
        num_outputs: int,
        attack: type[Attack],
        arguments: dict[str, Any],
        generator: torch.Generator,
    ) -> None:
        self.samples = stream.samples
        self._stream = stream
        self._attack = attack
        self._arguments = {**arguments, "num_classes": max(num_outputs, 2), "generator": generator}

    def take(self, batch_size: int, count: int = 1, workers: Workers | None = None) -> Batches:
        batches = self._stream.take(batch_size, count, workers)
        inputs, targets = self._attack.poison(batches.inputs, batches.targets, **self._arguments)
        return dataclasses.replace(batches, inputs=inputs, targets=targets)

    def state_dict(self) -> dict[str, Any]:
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._stream.load_state_dict(state)
