"""What attacks on a topology share: each honest node hears a vector of its own from all its Byzantine neighbours."""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from attacks import Attack, repeat
from tools.arguments import check_number


def neighbour_weights(h: int, weights: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor]:
    """Return what honest nodes give each other, (h, h), zero on the diagonal, and give Byzantine ones in all, (h,).

    Args:
        weights: (n, n), of which only those of edges count.
        adjacency: (n, n), boolean.

    Returns:
        Weights in float64.
    """
    edges = weights.double().where(adjacency, 0)
    honest = edges[:h, :h].clone().fill_diagonal_(0)
    return honest, edges[:h, h:].sum(dim=1)


class TopologyAttack(Attack):
    """An attack that sends each honest node some mean of the honest vectors, by the weights of the topology.

    A subclass writes `mixing`. Nodes without Byzantine neighbours have their own vector in the result, which nobody
    sends.
    """

    needs = ("weights", "adjacency")
    per_recipient = True

    @classmethod
    @abstractmethod
    def mixing(cls, honest: Tensor, byzantine: Tensor, epsilon: float) -> Tensor:
        """Return what each honest node hears less its own vector, in shares of the honest vectors, (h, h) in float64.

        Args:
            honest: what honest nodes give each other, (h, h), zero on the diagonal.
            byzantine: what each of them gives Byzantine ones in all, (h,).
        """

    @classmethod
    def check(
        cls,
        *,
        h: int,
        f: int,
        epsilon: float = 1.0,
        weights: Tensor | None = None,
        adjacency: Tensor | None = None,
        **specialized: Any,
    ) -> None:
        check_number(cls.name, "epsilon", epsilon, least=0)
        n = h + f
        for piece, matrix in (("weights", weights), ("adjacency", adjacency)):
            if matrix is not None and matrix.shape != (n, n):  # they are not known before a run
                raise ValueError(f"{cls.name}: expected {piece} of shape {(n, n)}, got {tuple(matrix.shape)}")

    @classmethod
    def generate(
        cls,
        honest_gradients: Tensor,
        /,
        *,
        f: int,
        weights: Tensor,
        adjacency: Tensor,
        epsilon: float = 1.0,
        **specialized: Any,
    ) -> Tensor:
        mixing = cls.mixing(*neighbour_weights(honest_gradients.shape[-2], weights, adjacency), epsilon)
        mixing.diagonal().add_(1)
        return repeat(mixing.to(honest_gradients) @ honest_gradients, f)
