"""The MNIST experiments of MoNNA: 26 nodes that hear each other, 5 of them Byzantine, data that differ.

Source: Farhadkhani, Guerraoui, Gupta, Hoang, Pinot and Stephan, "Robust Collaborative Learning with Linear Gradient
Overhead" (MoNNA), ICML 2023, section 5, and its code. As in that code little and empire look for their strongest factor
with 16 tries, and every node has its own model, those of all Byzantine nodes, and those of random honest ones. Unlike
it, all honest nodes are evaluated and not the first only, and a sample belongs to one node only.
"""

from collections.abc import Iterator

from experiments.config import RunConfig
from experiments.grids import Grid

BASE = {
    "dataset": "mnist",
    "model": "simples-conv",
    "topology": "complete",
    "protocol": "monna",
    "nb_workers": 26,
    "nb_decl_byz": 5,
    "batch_size": 25,
    "learning_rate": 0.75,
    "learning_rate_decay": 50.0,
    "learning_rate_decay_delta": 50,
    "momentum": 0.99,
    "gradient_clip": 2.0,
    "l2_regularize": 1e-4,
    "nb_steps": 600,
    "evaluation_delta": 100,
    "partition": "dirichlet",
}
ATTACKS = {
    "little": {"attack": "little", "attack_args": {"factor": -16}},
    "empire": {"attack": "empire", "attack_args": {"factor": -16}},
    "signflip": {"attack": "signflip"},
    "labelflip": {"attack": "labelflip"},
}
RULES = ("nna", "trmean", "geomed", "clippedgossip")
"""The paper's own; coordinate-wise trimming (BRIDGE); RFA; self-centred clipping."""


class Monna(Grid, name="monna"):
    """Four rules under four attacks, with data of two degrees of difference."""

    title = "Robust collaborative learning (MoNNA, ICML 2023)"
    seeds = "1-5"

    @classmethod
    def experiments(cls) -> Iterator[tuple[str, RunConfig]]:
        for alpha in (1, 5):
            cell = {**BASE, "partition_args": {"alpha": alpha}}
            yield f"mnist-alpha_{alpha}-honest-n_21", RunConfig(**{**cell, "nb_workers": 21, "nb_decl_byz": 0})
            for attack, fields in ATTACKS.items():
                for rule in RULES:
                    yield f"mnist-alpha_{alpha}-{attack}-{rule}", RunConfig(**cell, **fields, gar=rule)
