"""Decentralised parallel SGD: a local step, then models are averaged by the weights of the topology.

Source: Lian, Zhang, Zhang, Hsieh, Zhang and Liu, "Can Decentralized Algorithms Outperform Centralized Algorithms? A
Case Study for Decentralized Parallel Stochastic Gradient Descent", NeurIPS 2017, algorithm 1, in the order adapt, then
combine: θᵢ ← Σⱼ wᵢⱼ (θⱼ − η mⱼ), where they have θᵢ ← Σⱼ wᵢⱼ θⱼ − η mᵢ. With momentum it is what He, Karimireddy and
Jaggi (arXiv 2202.01545, 2022) call gossip.
"""

from experiments.protocols import Protocol


class DPSGD(Protocol, name="dpsgd"):
    """A local step, then models mixed by weights; nothing is done about Byzantine neighbours."""

    takes_rules = False
