"""Order statistics along the workers' axis, coordinate by coordinate."""

from torch import Tensor


def median(gradients: Tensor) -> Tensor:
    """Return the coordinate-wise median, the mean of the two middle values for even n: (…, n, d) → (…, d)."""
    return mean_of_ranks(gradients, (gradients.shape[-2] - 1) // 2, gradients.shape[-2] // 2 + 1)


def lower_median(gradients: Tensor) -> Tensor:
    """Return the coordinate-wise lower median, the smaller of the two middle values for even n."""
    middle = (gradients.shape[-2] - 1) // 2
    return mean_of_ranks(gradients, middle, middle + 1)


def mean_of_ranks(gradients: Tensor, first: int, last: int) -> Tensor:
    """Return per coordinate the mean of the sorted values of ranks first … last − 1: (…, n, d) → (…, d)."""
    return gradients.sort(dim=-2).values[..., first:last, :].mean(dim=-2)


def mean_of_closest(gradients: Tensor, centre: Tensor, count: int) -> Tensor:
    """Return per coordinate the mean of the `count` values closest to the centre, of equally close ones the first.

    Shapes: (…, n, d) and (…, d) → (…, d). Infinite values count as infinitely far.
    """
    if count == gradients.shape[-2]:
        return gradients.mean(dim=-2)
    distances = (gradients - centre.unsqueeze(-2)).abs_()
    closest = distances.sort(dim=-2, stable=True).indices[..., :count, :]
    return gradients.gather(-2, closest).mean(dim=-2)
