"""MNIST, and the datasets distributed in its format.

Source: LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the
IEEE, 1998. The files are those that torchvision downloads and unpacks.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.datasets import ImageDataset, Samples, fetch
from tools.errors import UserError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read_idx(path: Path) -> Tensor:
    """Return the 8-bit array of a file in IDX format: two zeros, type 8, number of axes, sizes (big-endian), values."""
    data = np.fromfile(path, dtype=np.uint8)
    axes = int(data[3]) if len(data) > 3 and tuple(data[:3]) == (0, 0, 8) else 0
    values = data[4 * (axes + 1) :]
    shape = data[4 : 4 * (axes + 1)].view(">u4").astype(int) if len(data) >= 4 * (axes + 1) else ()
    if not axes or len(values) != np.prod(shape, dtype=int):
        raise UserError(f"{path}: expected an 8-bit array in IDX format, got {len(data)} bytes of something else")
    return torch.from_numpy(values.reshape(shape))


class MNIST(ImageDataset, name="mnist"):
    """60,000 handwritten digits to train on, 10,000 to test on, 28×28."""

    model = "simples-conv"
    mean, std = (0.1307,), (0.3081,)
    torchvision_name = "MNIST"

    @classmethod
    def read(cls, directory: Path) -> tuple[Samples, Samples]:
        folder = directory / cls.torchvision_name / "raw"
        if not all((folder / file).is_file() for file in FILES):
            fetch(cls.name, directory, cls.torchvision_name, cls.download)
        # torchvision would read the same bytes, and take over a second to import
        train, train_classes, test, test_classes = (read_idx(folder / file) for file in FILES)
        for images, classes in ((train, train_classes), (test, test_classes)):
            if (
                images.dim() != 3
                or classes.shape != images.shape[:1]
                or not len(classes)
                or classes.max() >= cls.num_outputs
            ):
                raise UserError(
                    f"{folder}: expected images and as many classes from 0 to {cls.num_outputs - 1}, got arrays of "
                    f"shapes {tuple(images.shape)} and {tuple(classes.shape)}"
                )
        return (
            Samples(train.unsqueeze(1), train_classes.long()),
            Samples(test.unsqueeze(1), test_classes.long()),
        )

    @classmethod
    def download(cls, directory: Path) -> None:
        """Make torchvision's folder of this dataset in a directory."""
        import torchvision

        getattr(torchvision.datasets, cls.torchvision_name)(str(directory), download=True)
