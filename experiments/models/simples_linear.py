"""Linear regression, as in the ICLR 2021 code."""

import math

from torch import Tensor, nn

from experiments.models import Architecture


class SimplesLinear(Architecture, name="simples-linear"):
    """One linear layer of `din` inputs and `dout` outputs, those of the dataset when not given."""

    def __init__(
        self, input_shape: tuple[int, ...], num_outputs: int, *, din: int | None = None, dout: int | None = None
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(input_shape) if din is None else din, num_outputs if dout is None else dout)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs.flatten(1))
