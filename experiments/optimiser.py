"""What a node does with its gradients: SGD with momentum."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """The settings of every node's SGD.

    Attributes:
        learning_rate: η, or a function of the rounds done.
        momentum: μ.
        dampening: δ: m ← μm + (1−δ)g.
        nesterov: whether gradients are computed where the momentum leads.
        momentum_at: "worker", or "update" for momentum of what mixing returns.
        weight_decay: λ of the step −ηλθ, or of the gradient g + λθ.
        decays_gradient: whether λθ is part of the gradient, which momentum then sees.
        gradient_clip: largest norm of a gradient.
        local_steps: SGD steps that make one gradient.
        train: the mode of batch normalisation and dropout.
    """

    learning_rate: float | Callable[[int], float]
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    momentum_at: str = "worker"
    weight_decay: float = 0.0
    decays_gradient: bool = False
    gradient_clip: float | None = None
    local_steps: int = 1
    train: bool = True

    @property
    def step_decay(self) -> float:
        """λ of the step −ηλθ: 0 where the gradient has it."""
        return 0.0 if self.decays_gradient else self.weight_decay

    def rate(self, rounds: int) -> float:
        """Return η after so many rounds."""
        return self.learning_rate(rounds) if callable(self.learning_rate) else self.learning_rate
