"""Wide residual networks, as the appendix of the ICLR 2021 paper trained WRN-28-10 on CIFAR-10, d = 36,489,290.

Source: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, table 1, with blocks B(3, 3). Where the code that
the ICLR 2021 experiments ran (https://github.com/meliketoy/wide-resnet.pytorch) differs from it, this is that code:
convolutions have biases, and torch's initial weights instead of those of He et al.; a block shrinks the image in its
second convolution, not its first, projects its raw input, and drops values before its second normalisation, not after
its second ReLU. Two things are not as there: the running statistics of the last normalisation move by 0.1 as all
others, not by 0.9; and the outputs are log-probabilities, of which crossentropy makes what it makes of logits, and nll,
the default loss, the same.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from experiments.models import Architecture, channels_last
from tools.arguments import check_number, check_whole
from tools.errors import UserError


class Block(nn.Module):
    """Twice batch normalisation, ReLU and 3×3 convolution, dropout in between, around which a shortcut leads."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.Conv2d(inputs, outputs, 3, padding=1)),
            nn.Dropout(dropout),
            *(nn.BatchNorm2d(outputs), nn.ReLU(inplace=True), nn.Conv2d(outputs, outputs, 3, stride, padding=1)),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.residual(inputs) + self.shortcut(inputs)


class WideResNet(Architecture, name="wide-resnet"):
    """Groups of (depth − 4) / 6 blocks with 16, 32 and 64 channels times the widen factor, log-softmax.

    The second and third group each halve the sides of the image.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        *,
        depth: int = 28,
        widen_factor: int = 10,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        check_whole("wide-resnet", "depth", depth, least=10)
        check_whole("wide-resnet", "widen_factor", widen_factor, least=1)
        check_number("wide-resnet", "dropout", dropout, least=0, most=1)
        if depth % 6 != 4:
            raise UserError(f"wide-resnet: expected a depth of 6k + 4, such as 10, 16, 22 or 28, got {depth}")
        if len(input_shape) != 3:
            raise UserError(f"wide-resnet: expected images, got samples of shape {input_shape}")
        blocks, channels = [], 16
        for width, first_stride in ((16, 1), (32, 2), (64, 2)):
            for stride in (first_stride, *[1] * ((depth - 4) // 6 - 1)):
                blocks.append(Block(channels, width * widen_factor, stride, dropout))
                channels = width * widen_factor
        self.maps = nn.Sequential(
            *(nn.Conv2d(input_shape[0], 16, 3, padding=1), *blocks),
            *(nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        self.classes = nn.Linear(channels, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.log_softmax(self.classes(self.maps(channels_last(inputs))), dim=1)
