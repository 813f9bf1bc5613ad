"""Which training samples each node has: made from a partition and checked, and written down for people."""

import csv
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.partitions import CONTEXT, partitions
from tools.arguments import bind
from tools.errors import UserError
from tools.seeding import derive_seed

MOST_REAL_LABELS = 1_000  # more values of floating-point targets than that are no classes, but what is predicted
MOST_NAMED = 5


def check_arguments(name: str, arguments: dict[str, Any], n: int) -> dict[str, Any]:
    """Return the arguments of a partition, checked to be possible with n nodes.

    Raises:
        UserError: an unknown partition or argument, or an impossible value.
    """
    partition = partitions[name]
    bound = bind(partition.split, arguments, f"--partition-args: {name}", CONTEXT)
    try:
        partition.check(n=n, **bound)
    except (ValueError, TypeError) as error:
        raise UserError(f"--partition-args: {error}") from error
    return bound


def make_shards(name: str, arguments: dict[str, Any], targets: Tensor, n: int, seed: int) -> list[Tensor]:
    """Return the indices of the samples of each of n nodes, ascending, int64, on the CPU.

    Args:
        name: of a partition other than shared.
        targets: (samples, …), of all training samples.
        seed: of the run.

    Raises:
        UserError: see `check_arguments`, or targets that are no labels for a partition that reads them.
        ValueError: the partition gave a sample twice, or one that there is not.
    """
    bound = check_arguments(name, arguments, n)
    labels = np.zeros(len(targets), dtype=np.int64)
    if partitions[name].reads_labels(**bound):
        known = labels_of(targets)
        if known is None:
            raise UserError(
                f"--partition: expected a dataset with labels for {name}, got floating-point targets of more than "
                f"{MOST_REAL_LABELS} values; use iid or quantity"
            )
        labels = known[0]
    generator = np.random.default_rng(derive_seed(seed, "partition"))
    shards = [np.sort(shard) for shard in partitions[name].split(labels, n, generator, **bound)]
    given = np.concatenate(shards)
    distinct = len(np.unique(given)) == len(given)
    if len(shards) != n or not distinct or (len(given) and not 0 <= given.min() <= given.max() < len(targets)):
        raise ValueError(f"{name}: expected {n} shards of different samples from 0 to {len(targets) - 1}, got {shards}")
    return [torch.from_numpy(shard.astype(np.int64)) for shard in shards]


def require_data(shards: Sequence[Tensor], nodes: Collection[int]) -> None:
    """Raise a UserError if one of these nodes has no samples."""
    without = sorted(node for node in nodes if not len(shards[node]))
    if without:
        named = "nodes " if len(without) > 1 else "node "
        named += ", ".join(map(str, without[:MOST_NAMED])) + (", …" if len(without) > MOST_NAMED else "")
        raise UserError(
            f"--partition: expected samples for every node that trains, got none for {named} of "
            f"{len(shards)}; give --partition-args that spread samples more evenly, another --seed, or "
            f"fewer --nb-workers"
        )


def labels_of(targets: Tensor) -> tuple[np.ndarray, list[str]] | None:
    """Return class numbers (samples,) and what each class is called, in the order of values.

    Samples are of one class if their targets (samples, …) are equal. None if these are no labels.
    """
    rows = targets.flatten(1) if targets.dim() > 1 else targets.unsqueeze(1)
    values, numbers = torch.unique(rows.cpu(), dim=0, return_inverse=True)
    if targets.is_floating_point() and len(values) > MOST_REAL_LABELS:
        return None
    return numbers.numpy(), [" ".join(map(_text_of, value)) for value in values.numpy()]


def _text_of(value: np.generic) -> str:
    return np.format_float_positional(value, trim="-") if isinstance(value, np.floating) else str(int(value))


def write_partition(path: Path, shards: Sequence[Tensor], targets: Tensor, byzantine_nodes: Collection[int]) -> None:
    """Write how many samples each node has, and how many of each label if targets (samples, …) are labels."""
    numbers, names = labels_of(targets) or (np.zeros(len(targets), dtype=np.int64), [])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["node", "role", "samples", *(f"label {name}" for name in names)])
        for node, shard in enumerate(shards):
            role = "byzantine" if node in byzantine_nodes else "honest"
            counts = np.bincount(numbers[shard.numpy()], minlength=len(names))[: len(names)]
            writer.writerow([node, role, len(shard), *counts.tolist()])
