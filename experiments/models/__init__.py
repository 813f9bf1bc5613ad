"""Model architectures, one file each, and torchvision's classifiers as `torchvision-<name>`.

An architecture is a module class that registers itself under its name. Its constructor receives what the dataset
decides, `input_shape` and `num_outputs`, and whatever `--model-args` gives. `template.py` is there to be copied.
"""

import warnings
from typing import Any, ClassVar

from torch import Tensor, nn

from tools.arguments import bind
from tools.errors import UserError, one_line
from tools.registry import Registry, UnknownNameError, import_modules

CONTEXT = frozenset({"input_shape", "num_outputs"})
TORCHVISION = "torchvision-"


class Architecture(nn.Module):
    """A module that `--model` can name: `class SimplesFull(Architecture, name="simples-full")`.

    Its constructor is `__init__(self, input_shape, num_outputs, *, …)`, `input_shape` being that of one sample.
    """

    name: ClassVar[str]

    def __init_subclass__(cls, /, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:
            cls.name = name
            architectures.register(name, cls)


architectures: Registry[Architecture] = Registry("model")


def check(name: str, arguments: dict[str, Any]) -> None:
    """Raise a UserError, with the known ones, for an unknown name, or an argument which that model does not have."""
    if name.startswith(TORCHVISION):
        torchvision_classifier.find(name.removeprefix(TORCHVISION))
        return
    try:
        bind(architectures[name], arguments, f"--model-args: {name}", CONTEXT)
    except UnknownNameError as error:
        raise UserError(f"{error}, or {TORCHVISION}<name> for a classifier of torchvision") from None


def build(name: str, *, input_shape: tuple[int, ...], num_outputs: int, **arguments: Any) -> nn.Module:
    """Return a new model of that name, its parameters drawn from torch's global generator.

    Raises:
        UserError: an unknown name, arguments it does not have, or a shape of input it cannot take.
    """
    check(name, arguments)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Initializing zero-element tensors")  # refused later, in one line
            return _construct(name, input_shape, num_outputs, arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--model-args: {name} cannot be built with {arguments}: {one_line(error)}") from error


def _construct(name: str, input_shape: tuple[int, ...], num_outputs: int, arguments: dict[str, Any]) -> nn.Module:
    if name.startswith(TORCHVISION):
        name = name.removeprefix(TORCHVISION)
        return torchvision_classifier.Classifier(name, input_shape, num_outputs, **arguments)
    return architectures[name](input_shape, num_outputs, **arguments)


def channels_last(images: Tensor) -> Tensor:
    """Return images (samples, C, H, W) laid out channel by channel on the GPU, pixel by pixel on the CPU.

    There convolutions run as fast and pooling ten times faster in that layout, which the layers that follow keep. Use
    `flatten` or `reshape`, not `view`, on the result.
    """
    if images.is_cuda:
        return images
    samples, channels, height, width = images.shape
    pixels = images.permute(0, 2, 3, 1).reshape(samples, -1)  # flat first, or a single channel keeps its old strides
    return pixels.view(samples, height, width, channels).permute(0, 3, 1, 2)


import_modules(__name__, __path__)
from experiments.models import torchvision_classifier  # noqa: E402  needs the names above
