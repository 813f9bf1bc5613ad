"""Datasets as tensors, one file each.

A dataset is a class that registers itself under its name. It reads its files, fetching them first if need be, and says
which model, loss and criterion suit it. `template.py` is there to be copied.
"""

import http.client
import tarfile
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tools.arguments import bind
from tools.errors import UserError, one_line
from tools.registry import Registry, import_modules

CONTEXT = frozenset({"directory", "transform"})
DEFAULT_DIRECTORY = Path(__file__).parent / "cache"


@dataclass(frozen=True)
class Samples:
    """Inputs (samples, …) and targets (samples, …), first axis shared."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device | str) -> "Samples":
        """Return these samples on a device."""
        return Samples(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Augmentation:
    """Random changes of images, a batch at a time, on its device.

    Attributes:
        flip: mirror each image left to right with probability one half.
        crop: shift each image by up to that many pixels in each direction; what comes in is `fill`.
        fill: one value per channel.
    """

    flip: bool = False
    crop: int = 0
    fill: tuple[float, ...] = ()

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return images (samples, C, H, W), each changed at random; may write to those given.

        Args:
            generator: on the CPU, so that every device draws the same.
        """
        samples, shifts, mirrored = len(images), None, None
        if self.crop:
            shifts = torch.randint(2 * self.crop + 1, (2, samples), generator=generator)
        if self.flip:
            mirrored = torch.rand(samples, generator=generator) < 0.5
        return self._change(images, shifts, mirrored)

    def change(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Return images (samples, C, H, W), changed as random numbers say; may write to those given.

        Args:
            numbers: (3, samples) from 0 to 1, without 1, in float64 on the CPU: for top, left and side.
        """
        return self._change(images, (numbers[:2] * (2 * self.crop + 1)).long(), numbers[2] < 0.5)

    def _change(self, images: Tensor, shifts: Tensor | None, mirrored: Tensor | None) -> Tensor:
        samples, channels, height, width = images.shape
        if self.crop:
            fill = images.new_tensor(self.fill).view(1, channels, 1, 1)
            side = 2 * self.crop
            padded = fill.expand(samples, channels, height + side, width + side).clone()
            padded[..., self.crop : self.crop + height, self.crop : self.crop + width] = images
            top, left = shifts.unsqueeze(2).to(images.device)
            rows = (top + torch.arange(height, device=images.device)).unsqueeze(2)
            columns = (left + torch.arange(width, device=images.device)).unsqueeze(1)
            every = torch.arange(samples, device=images.device).view(-1, 1, 1)
            images = padded.permute(0, 2, 3, 1)[every, rows, columns].permute(0, 3, 1, 2)
        if self.flip:
            chosen = mirrored.nonzero().squeeze(1).to(images.device)
            images = images.index_copy_(0, chosen, images.index_select(0, chosen).flip(-1))
        return images


@dataclass(frozen=True)
class Data:
    """A dataset in memory.

    Attributes:
        num_outputs: how many outputs a model should have.
        augmentation: the random changes of training inputs, if any.
    """

    train: Samples
    test: Samples
    num_outputs: int
    augmentation: Augmentation | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.train.inputs.shape[1:])

    def to(self, device: torch.device | str) -> "Data":
        """Return this data on a device."""
        return Data(self.train.to(device), self.test.to(device), self.num_outputs, self.augmentation)


class Dataset(ABC):
    """Where data comes from: `class Digits(Dataset, name="digits")`.

    Attributes:
        model, loss, criterion: what suits it, by name; the defaults of the command line.
    """

    name: ClassVar[str]
    model: ClassVar[str]
    loss: ClassVar[str] = "nll"
    criterion: ClassVar[str] = "top-k"

    def __init_subclass__(cls, /, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:
            cls.name = name
            datasets.register(name, cls)

    @classmethod
    @abstractmethod
    def load(cls, directory: Path, *, transform: bool = True) -> Data:
        """Return the data on the CPU.

        Args:
            directory: the folder of all datasets, in torchvision's layout.
            transform: whether inputs are normalised and augmented in the dataset's usual way.

        Raises:
            UserError: the files are not there and cannot be fetched, or are not what they should be.
        """


class ImageDataset(Dataset):
    """Images (samples, C, H, W) of 8 bits, brought to [0, 1] and then normalised per channel.

    Attributes:
        mean, std: per channel; none: no normalisation.
        flip: whether training images are mirrored at random by default.
    """

    mean: ClassVar[tuple[float, ...]] = ()
    std: ClassVar[tuple[float, ...]] = ()
    flip: ClassVar[bool] = False
    num_outputs: ClassVar[int] = 10

    @classmethod
    @abstractmethod
    def read(cls, directory: Path) -> tuple[Samples, Samples]:
        """Return training and test images (samples, C, H, W) of dtype uint8 with their classes (samples,)."""

    @classmethod
    def load(cls, directory: Path, *, transform: bool = True, flip: bool | None = None, crop: int = 0) -> Data:
        if not isinstance(crop, int) or isinstance(crop, bool) or crop < 0 or flip not in (None, True, False):
            raise UserError(
                f"--dataset-args: expected flip:True or False and crop of at least 0, got {flip!r}, {crop!r}"
            )
        train, test = cls.read(directory)
        mean, std = (cls.mean, cls.std) if transform else ((), ())
        channels = train.inputs.shape[1]
        zero = tuple(-m / s for m, s in zip(mean, std, strict=True)) or (0.0,) * channels
        augmentation = Augmentation((cls.flip if flip is None else flip) and transform, crop * transform, zero)
        return Data(
            Samples(_normalised(train.inputs, mean, std), train.targets),
            Samples(_normalised(test.inputs, mean, std), test.targets),
            cls.num_outputs,
            augmentation if augmentation.flip or augmentation.crop else None,
        )


datasets: Registry[Dataset] = Registry("dataset")


def load(name: str, directory: Path, *, transform: bool = True, **arguments: Any) -> Data:
    """Return the dataset of that name, on the CPU.

    Raises:
        UserError: an unknown name or argument, or data that cannot be had.
    """
    cls = datasets[name]
    return cls.load(directory, transform=transform, **bind_arguments(name, arguments))


def bind_arguments(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a dataset, checked to be among those it has."""
    return bind(datasets[name].load, arguments, f"--dataset-args: {name}", CONTEXT)


def fetch(name: str, directory: Path, folder: str, download: Callable[[Path], None]) -> None:
    """Download into `directory / folder`, where files appear only when all are complete.

    Args:
        name: of the dataset, for the error.
        download: makes the folder in the directory it is given.

    Raises:
        UserError: the download, or writing it, failed.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--data-directory: expected a folder, got the file {directory}")
    created = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=f".{folder}-") as temporary:
            download(Path(temporary))
            for path in sorted((Path(temporary) / folder).rglob("*")):
                target = directory / path.relative_to(temporary)
                if path.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError) as error:
        if created and directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
        raise UserError(
            f"--dataset {name}: expected its files in {directory / folder}, and downloading them failed "
            f"({one_line(error)}); put them there, or name the folder that has {folder} in it with "
            f"--data-directory"
        ) from error


def _normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    values = images.to(torch.float32).div_(255)
    if mean:
        shape = (1, len(mean), 1, 1)
        values.sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))
    return values


import_modules(__name__, __path__)
