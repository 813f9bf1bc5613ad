"""Distances between the rows of a matrix, from one product of it with its transpose, and means of selected rows."""

import torch
from torch import Tensor

from tools.long_rows import column_blocks, gram, smallest_square, squared_norms

ROUNDING = 8  # units of rounding by which equal scores may differ
PROBED = 1024  # coordinates of two rows that are compared before all are
SMALLEST_SHARE = 1e-2  # of squared norms that a squared distance may be before too many of float32's digits are lost


def squared_distances(gradients: Tensor, copies: int = 1, centre: Tensor | None = None) -> Tensor:
    """Return the squared Euclidean distances between rows, (…, n, d) → (…, n, n) in float64, symmetric.

    ‖x‖² + ‖y‖² − 2⟨x, y⟩ loses its digits when x and y are close to each other and far from the origin. Where any pair
    is, but not equal, all is done again with the rows centred on the mean of those of moderate norm; where that is not
    enough either, in float64. Differences below zero are zero.

    Args:
        copies: the last so many rows are known to be equal; their distances are computed once.
        centre: (…, d), near which the rows are expected, if far from the origin.

    Returns:
        Distances, zero on the diagonal; +inf from and to rows that hold NaN or ±inf or are too large to square, to
        themselves as well.
    """
    n = gradients.shape[-2]
    distinct = n - copies + 1
    rows = gradients[..., :distinct, :]
    if centre is None:
        products = gram(rows)
    else:
        products = sum(gram(rows[..., block] - centre[..., block].unsqueeze(-2)) for block in column_blocks(rows))
    distances, doubtful = _from_products(products, rows.dtype)
    if doubtful.any():  # waits for the GPU
        equal, finite, unsettled = _settle(rows, products, doubtful)
        if unsettled:
            products = _centred_products(rows, equal, finite)
            distances = _from_products(products, torch.float64)[0]
            finite &= products.diagonal(dim1=-2, dim2=-1).isfinite()
        far = ~(finite.unsqueeze(-1) & finite.unsqueeze(-2))
        distances = distances.masked_fill(equal, 0).masked_fill(far | distances.isnan(), torch.inf)
    if copies > 1:
        index = torch.arange(n, device=gradients.device).clamp(max=distinct - 1)
        distances = distances.index_select(-1, index).index_select(-2, index)
    return distances


def inner_products(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inner products of rows about a common centre, (…, n, d) → (…, n, n) in float64, and who is finite.

    From these follow all distances between weighted means of rows, see `squared_distances_to_means`. The centre is the
    origin unless that would lose digits, and else the mean of the rows of moderate norm: for rules that do not depend
    on it.

    Returns:
        Products, symmetric, zero for rows that hold NaN or ±inf or are too large to square; and which rows are neither,
        (…, n).
    """
    products = gram(gradients)
    doubtful = _from_products(products, gradients.dtype)[1]
    if not doubtful.any():  # waits for the GPU
        return products, torch.ones_like(products[..., 0], dtype=torch.bool)
    equal, finite, unsettled = _settle(gradients, products, doubtful)
    if unsettled:
        products = _centred_products(gradients, equal, finite)
        finite &= products.diagonal(dim1=-2, dim2=-1).isfinite()
    return products.where(finite.unsqueeze(-1) & finite.unsqueeze(-2), 0), finite


def squared_distances_to_means(products: Tensor, weights: Tensor) -> Tensor:
    """Return squared distances of weighted means of rows to the rows, by the rows' inner products.

    Shapes: (…, n, n) and weights of sum one (…, n) → (…, n).
    """
    mixed = (products @ weights.unsqueeze(-1)).squeeze(-1)
    own = (weights * mixed).sum(dim=-1, keepdim=True)
    return (own - 2 * mixed + products.diagonal(dim1=-2, dim2=-1)).clamp(min=0)


def squared_distances_between_means(squared_distances: Tensor, weights: Tensor) -> Tensor:
    """Return squared distances between weighted means of rows, by finite ones between the rows.

    Shapes: (…, n, n) and weights (…, r, n), each r of sum one → (…, r, r), symmetric.
    """
    mixed = weights @ squared_distances @ weights.mT
    mixed = (mixed + mixed.mT) / 2  # entries ij and ji are rounded differently
    own = mixed.diagonal(dim1=-2, dim2=-1)
    distances = (mixed - (own.unsqueeze(-1) + own.unsqueeze(-2)) / 2).clamp(min=0)
    distances.diagonal(dim1=-2, dim2=-1).zero_()
    return distances


def _from_products(products: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return squared distances by inner products of vectors of a dtype, and which deserve doubt, all (…, n, n)."""
    squares = products.diagonal(dim1=-2, dim2=-1)
    sums = squares.unsqueeze(-1) + squares.unsqueeze(-2)
    distances = (sums - 2 * products).clamp(min=0)
    sure = distances >= SMALLEST_SHARE * sums  # false where anything is NaN
    sure.diagonal(dim1=-2, dim2=-1).fill_(True)
    distances.diagonal(dim1=-2, dim2=-1).zero_()
    return distances, ~(sure & sums.isfinite() & (sums > smallest_square(dtype)))


def _settle(rows: Tensor, products: Tensor, doubtful: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Return which pairs of rows are equal (…, n, n), which rows are finite (…, n), and whether doubt is left.

    A distance of zero between equal rows, and one of +inf to a row that is not finite, need no second look.
    """
    equal = _equal_rows(rows, doubtful)
    finite = products.diagonal(dim1=-2, dim2=-1).isfinite()
    finite[~finite] = rows[~finite].isfinite().all(dim=-1)  # or only their squares are too large
    return equal, finite, bool((doubtful & ~equal & finite.unsqueeze(-1) & finite.unsqueeze(-2)).any())


def _equal_rows(rows: Tensor, doubtful: Tensor) -> Tensor:
    """Return which pairs of finite rows are the same to the bit, (…, n, n), as copies of one attack are.

    Among those of doubtful distance; for each row one other is looked at.
    """
    n = rows.shape[-2]
    same_as = torch.arange(n, device=rows.device).expand(rows.shape[:-1]).clone()
    candidates = doubtful.flatten(0, -3).any(dim=0) if doubtful.dim() > 2 else doubtful
    for j, others in enumerate(candidates.tolist()):
        i = next((i for i in range(j) if others[i]), None)
        if i is None or not (rows[..., i, :PROBED] == rows[..., j, :PROBED]).all(dim=-1).any():
            continue
        equal = (rows[..., i, :] == rows[..., j, :]).all(dim=-1) & rows[..., j, :].sum(dim=-1).isfinite()
        same_as[..., j] = same_as[..., i].where(equal, j)
    return same_as.unsqueeze(-1) == same_as.unsqueeze(-2)


def _centred_products(rows: Tensor, equal: Tensor, finite: Tensor) -> Tensor:
    """Return inner products about the mean of the rows of moderate norm, (…, n, d) → (…, n, n) in float64.

    For rows that are close to each other, or some of which are huge; those that are not finite count as zero. In the
    rows' dtype where that is precise enough, else in float64. Pairs known to be equal need no precision.
    """
    norms = squared_norms(rows).masked_fill(~finite, torch.inf)
    # At most ten times the median norm, which outliers cannot move while they are a minority
    moderate = (norms <= 100 * norms.median(dim=-1, keepdim=True).values) & norms.isfinite()
    settled = equal | ~(finite.unsqueeze(-1) & finite.unsqueeze(-2))
    for dtype in dict.fromkeys((rows.dtype, torch.float64)):
        weights = moderate.to(dtype) / moderate.sum(dim=-1, keepdim=True).clamp(min=1)
        products = 0
        for block in column_blocks(rows):
            part = rows[..., block].to(dtype).masked_fill(~finite.unsqueeze(-1), 0)
            products = products + gram(part - weights.unsqueeze(-2) @ part)
        if (settled | ~_from_products(products, dtype)[1]).all():
            break
    return products


def sums_to_nearest(distances: Tensor, count: int) -> Tensor:
    """Return for each row the sum of its distances to the `count` nearest others, (…, n, n) → (…, n)."""
    others = distances.clone()
    others.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
    return others.sort(dim=-1).values[..., :count].sum(dim=-1)


def order_by(scores: Tensor, dtype: torch.dtype, units: float = ROUNDING) -> Tensor:
    """Return the indices of scores ≥ 0 from small to large, NaN last; of equal ones the first comes first.

    Scores that differ by no more than so many units of rounding in this dtype are equal, so that rounding breaks no
    tie.
    """
    ordered, indices = scores.masked_fill(scores.isnan(), torch.inf).sort(dim=-1, stable=True)
    apart = ordered[..., 1:] > ordered[..., :-1] * (1 + units * torch.finfo(dtype).eps)
    ranks = torch.zeros_like(indices)
    ranks[..., 1:] = apart.cumsum(dim=-1)
    return torch.empty_like(ranks).scatter_(-1, indices, ranks).sort(dim=-1, stable=True).indices


def equal_weights_of_smallest(scores: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Return 1 / count for the `count` smallest scores, see `order_by`, and 0 elsewhere: (…, n) → (…, n)."""
    chosen = order_by(scores, dtype)[..., :count]
    return torch.zeros_like(scores).scatter_(-1, chosen, 1 / count)
