"""The experiments of the ICLR 2021 paper on worker momentum: 736 of them, 5 seeds each.

Source: El Mhamdi, Guerraoui and Rouault, "Distributed Momentum for Byzantine-resilient Stochastic Gradient Descent",
ICLR 2021; names and numbers are those of its authors' reproduce.py. Rules whose published definition differs from what
their code ran are taken as it ran them (`krum-iclr21`, `bulyan-iclr21`), as are two of its habits: models train in eval
mode, and test images are mirrored at random like training images.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config import RunConfig
from experiments.grids import Grid

if TYPE_CHECKING:
    from studies.report import Circumstances

RULES = {
    "krum": "krum-iclr21",
    "median": "median",
    "trmean": "trmean",
    "phocas": "phocas",
    "meamed": "meamed",
    "bulyan": "bulyan-iclr21",
}
"""Their names of the rules, which are in the names of the runs, and ours."""
ATTACKS = {"little": {"factor": 1.5, "negative": True}, "empire": {"factor": 1.1}}
AS_THEY_RAN = {"train_mode": "eval", "test_augment": True, "nb_for_study": 1}
MNIST = {
    **AS_THEY_RAN,
    "nb_workers": 51,
    "batch_size": 83,
    "model": "simples-full",
    "loss": "nll",
    "momentum": 0.9,
    "l2_regularize": 1e-4,
    "gradient_clip": 2.0,
    "nb_steps": 300,
    "evaluation_delta": 5,
    "nb_for_study_past": 150,
    "learning_rate_decay_delta": 300,
}
CIFAR = {
    **AS_THEY_RAN,
    "nb_workers": 25,
    "batch_size": 50,
    "model": "empire-cnn",
    "loss": "nll",
    "momentum": 0.99,
    "l2_regularize": 1e-2,
    "gradient_clip": 5.0,
    "nb_steps": 3000,
    "evaluation_delta": 100,
    "nb_for_study_past": 25,
    "learning_rate_decay": 167.0,
}
FAMILIES = {
    ("mnist", "fashionmnist"): (MNIST, (24, 12), ({"learning_rate": 0.5}, {"learning_rate": 0.02})),
    ("cifar10", "cifar100"): (
        CIFAR,
        (11, 5),
        (
            {"learning_rate": 0.01, "learning_rate_decay_delta": 1500},
            {"learning_rate": 0.001, "learning_rate_decay_delta": 3000},
        ),
    ),
}


class MomentumGrid(Grid):
    """A grid that compares momentum at the server's update with momentum at the workers."""

    @classmethod
    def report(cls, results: Path, plots: Path, circumstances: "Circumstances") -> None:
        from studies.momentum import report_momentum  # here, because drawing takes a second to import

        report_momentum(results, plots, title=cls.title, circumstances=circumstances)


class Iclr21(MomentumGrid, name="iclr21"):
    """The paper's main experiments."""

    title = "Distributed Momentum for Byzantine-resilient SGD (ICLR 2021)"

    @classmethod
    def experiments(cls) -> Iterator[tuple[str, RunConfig]]:
        for datasets, (base, numbers, rates) in FAMILIES.items():
            for dataset in datasets:
                for f in numbers:
                    for rate in rates:
                        for nesterov in (False, True):
                            cell = {**base, **rate, "dataset": dataset, "momentum_nesterov": nesterov}
                            tail = "-nesterov" if nesterov else ""
                            rules = list(RULES)[: 6 if f == numbers[1] else 5]  # bulyan needs n ≥ 4f + 3
                            yield from compare(cell, f, rules, f"lr_{rate['learning_rate']}", tail)


def compare(cell: dict[str, Any], f: int, rules: list[str], rate: str, tail: str) -> Iterator[tuple[str, RunConfig]]:
    """Yield the unattacked mean of n − f workers, then each rule under each attack with momentum in both places.

    Args:
        cell: the fields that all of them share.
        rules: by their names of the rules.
        rate, tail: parts of the names, for the learning rate and what comes after the place of the momentum.
    """
    dataset, honest = cell["dataset"], cell["nb_workers"] - f
    yield f"{dataset}-average-n_{honest}-{rate}{tail}", RunConfig(**{**cell, "nb_workers": honest, "nb_decl_byz": 0})
    for rule in rules:
        for attack, arguments in ATTACKS.items():
            for place in ("update", "worker"):
                config = RunConfig(
                    **cell, nb_decl_byz=f, gar=RULES[rule], attack=attack, attack_args=arguments, momentum_at=place
                )
                yield f"{dataset}-{attack}-{rule}-f_{f}-{rate}-at_{place}{tail}", config
