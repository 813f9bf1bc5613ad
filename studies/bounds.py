"""How much honest vectors may differ for a rule's theory to hold: the variance-norm ratio condition.

Source: El Mhamdi, Guerraoui and Rouault, "Distributed Momentum for Byzantine-resilient Stochastic Gradient Descent",
ICLR 2021, section 2: a rule is proven to work only where deviation / norm of the honest vectors is below a bound that
depends on the rule, n and f. Where no bound is known for a rule, nothing is said about it.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import pandas

KINDS = ("Sampled", "Honest")
"""Of which vectors the condition is asked: of the gradients, and of what honest workers send."""
LOSS = "Average loss"


def ratio_columns() -> list[str]:
    """Return the columns of `study` that the condition is about, the loss first."""
    return [LOSS, *(f"{kind} gradient {what}" for kind in KINDS for what in ("deviation", "norm"))]


def bound_of(config: Mapping[str, Any]) -> float | None:
    """Return the bound on deviation / norm for a run's rule, n and f; None if none is known.

    None is known for a mixture of rules, nor for what a pre-aggregator leaves of the honest vectors, nor where the rule
    does not see the vectors of all n workers: without a server, or if only some take part in a step.
    """
    if config.get("gars") or config.get("pre_gar"):
        return None
    if config.get("topology", "server") != "server" or config.get("participation", 1) != 1:
        return None
    rule, n, f = (config.get(name) for name in ("gar", "nb_workers", "nb_decl_byz"))
    if not isinstance(rule, str) or not isinstance(n, int) or not isinstance(f, int):
        return None
    return _bound(rule.removeprefix("native-"), n, f)  # the ICLR 2021 code names its C++ rules so


@functools.cache
def _bound(name: str, n: int, f: int) -> float | None:
    import aggregators  # takes the second that torch takes

    rule = aggregators.gars.get(name)
    if rule is None:
        return None
    try:
        # The number of parameters is not part of a result directory: a bound that needs it is not known
        bound = rule.upper_bound(n=n, f=f, d=math.nan)
    except (ValueError, ArithmeticError):  # an n and f that the rule cannot take
        return None
    return None if bound is None or math.isnan(bound) else bound


def squared_ratio(study: pandas.DataFrame, kind: str) -> pandas.Series:
    """Return (deviation / norm)² by step, of the sampled or honest vectors."""
    return (study[f"{kind} gradient deviation"] / study[f"{kind} gradient norm"]) ** 2


def share_held(study: pandas.DataFrame, kind: str, bound: float) -> float:
    """Return the share of all steps in which deviation / norm was below the bound while training was alive.

    Alive: the average loss was at most that of the first step. A model that an attack has ruined can have long, equal
    gradients: those steps count as steps in which the condition did not hold, as in the paper. NaN without steps.
    """
    if len(study) == 0:
        return math.nan
    alive = study[LOSS] <= study[LOSS].iloc[0]
    return float((alive & (squared_ratio(study, kind) < bound**2)).mean())
