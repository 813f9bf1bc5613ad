"""Walks over matrices of few long rows (…, k, d), d in the thousands or millions, one pass over memory each.

All work block of columns by block of columns: what a block needs stays in cache and no second (k, d) matrix is made. On
CPU `torch.var_mean(dim=0)` over such a matrix takes ten times longer than the centred squares below.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

CPU_BLOCK_ELEMENTS = 2**19  # 2 MiB of float32: about what the cores' second-level caches hold
GPU_BLOCK_ELEMENTS = 2**26
SPLIT_FROM, LEAST_PIECES, LONGEST_PIECE = 8192, 32, 2**15  # columns, pieces and columns of a product's pieces
SAFE_SHARE = 0.1  # a difference of sums this large, as a share of them, has lost no more than one digit


def stack_rows(rows: Tensor | Sequence[Tensor], what: str) -> Tensor:
    """Return (…, k, d) as it is, or k vectors (d,) as one matrix (k, d), copied.

    Raises:
        TypeError: neither of these, or not of float32 or float64.
        ValueError: no row, no column, or vectors of different shapes.
    """
    if not isinstance(rows, Tensor):
        if not isinstance(rows, Iterable):
            raise TypeError(f"{what}: expected a tensor (…, rows, d) or a sequence of tensors (d,), got {rows!r}")
        vectors = list(rows)
        if not vectors:
            raise ValueError(f"{what}: expected at least one vector, got none")
        if not all(isinstance(vector, Tensor) for vector in vectors):
            raise TypeError(f"{what}: expected a tensor (…, rows, d) or a sequence of tensors (d,)")
        shapes = {tuple(vector.shape) for vector in vectors}
        if len(shapes) > 1 or len(vectors[0].shape) != 1:
            raise ValueError(f"{what}: expected vectors (d,) of one size, got shapes {sorted(shapes)}")
        rows = torch.stack(vectors)
    if not rows.is_floating_point():
        raise TypeError(f"{what}: expected floating-point values, got {rows.dtype}")
    if rows.dtype.itemsize < 4:  # too few digits to tell distances, and ties, apart
        raise TypeError(f"{what}: expected values in float32 or float64, got {rows.dtype}; convert them")
    if rows.dim() < 2 or 0 in rows.shape:
        raise ValueError(
            f"{what}: expected at least one row and one column, and no leading axis of size 0, got shape "
            f"{tuple(rows.shape)}"
        )
    return rows


def shares_memory(x: Tensor, y: Tensor) -> bool:
    """Return whether two tensors are views of one memory."""
    return x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


def check_out(out: Tensor | None, shape: tuple[int, ...], like: Tensor, what: str) -> None:
    """Raise ValueError unless `out`, where there is one, can take a result of this shape, and dtype and device."""
    if out is not None and (out.shape != shape or out.dtype != like.dtype or out.device != like.device):
        raise ValueError(
            f"{what}: expected out of shape {tuple(shape)}, {like.dtype} on {like.device}, got {tuple(out.shape)}, "
            f"{out.dtype} on {out.device}"
        )


def column_blocks(matrix: Tensor) -> Iterator[slice]:
    """Yield slices of the last axis of (…, k, d), each holding a block small enough for the cache."""
    d = matrix.shape[-1]
    elements = GPU_BLOCK_ELEMENTS if matrix.is_cuda else CPU_BLOCK_ELEMENTS
    width = max(elements // max(matrix.numel() // d, 1), 256)
    return (slice(start, min(start + width, d)) for start in range(0, d, width))


def column_means(matrix: Tensor) -> Tensor:
    """Return the mean of the rows, (…, k, d) → (…, d), the very bits that `column_moments` gives."""
    means = matrix.new_empty(matrix.shape[:-2] + matrix.shape[-1:])
    for block in column_blocks(matrix):
        torch.mean(matrix[..., block], dim=-2, out=means[..., block])
    return means


def column_moments(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return each column's mean and sum of squared deviations from it, (…, k, d) → two (…, d)."""
    means = matrix.new_empty(matrix.shape[:-2] + matrix.shape[-1:])
    squares = torch.empty_like(means)
    for block in column_blocks(matrix):
        part = matrix[..., block]
        mean = torch.mean(part, dim=-2, out=means[..., block])
        torch.sum((part - mean.unsqueeze(-2)).square_(), dim=-2, out=squares[..., block])
    return means, squares


def squared_norms(matrix: Tensor, centre: Tensor | None = None) -> Tensor:
    """Return the squared norms of the rows, or of their differences to a centre, (…, k, d) → (…, k) in float64.

    Summed in float64 on the GPU, on the CPU in the rows' own dtype, but for rows whose squares are too large or too
    small for it.
    """
    total = matrix.new_zeros(matrix.shape[:-1], dtype=torch.float64)
    dtype = torch.float64 if matrix.is_cuda else matrix.dtype
    for block in column_blocks(matrix):
        part = matrix[..., block] if centre is None else matrix[..., block] - centre[..., block].unsqueeze(-2)
        total += torch.linalg.vector_norm(part, dim=-1, dtype=dtype).double().square_()
    if dtype != torch.float64:
        lost = ~(total.isfinite() & (total > smallest_square(dtype)))
        if lost.any():
            rows = matrix[lost].double()
            if centre is not None:
                rows -= centre.unsqueeze(-2).expand_as(matrix)[lost]
            total[lost] = torch.linalg.vector_norm(rows, dim=-1).square_()
    return total


def normalised(vector: Tensor) -> Tensor:
    """Return vectors (…, d) at norm 1, or zero where they are zero."""
    norm = squared_norms(vector.unsqueeze(-2)).sqrt().to(vector.dtype)
    return vector / norm.clamp(min=torch.finfo(vector.dtype).tiny)


def smallest_square(dtype: torch.dtype) -> float:
    """Return how large a sum of squares must be to have lost nothing below the range of a dtype."""
    return torch.finfo(dtype).tiny * 2**34


def mean_and_scatter(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of the rows and the sum of their squared distances to it, (…, k, d) → (…, d) and (…) in float64.

    Σ‖xᵢ‖² − k‖mean‖² takes half the time of centring on the CPU, and is used there unless it loses digits.
    """
    if not matrix.is_cuda:
        means = column_means(matrix)
        total = squared_norms(matrix).sum(dim=-1)
        scatter = total - matrix.shape[-2] * squared_norms(means.unsqueeze(-2)).squeeze(-1)
        if (scatter >= SAFE_SHARE * total).all():
            return means, scatter
    means, squares = column_moments(matrix)
    return means, squares.sum(dim=-1, dtype=torch.float64)


def gram(matrix: Tensor) -> Tensor:
    """Return the inner products of the rows, (…, k, d) → (…, k, k) in float64, summed in it piece by piece; symmetric.

    One product per piece of the columns, all in one batch, keeps every core busy, which one long thin product does not.
    """
    d = matrix.shape[-1]
    count = max(LEAST_PIECES, d // LONGEST_PIECE) if d >= SPLIT_FROM else 0
    even = d // count * count if count else 0
    rest = matrix[..., even:]
    products = (rest @ rest.mT).double()
    if count:
        pieces = matrix[..., :even].unflatten(-1, (count, -1)).transpose(-3, -2)
        products += (pieces @ pieces.mT).sum(dim=-3, dtype=torch.float64)
    return (products + products.mT) / 2  # entries ij and ji are rounded differently
