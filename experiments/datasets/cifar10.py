"""CIFAR-10.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from pathlib import Path

import torch

from experiments.datasets import ImageDataset, Samples, fetch


class CIFAR10(ImageDataset, name="cifar10"):
    """50,000 photographs of 10 classes to train on, 10,000 to test on, 3×32×32, mirrored at random."""

    model = "empire-cnn"
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    flip = True
    torchvision_name = "CIFAR10"

    @classmethod
    def read(cls, directory: Path) -> tuple[Samples, Samples]:
        import torchvision

        reader = getattr(torchvision.datasets, cls.torchvision_name)
        try:
            parts = [reader(str(directory), train=train) for train in (True, False)]
        except RuntimeError:  # files are missing, or their checksums are wrong
            fetch(cls.name, directory, reader.base_folder, lambda folder: reader(str(folder), download=True))
            parts = [reader(str(directory), train=train) for train in (True, False)]
        train, test = (
            Samples(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
            for part in parts
        )
        return train, test
