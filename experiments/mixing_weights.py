"""Mixing weights: how much a node counts each of what it hears, as matrices (n, n) with a row for every node.

All are doubly stochastic: rows have sum one, so that equal vectors stay as they are, and columns, so that mixing does
not move the mean of all.

Source: Xiao and Boyd, "Fast Linear Iterations for Distributed Averaging", Systems & Control Letters 2004 (max-degree);
Xiao, Boyd and Kim, "Distributed Average Consensus with Least-Mean-Square Deviation", 2007 (metropolis).
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy
from networkx import Graph
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, eigsh

from tools.errors import UserError

ROUNDING = 1e-12  # of each of the n terms of a sum
MOST_DENSE = 2000
"""Nodes up to which all eigenvalues are computed, which takes n³ operations."""
SPARSE_TOLERANCE = 1e-9
"""How exactly |λ₂| is found among more nodes, relative to it."""
SEARCH_DIMENSIONS, SEARCH_RESTARTS = 64, 300  # enough for a ring of 10,000 nodes


def metropolis(graph: Graph) -> csr_array:
    """Return 1 / (1 + max(deg i, deg j)) on edges (Metropolis–Hastings)."""
    senders, receivers, degrees = edges_of(graph)
    return _with_own(graph, senders, receivers, 1 / (1 + numpy.maximum(degrees[senders], degrees[receivers])))


def uniform(graph: Graph) -> csr_array:
    """Return 1 / (1 + k) on the edges of a graph in which all nodes have k neighbours.

    Raises:
        UserError: another graph.
    """
    degrees = edges_of(graph)[2]
    few, many = degrees.argmin(), degrees.argmax()
    if degrees[few] != degrees[many]:
        raise UserError(
            f"--topology-args weights:uniform: expected a graph in which all nodes have equally many neighbours, but "
            f"node {few} has {degrees[few]} and node {many} has {degrees[many]}; weights:metropolis takes any"
        )
    return metropolis(graph)


def max_degree(graph: Graph) -> csr_array:
    """Return 1 / (1 + the largest degree) on edges."""
    senders, receivers, degrees = edges_of(graph)
    return _with_own(graph, senders, receivers, numpy.full(len(senders), 1 / (1 + degrees.max())))


def lazy(graph: Graph) -> csr_array:
    """Return half of `metropolis`, the other half being every node's own: no eigenvalue is negative."""
    return ((eye_array(len(graph)) + metropolis(graph)) / 2).tocsr()


SCHEMES: dict[str, Callable[[Graph], csr_array]] = {
    "metropolis": metropolis,
    "uniform": uniform,
    "max-degree": max_degree,
    "lazy": lazy,
}
"""Mixing weights by the names that `--topology-args weights:` takes."""


def mixing_weights(name: str, graph: Graph) -> csr_array:
    """Return the weights of that name, (n, n) in float64, w_ij being what node i gives to node j, own included.

    Raises:
        UserError: they are not doubly stochastic, as in directed graphs in which a node hears more than hear it.
    """
    matrix = SCHEMES[name](graph)
    sums = numpy.stack([matrix.sum(axis=0), matrix.sum(axis=1)])
    if (matrix.data < 0).any() or (abs(sums - 1) > ROUNDING * len(graph)).any():
        raise UserError(
            f"--topology-args weights:{name}: expected rows and columns of sum one, got columns from "
            f"{sums[0].min():.4g} to {sums[0].max():.4g}; a directed graph needs weights:max-degree, and nodes that "
            f"hear as many as hear them"
        )
    return matrix


def edges_of(graph: Graph) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Return who is heard, by whom, two (E,), and how many each node hears, (n,)."""
    senders, receivers = numpy.array(graph.edges, dtype=numpy.int64).reshape(-1, 2).T
    if not graph.is_directed():
        senders, receivers = numpy.concatenate([senders, receivers]), numpy.concatenate([receivers, senders])
    return senders, receivers, numpy.bincount(receivers, minlength=len(graph))


def _with_own(graph: Graph, senders: numpy.ndarray, receivers: numpy.ndarray, weights: numpy.ndarray) -> csr_array:
    """Return the matrix with these weights on edges, what is left of one being every node's own."""
    nodes = numpy.arange(len(graph))
    own = 1 - numpy.bincount(receivers, weights, minlength=len(graph))
    places = numpy.concatenate([nodes, receivers]), numpy.concatenate([nodes, senders])
    return csr_array((numpy.concatenate([own, weights]), places), shape=(len(graph), len(graph)))


def spectral_gap(matrices: Sequence[csr_array]) -> float:
    """Return 1 − |λ₂| of the product of doubly stochastic matrices, λ₂ having the second largest modulus.

    That is by how much the distance to consensus shrinks when all have been applied, the first one first, or, where
    matrices are not symmetric, in the long run. NaN where an eigenvalue of more than `MOST_DENSE` nodes is not found.
    """
    n = matrices[0].shape[0]
    if n > MOST_DENSE:
        return 1 - _second_modulus(matrices)
    product = functools.reduce(lambda before, matrix: matrix @ before, matrices[1:], matrices[0].toarray())
    rest = product - 1 / n  # the same eigenvalues, but 0 instead of the 1 of the vector of ones
    values = numpy.linalg.eigvalsh(rest) if (rest == rest.T).all() else numpy.linalg.eigvals(rest)
    return max(0.0, 1 - float(abs(values).max()))


def _second_modulus(matrices: Sequence[csr_array]) -> float:
    n = matrices[0].shape[0]

    def apply(vector: numpy.ndarray) -> numpy.ndarray:
        vector = vector.ravel() - vector.mean()
        for matrix in matrices:
            vector = matrix @ vector
        return vector

    start = numpy.random.default_rng(1).standard_normal(n)
    if abs(apply(start)).max() < ROUNDING * n:  # exact averaging, of which the solver finds no direction
        return 0.0
    symmetric = len(matrices) == 1 and abs(matrices[0] - matrices[0].T).max() == 0
    operator = LinearOperator((n, n), matvec=apply, dtype=numpy.float64)
    search = {"which": "LM", "v0": start, "ncv": SEARCH_DIMENSIONS, "maxiter": SEARCH_RESTARTS, "tol": SPARSE_TOLERANCE}
    try:
        values = (eigsh if symmetric else eigs)(operator, k=1, return_eigenvectors=False, **search)
    except ArpackNoConvergence:
        return math.nan
    return min(1.0, float(abs(values[0])))
