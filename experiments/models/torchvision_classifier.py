"""Any classifier of torchvision, with log-softmax appended, since the default loss is nll."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from experiments.models import TORCHVISION, channels_last
from tools.errors import UserError


def find(name: str) -> Callable[..., nn.Module]:
    """Return torchvision's builder of that name; an unknown one raises a UserError that lists the known ones."""
    from torchvision import models  # takes over a second, which runs without it need not spend

    known = models.list_models(module=models)
    if name not in known:
        raise UserError(f"unknown model {TORCHVISION + name!r}, expected {TORCHVISION} and one of: {', '.join(known)}")
    return models.get_model_builder(name)


class Classifier(nn.Module):
    """An untrained torchvision model of images (samples, C, H, W); it sees a single channel as three equal ones."""

    def __init__(self, name: str, input_shape: tuple[int, ...], num_outputs: int, **arguments: Any) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise UserError(f"{TORCHVISION}{name}: expected images, got samples of shape {input_shape}")
        if name in ("googlenet", "inception_v3"):  # their auxiliary outputs want a loss of their own
            arguments = {"aux_logits": False, "init_weights": True, **arguments}
        self.network = find(name)(weights=None, num_classes=num_outputs, **arguments)

    def forward(self, inputs: Tensor) -> Tensor:
        images = inputs.expand(-1, 3, -1, -1) if inputs.shape[1] == 1 else inputs
        return F.log_softmax(self.network(channels_last(images)), dim=1)
