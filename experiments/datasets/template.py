"""A dataset to copy: put your own file beside this one, with its own name. Nothing else needs to change.

Source: (authors, title, year; where its files come from).
"""

from pathlib import Path

import torch

from experiments.datasets import Data, Dataset, Samples


class Template(Dataset, name="template"):
    """Points in space, classified by the octant in which they lie."""

    model, loss, criterion = "simples-full", "nll", "top-k"  # what --model, --loss and --criterion are by default

    @classmethod
    def load(cls, directory: Path, *, transform: bool = True, samples: int = 1_000) -> Data:
        # Files are read from `directory`; `fetch` downloads them into it first. `transform` is False under
        # --no-transform. What follows is for --dataset-args, e.g. samples:5000.
        points = torch.randn(samples, 3, generator=torch.Generator().manual_seed(0))
        octants = ((points > 0) * torch.tensor([1, 2, 4])).sum(dim=1)
        train = samples * 4 // 5
        return Data(Samples(points[:train], octants[:train]), Samples(points[train:], octants[train:]), num_outputs=8)
