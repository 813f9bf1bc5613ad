"""Learning over a bottleneck: two cliques of ten honest nodes, joined by one edge.

Source: He, Karimireddy and Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip", arXiv 2202.01545, 2022,
section on the dumbbell, and its code: MNIST, batches of 32, learning rate 0.01, momentum 0.9, 900 iterations, nobody
attacks. What they show is that rules like the median cannot cross such an edge even without attackers. In the one half
of the experiments one clique has the digits 0 to 4, the other 5 to 9.

Two things are as in their code (epfml/byzantine-robust-decentralized-optimizer) and not as in their paper. Momentum is
m ← 0.9 m + g, not dampened. And a node has 960 samples, 30 batches: an epoch was stopped after those, and all began
alike, as the sampler's epoch was never set. One thing is not as there: they restored the state of the random generator
after each worker, so that all steps had the same dropout masks; here every step has its own.
"""

from collections.abc import Iterator

from experiments.config import RunConfig
from experiments.grids import Grid

BASE = {
    "dataset": "mnist",
    "model": "mnist-cnn",
    "topology": "dumbbell",
    "nb_workers": 20,
    "nb_decl_byz": 0,
    "batch_size": 32,
    "learning_rate": 0.01,
    "learning_rate_decay": 0.0,
    "momentum": 0.9,
    "nb_steps": 900,
    "evaluation_delta": 450,
}
PARTITIONS = {
    "noniid": {"partition": "extreme", "partition_args": {"groups": 2, "by": "labels", "samples": 960}},
    "iid": {"partition": "iid", "partition_args": {"samples": 960}},
}
RULES = {
    "dpsgd": {"protocol": "dpsgd"},
    "trmean": {"protocol": "robust", "gar": "trmean", "nb_local_byz": 1},
    "geomed": {"protocol": "robust", "gar": "geomed", "nb_local_byz": 1},
    "clipped": {"protocol": "clipped-gossip", "protocol_args": {"tau": 1.0}},
    "clipped-adaptive": {"protocol": "clipped-gossip", "nb_local_byz": 1},
}


class Dumbbell(Grid, name="dumbbell"):
    """Averaging, clipping and median-like rules, with equal data in both cliques and without."""

    title = "Two cliques and one edge, nobody attacks (He, Karimireddy and Jaggi, 2022)"
    seeds = "1"

    @classmethod
    def experiments(cls) -> Iterator[tuple[str, RunConfig]]:
        for data, partition in PARTITIONS.items():
            for name, rule in RULES.items():
                yield f"dumbbell-{data}-{name}", RunConfig(**BASE, **partition, **rule)
