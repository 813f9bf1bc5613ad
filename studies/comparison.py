"""Momentum at the server's update beside momentum at the workers: two attacked runs that differ in nothing else.

Source: El Mhamdi, Guerraoui and Rouault, "Distributed Momentum for Byzantine-resilient Stochastic Gradient Descent",
ICLR 2021, and their reproduce.py, which matches runs by name; here they are matched by configuration. A pair and its
reference have the same seed. The reference is the unattacked mean of as many honest workers: n − f of them, f declared.
All that is compared is the maximum accuracy of a run:

    cost = reference − at update        gain = at worker − at update
"""

import math
from collections.abc import Sequence

import pandas

from studies import grouping

PLACES = ("update", "worker")
WHERE_COMPUTED = ("device", "device_gar", "threads")
"""Fields in which two runs may differ and still be compared."""
DEFENCE = ("gar", "gar_args", "gars", "pre_gar", "pre_gar_args")
ATTACK = ("attack", "attack_args", "nb_decl_byz", "nb_real_byz")
NUMBERS = ("update", "worker", "reference")
NEEDED = (
    "dataset",
    "model",
    "gar",
    "attack",
    "nb_workers",
    "nb_decl_byz",
    "nb_real_byz",
    "learning_rate",
    "momentum_at",
)
"""Without these nothing is known of a run that could be compared: its configuration cannot be read."""
SHOWN = ("dataset", "model", "attack", "rule", "f", "n", "rate", "nesterov")
"""What tells one cell from another, for people."""


def pairs(runs: pandas.DataFrame, deciding: Sequence[str]) -> pandas.DataFrame:
    """Return one row per attacked setting and seed, whichever of its three runs exist.

    Args:
        runs: one row per run, as `Study.runs`.
        deciding: the columns in which runs must agree to be alike, as `Study.deciding`.

    Returns:
        The columns `SHOWN`, `seed` and `cell` (a number, the same for all seeds); the maximum accuracies `update`,
        `worker` and `reference`, NaN where there is none; `cost` and `gain`; the names of the runs, `update_name` and
        so on, empty where there is none; `ratio_update` and `ratio_worker`, shares of steps in which the ratio
        condition held; `bound`, that of the rule. Where runs are equal, the first by name counts.
    """
    runs = _readable(runs).sort_values("name", ignore_index=True)
    deciding = [name for name in deciding if name in runs]
    fields = [name for name in deciding if name not in ("momentum_at", *WHERE_COMPUTED)]
    alike = grouping.keys(runs, fields)
    cells = grouping.keys(runs, [name for name in fields if name != "seed"])
    reference_keys = _reference_keys(runs, fields)
    references = _references(runs, reference_keys)
    found: dict[str, dict[str, int]] = {}
    for index in runs.index[_attacked(runs) & runs["momentum_at"].isin(PLACES)]:
        found.setdefault(alike[index], {}).setdefault(runs.at[index, "momentum_at"], index)
    rows = []
    for indices in found.values():
        one = next(iter(indices.values()))
        if (reference := references.get(reference_keys[one])) is not None:
            indices["reference"] = reference
        rows.append({"setting": cells[one], **_row(runs, one, indices)})
    names, ratios = [f"{name}_name" for name in NUMBERS], [f"ratio_{place}" for place in PLACES]
    columns = ["setting", *SHOWN, "seed", *NUMBERS, *names, *ratios, "bound"]
    frame = pandas.DataFrame(rows, columns=columns)
    frame["cost"] = frame["reference"] - frame["update"]
    frame["gain"] = frame["worker"] - frame["update"]
    frame = frame.sort_values([*SHOWN, "setting", "seed"], ignore_index=True)
    frame.insert(0, "cell", pandas.factorize(frame.pop("setting"))[0])
    return frame


def _row(runs: pandas.DataFrame, one: int, indices: dict[str, int]) -> dict[str, object]:
    """Return a row of `pairs`: what the runs share, and what is of each of them."""
    run = runs.loc[one]
    schedule = run.get("learning_rate_schedule")
    row: dict[str, object] = {
        "dataset": run["dataset"],
        "model": run["model"],
        "attack": run["attack"],
        "rule": run["gar"],
        "f": int(run["nb_decl_byz"]),
        "n": int(run["nb_workers"]),
        "rate": schedule if isinstance(schedule, str) else f"{run['learning_rate']:g}",
        "nesterov": bool(run["momentum_nesterov"]),
        "seed": run["seed"],
        "bound": run["ratio_bound"],
    }
    for name in NUMBERS:
        index = indices.get(name)
        row[name] = math.nan if index is None else runs.at[index, "accuracy_max"]
        row[f"{name}_name"] = "" if index is None else runs.at[index, "name"]
        if name in PLACES:
            row[f"ratio_{name}"] = math.nan if index is None else runs.at[index, "ratio_honest"]
    return row


def complete(pairs: pandas.DataFrame) -> pandas.DataFrame:
    """Return the pairs of which both runs and the reference have an accuracy."""
    return pairs.dropna(subset=list(NUMBERS))


def cells(pairs: pandas.DataFrame) -> pandas.DataFrame:
    """Return one row per cell: its pairs over all seeds.

    Returns:
        The columns `SHOWN`; for each of `update`, `worker`, `reference` and `gain` the `_mean` and sample `_std` over
        the seeds that have it; `seeds`, the number of complete pairs; `ratio_update` and `ratio_worker`, mean shares.
        A gain is that of a seed, so its mean differs from that of the columns where a seed lacks a run.
    """
    rows = []
    for cell, group in pairs.groupby("cell"):
        row = {"cell": cell, **group.iloc[0][list(SHOWN)], "seeds": len(complete(group))}
        for name in (*NUMBERS, "gain"):
            row |= {f"{name}_mean": group[name].mean(), f"{name}_std": group[name].std()}
        rows.append(row | {f"ratio_{place}": group[f"ratio_{place}"].mean() for place in PLACES})
    numbers = [f"{name}_{what}" for name in (*NUMBERS, "gain") for what in ("mean", "std")]
    columns = ["cell", *SHOWN, "seeds", *numbers, *(f"ratio_{place}" for place in PLACES)]
    return pandas.DataFrame(rows, columns=columns)


def left_out(runs: pandas.DataFrame, pairs: pandas.DataFrame) -> dict[str, str]:
    """Return the names of the runs that no comparison uses, or only in part, each with the reason."""
    reasons = {}
    names = {"update": "with momentum at update", "worker": "with momentum at the workers", "reference": "unattacked"}
    for pair in pairs.itertuples():
        lacking = [text for name, text in names.items() if math.isnan(getattr(pair, name))]
        if lacking:
            for name in filter(None, (pair.update_name, pair.worker_name)):
                reasons[name] = f"its partner {' and its partner '.join(lacking)} is missing or has no accuracy"
    used = {name for column in NUMBERS for name in pairs[f"{column}_name"]}
    readable = _readable(runs)
    attacked = _attacked(readable)
    for index, name in runs["name"].items():
        if name not in used:
            if index not in readable.index:
                reasons[name] = "its configuration cannot be read"
            elif not attacked[index]:
                reasons[name] = "it is the reference of no attacked run"
            elif runs.at[index, "momentum_at"] not in PLACES:
                reasons[name] = f"momentum at {runs.at[index, 'momentum_at']} is not compared"
            else:
                reasons[name] = "another run has the same configuration"
    return dict(sorted(reasons.items()))


def _readable(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Return the runs whose configuration is known."""
    if not set(NEEDED) <= set(runs):
        return runs.reindex(columns=[*dict.fromkeys([*runs, *NEEDED])]).iloc[:0]
    return runs.dropna(subset=[name for name in NEEDED if name != "attack"])


def _attacked(runs: pandas.DataFrame) -> pandas.Series:
    return runs["nb_real_byz"].fillna(0) > 0


def _reference_keys(runs: pandas.DataFrame, fields: Sequence[str]) -> pandas.Series:
    """Return for each run a text that an attacked run shares with its reference."""
    honest = runs["nb_workers"] - runs["nb_decl_byz"].where(_attacked(runs), 0)
    shared = [name for name in fields if name not in (*DEFENCE, *ATTACK)]
    return grouping.keys(runs.assign(nb_workers=honest.astype(int)), shared)


def _references(runs: pandas.DataFrame, keys: pandas.Series) -> dict[str, int]:
    """Return the rows of the unattacked means by key; of several alike that with momentum at update, as originally."""
    plain = ~_attacked(runs) & (runs["gar"] == "average")
    for name in {"gars", "pre_gar"} & set(runs):
        plain &= runs[name].isna() | (runs[name] == "[]")
    at_update = runs["momentum_at"] == "update"
    found: dict[str, int] = {}
    for index in [*runs.index[plain & at_update], *runs.index[plain & ~at_update]]:
        found.setdefault(keys[index], index)
    return found
