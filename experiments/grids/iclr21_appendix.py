"""The supplementary experiments of the ICLR 2021 paper: a large residual network, 22 experiments, 5 seeds each.

Source: as `iclr21`; names and numbers are those of the authors' reproduce-appendix.py.
"""

from collections.abc import Iterator

from experiments.config import RunConfig
from experiments.grids.iclr21 import AS_THEY_RAN, MomentumGrid, compare

WIDE_RESNET = {
    **AS_THEY_RAN,
    "dataset": "cifar10",
    "nb_workers": 11,
    "batch_size": 20,
    "model": "wide-resnet",
    "model_args": {"depth": 28, "widen_factor": 10, "dropout": 0.3},
    "loss": "crossentropy",
    "learning_rate_schedule": "0.02,8000,0.004,16000,0.0008",
    "momentum": 0.99,
    "momentum_nesterov": True,
    "l2_regularize": 5e-4,
    "gradient_clip": 5.0,
    "nb_steps": 20_000,
    "evaluation_delta": 100,
    "checkpoint_delta": 1000,
    "checkpoint_keep": 1,
}


class Iclr21Appendix(MomentumGrid, name="iclr21-appendix"):
    """The paper's WideResNet-28-10 on CIFAR-10."""

    title = "Distributed Momentum for Byzantine-resilient SGD (ICLR 2021), supplementary experiments"

    @classmethod
    def experiments(cls) -> Iterator[tuple[str, RunConfig]]:
        for f, rules in ((4, ["krum", "median"]), (2, ["krum", "median", "bulyan"])):
            yield from compare(WIDE_RESNET, f, rules, "lr_pow", "-nesterov")
