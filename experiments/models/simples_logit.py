"""Logistic regression, as in the ICLR 2021 code."""

from torch import Tensor

from experiments.models.simples_linear import SimplesLinear


class SimplesLogit(SimplesLinear, name="simples-logit"):
    """One linear layer of `din` inputs and `dout` outputs, those of the dataset when not given, and a sigmoid."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).sigmoid()
