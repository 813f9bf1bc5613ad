"""How fields, values and groups of runs are called in tables, figures and file names."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

TITLES = {
    "accuracy_final": "final accuracy",
    "accuracy_max": "maximum accuracy",
    "accuracy_max_step": "step of the maximum accuracy",
    "accuracy_last": "accuracy of the last evaluations",
    "loss_final": "final loss",
    "ratio_bound": "bound on deviation / norm",
    "ratio_sampled": "share of steps with sampled ratio below the bound",
    "ratio_honest": "share of steps with honest ratio below the bound",
    "node_minimum_final": "final accuracy of the worst node",
    "node_maximum_final": "final accuracy of the best node",
    "node_deviation_final": "deviation of nodes' final accuracies",
    "averaged_model_final": "final accuracy of the averaged model",
    "Cross-accuracy": "top-1 cross-accuracy",
    "Average loss": "average loss",
    "Sampled ratio": "variance-norm ratio,\nsampled gradients",
    "Honest ratio": "variance-norm ratio,\nhonest vectors",
    "seconds": "time (s)",
}
OWN_NAMES = frozenset({"dataset", "model", "gar", "attack"})
"""Fields whose values say by themselves what they are."""


def title_of(name: str) -> str:
    """Return what a column is called where people read it."""
    return TITLES.get(name, name.replace("_", " "))


def is_missing(value: Any) -> bool:
    """Return whether there is no value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(value: Any) -> str:
    """Return a value of a configuration as people write it, "" if there is none."""
    if is_missing(value) or value in ("{}", "[]"):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def words_for(values: Mapping[str, Any]) -> list[str]:
    """Return what tells a group of runs from others, such as ["krum", "nb decl byz 4"]."""
    words = []
    for field, value in values.items():
        text = text_of(value)
        if field in OWN_NAMES:
            words.append(text or f"no {field}")
        elif isinstance(value, bool):
            words.append(title_of(field) if value else f"no {title_of(field)}")
        else:
            words.append(f"{title_of(field)} {text or 'none'}")
    return words


def file_name(words: Iterable[str]) -> str:
    """Return words as part of a file's name."""
    return "-".join(re.sub(r"[^A-Za-z0-9._+-]+", "_", word).strip("_") for word in words)[:180]


def number(value: float, name: str) -> str:
    """Return a measured number as text: shares with three decimals, others with four digits; "" for NaN."""
    if is_missing(value):
        return ""
    return f"{value:.3f}" if name.startswith(("accuracy", "ratio")) and name != "accuracy_max_step" else f"{value:.4g}"
