"""The convolutional network of "Fall of Empires" as the ICLR 2021 paper trained it on CIFAR-10 and CIFAR-100.

Source: Xie, Koyejo and Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI
2019, section 5. ReLU comes before batch normalisation there.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from experiments.models import Architecture, channels_last
from tools.errors import UserError


def block(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    """Return two 3×3 convolutions, each with ReLU and batch normalisation, then 2×2 max-pooling and dropout."""
    return nn.Sequential(
        *(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(outputs)),
        *(nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(outputs)),
        *(nn.MaxPool2d(2), nn.Dropout(dropout)),
    )


class EmpireCNN(Architecture, name="empire-cnn"):
    """Blocks of 64 and 128 channels, a hidden layer of 128 (256 for 100 classes), log-softmax."""

    def __init__(
        self, input_shape: tuple[int, ...], num_outputs: int, *, hidden: int | None = None, dropout: float = 0.25
    ) -> None:
        super().__init__()
        if len(input_shape) != 3 or min(input_shape[1:]) < 4:
            raise UserError(f"empire-cnn: expected images of at least 4×4, got samples of shape {input_shape}")
        channels, height, width = input_shape
        if hidden is None:
            hidden = 256 if num_outputs == 100 else 128
        self.maps = nn.Sequential(block(channels, 64, dropout), block(64, 128, dropout))
        self.classes = nn.Sequential(
            *(nn.Linear(128 * (height // 4) * (width // 4), hidden), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(hidden, num_outputs),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return F.log_softmax(self.classes(self.maps(channels_last(inputs)).flatten(1)), dim=1)
