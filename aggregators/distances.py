"""Distances between the rows of a matrix, from one product of it with its transpose, and means of selected rows."""

import torch
from torch import Tensor

from tools.long_rows import column_blocks, gram

SMALLEST_SHARE = 1e-2  # of squared norms that a squared distance may be before too many of float32's digits are lost


def squared_distances(gradients: Tensor, copies: int = 1) -> Tensor:
    """Return the squared Euclidean distances between rows, (…, n, d) → (…, n, n) in float64.

    ‖x‖² + ‖y‖² − 2⟨x, y⟩ loses its digits when x and y are close to each other and far from the origin. Where any pair
    is, or anything is not finite, all is done again in float64, with the rows centred on the mean of those of moderate
    norm. Differences below zero are zero.

    Args:
        copies: the last so many rows are known to be equal; their distances are computed once.

    Returns:
        Distances, zero on the diagonal; +inf from and to rows that hold NaN or ±inf, or are too large to square.
    """
    n = gradients.shape[-2]
    distinct = n - copies + 1
    rows = gradients[..., :distinct, :]
    distances, doubtful = _from_products(gram(rows))
    if doubtful:
        distances = _centred(rows)
    if copies > 1:
        index = torch.arange(n, device=gradients.device).clamp(max=distinct - 1)
        distances = distances.index_select(-1, index).index_select(-2, index)
    return distances


def _from_products(products: Tensor) -> tuple[Tensor, bool]:
    """Return squared distances by inner products, and whether they deserve doubt; this waits for the GPU."""
    squares = products.diagonal(dim1=-2, dim2=-1)
    sums = squares.unsqueeze(-1) + squares.unsqueeze(-2)
    distances = (sums - 2 * products).clamp(min=0)
    distances.diagonal(dim1=-2, dim2=-1).zero_()
    sure = distances >= SMALLEST_SHARE * sums  # false where anything is NaN
    sure.diagonal(dim1=-2, dim2=-1).fill_(True)
    return distances, not bool((sure & sums.isfinite()).all())


def _centred(rows: Tensor) -> Tensor:
    """Return squared distances between rows that are close to each other, or some of which are not finite or huge."""
    finite = rows.isfinite().all(dim=-1)
    rows = rows.masked_fill(~finite.unsqueeze(-1), 0)
    norms = torch.linalg.vector_norm(rows, dim=-1).where(finite, torch.inf)
    # At most ten times the median norm, which outliers cannot move while they are a minority
    moderate = (norms <= 10 * norms.median(dim=-1, keepdim=True).values) & norms.isfinite()
    weights = moderate.double() / moderate.sum(dim=-1, keepdim=True).clamp(min=1)
    products = 0
    for block in column_blocks(rows):
        part = rows[..., block].double()
        products = products + gram(part - weights.unsqueeze(-2) @ part)
    distances, _ = _from_products(products)
    far = ~(finite.unsqueeze(-1) & finite.unsqueeze(-2)) | distances.isnan()
    return distances.masked_fill(far, torch.inf)


def sums_to_nearest(distances: Tensor, count: int) -> Tensor:
    """Return for each row the sum of its distances to the `count` nearest others, (…, n, n) → (…, n)."""
    others = distances.clone()
    others.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
    return others.sort(dim=-1).values[..., :count].sum(dim=-1)


def equal_weights_of_smallest(scores: Tensor, count: int) -> Tensor:
    """Return 1 / count for the `count` smallest scores, of equal ones the first, and 0 elsewhere: (…, n) → (…, n)."""
    chosen = scores.sort(dim=-1, stable=True).indices[..., :count]
    return torch.zeros_like(scores).scatter_(-1, chosen, 1 / count)
