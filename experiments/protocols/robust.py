"""Robust mixing: every node mixes the models of its neighbours by an aggregation rule, its own among them.

Source: Fang, Yang and Bajwa, "BRIDGE: Byzantine-resilient Decentralized Gradient Descent", IEEE Transactions on Signal
and Information Processing over Networks 2022, algorithm 1, for any rule (theirs are trmean, median, krum and bulyan).
They mix models, then take the gradient at what came out; here the local step comes first and the models after it are
mixed, as in MoNNA: θᵢ ← R(θⱼ − η mⱼ, j = i and its neighbours).
"""

from experiments.protocols import Protocol


class Robust(Protocol, name="robust"):
    """A local step, then any rule (`--gar`, after `--pre-gar`) over one's own model and those of all neighbours."""
