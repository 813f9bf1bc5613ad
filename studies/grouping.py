"""Which runs are alike: the configuration fields that decide numbers, and statistics over runs equal in them."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas

from tools.errors import UserError

UNDECIDING = frozenset(
    {
        "result_directory",
        "data_directory",
        "load_checkpoint",
        "checkpoint_delta",
        "checkpoint_keep",
        "user_input_delta",
        "tensorboard",
        "nb_steps",  # those after a checkpoint only: the real number of steps counts
        "nb_honests",  # the ICLR 2021 code notes the difference of two other fields
    }
)
"""Fields of a configuration that change no number of the results, or are told by others."""
LEADING = (
    *("dataset", "dataset_args", "partition", "partition_args", "model", "model_args", "attack", "attack_args"),
    *("topology", "topology_args", "protocol", "protocol_args", "pre_gar", "pre_gar_args", "gar", "gar_args"),
    *("nb_workers", "nb_decl_byz", "nb_real_byz", "learning_rate", "momentum_at", "momentum_nesterov"),
)
"""Fields by which people tell runs apart, in the order in which they are shown."""
CONFIDENCE = 0.95


def deciding_fields(fields: Iterable[str]) -> list[str]:
    """Return the fields by which runs differ, those that people look at first in front."""
    fields = [field for field in fields if field not in UNDECIDING]
    leading = [field for field in LEADING if field in fields]
    return [*leading, *(field for field in fields if field not in leading)]


def comparable(runs: pandas.DataFrame, fields: Sequence[str]) -> pandas.DataFrame:
    """Return the values of fields as they are compared: of a device the kind, of a fresh seed what it was."""
    values = runs[list(fields)].copy()
    if "seed" in fields:
        values["seed"] = values["seed"].where(~(values["seed"] < 0), runs["environment_seed"])
    for name in {"device", "device_gar"} & set(fields):
        values[name] = values[name].map(lambda device: device.split(":")[0] if isinstance(device, str) else device)
    return values


def keys(runs: pandas.DataFrame, fields: Sequence[str]) -> pandas.Series:
    """Return one text per run, the same for runs that are equal in all these fields; what is missing is equal too."""
    values = comparable(runs, fields).astype(object)
    values = values.where(values.notna(), None)
    return pandas.Series([json.dumps(row, default=str) for row in values.values.tolist()], index=runs.index, dtype=str)


def varying(runs: pandas.DataFrame, fields: Sequence[str]) -> list[str]:
    """Return those fields in which the runs differ; arguments that follow from what they belong to are left out."""
    values = comparable(runs, fields)
    different = [name for name in fields if values[name].nunique(dropna=False) > 1]

    def follows(name: str) -> bool:
        owner = name.removesuffix("_args")
        if owner == name or owner not in different:
            return False
        return bool((values.groupby(owner, dropna=False)[name].nunique(dropna=False) == 1).all())

    return [name for name in different if not follows(name)]


def statistics(runs: pandas.DataFrame, fields: Sequence[str], values: Sequence[str]) -> pandas.DataFrame:
    """Return mean, deviation and confidence interval of values over runs that are equal in all these fields.

    Returns:
        One row per group, in the order of the fields: the fields, `runs`, and for every value `…_mean`, `…_std` (of
        count − 1 degrees of freedom), `…_count` (of what is not NaN), and `…_low` and `…_high`, the 95 % interval of
        the mean by Student's t. The last two and the deviation are NaN for a single run.
    """
    from scipy.special import stdtrit

    key = keys(runs, fields)
    shared = comparable(runs, fields).groupby(key, sort=False).head(1)
    result = shared.set_index(key[shared.index])
    grouped = runs.groupby(key, sort=False)
    result["runs"] = grouped.size()
    for name in values:
        mean, std, count = (grouped[name].agg(what) for what in ("mean", "std", "count"))
        half = stdtrit(count - 1, (1 + CONFIDENCE) / 2) * std / count**0.5
        columns = {"mean": mean, "std": std, "count": count, "low": mean - half, "high": mean + half}
        for what, numbers in columns.items():
            result[f"{name}_{what}"] = numbers
    return in_order(result.reset_index(drop=True), fields)


def matched(
    runs: pandas.DataFrame, fields: Sequence[str], on: str, of: tuple[Any, Any], value: str
) -> tuple[pandas.DataFrame, list[str]]:
    """Return the pairs of runs that differ in one field only, and the names of runs left out as second ones alike."""
    others = [field for field in fields if field != on]
    key = keys(runs, others)
    sides, twice = [], []
    for choice in of:
        side = runs[runs[on] == choice]
        again = key[side.index].duplicated()
        twice += side.loc[again, "name"].to_list()
        side = side[~again]
        sides.append(side.set_index(key[side.index]))
    left, right = sides
    both = left.index[left.index.isin(right.index)]
    left, right = left.loc[both], right.loc[both]
    pairs = comparable(left, others)
    for choice, side in zip(of, (left, right), strict=True):
        pairs[f"name_{choice}"] = side["name"]
    for choice, side in zip(of, (left, right), strict=True):
        pairs[f"{choice}"] = side[value]
    pairs["difference"] = right[value] - left[value]
    return in_order(pairs.reset_index(drop=True), others), twice


def in_order(frame: pandas.DataFrame, fields: Sequence[str]) -> pandas.DataFrame:
    """Return a frame sorted by fields of whatever kinds, what is missing first."""

    def rank(value: Any) -> tuple[int, float, str]:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return (0, 0.0, "")
        return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, str(value))

    rows = list(zip(*(frame[field].tolist() for field in fields), strict=True)) if fields else []
    order = sorted(range(len(rows)), key=lambda index: [rank(value) for value in rows[index]])
    return frame.iloc[order].reset_index(drop=True) if rows else frame


def check_names(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise a UserError for the first name that is not among the known ones."""
    known = list(known)
    for name in names:
        if name not in known:
            raise UserError(f"unknown {what} {name!r}, expected one of: {', '.join(known)}")
