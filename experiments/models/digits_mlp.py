"""A small network for scikit-learn's 8×8 digits: 64-64-10, d = 4,810."""

from experiments.models.simples_full import SimplesFull


class DigitsMLP(SimplesFull, name="digits-mlp"):
    """One hidden layer of 64 with ReLU, log-softmax."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, *, hidden: int = 64) -> None:
        super().__init__(input_shape, num_outputs, hidden=hidden)
