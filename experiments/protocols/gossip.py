"""Gossip of gradients: neighbours mix gradients, or momentum vectors, by weights, and then take a step each.

    uᵢ ← gᵢ, or μuᵢ + (1−δ)gᵢ with momentum μ at workers;   θᵢ ← θᵢ − η Σⱼ wᵢⱼ uⱼ

With momentum at `update` the gradients are mixed, and each node has momentum of what comes out. Weight decay is a
node's own, and not exchanged. Models are never exchanged: nodes that start apart stay apart.

Source: gradient tracking without the tracking; Nedić and Ozdaglar, "Distributed Subgradient Methods for Multi-Agent
Optimization", IEEE Transactions on Automatic Control 2009, mix models instead. The weights are those of Xiao and Boyd,
"Fast Linear Iterations for Distributed Averaging", 2004.
"""

from experiments.protocols import Protocol


class Gossip(Protocol, name="gossip"):
    """Gradients (momentum vectors) mixed by weights, then each node's own step; no defence against Byzantine ones."""

    takes_rules = False
    exchanges_models = False
    momentum_places = ("worker", "update")
