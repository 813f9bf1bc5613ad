"""What the ICLR 2021 paper says of worker momentum, beside the same counts over other runs.

Source: El Mhamdi, Guerraoui and Rouault, "Distributed Momentum for Byzantine-resilient Stochastic Gradient Descent",
ICLR 2021. Its shares are over pairs of runs, `comparison.complete`, in these words:

    effective:  cost > threshold                            (of the attack)
    recovered:  cost > threshold and gain > threshold
    lowered:    gain < threshold, at or below zero

Of its grid, 880 pairs are fully connected and 880 convolutional, 400 of these with f ≈ n/2: so 25.80 % are 227 pairs,
70.80 % are 623, 49.25 % are 197, 79.75 % are 319, 46.46 % are 223, 95.07 % of these 212, and 0.23 % of all are 4.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import pandas

from studies.comparison import complete

FULLY_CONNECTED = {"simples-full": ("mnist", "fashionmnist")}
CONVOLUTIONAL = {"empire-cnn": ("cifar10", "cifar100")}
"""The paper's models, and the data it trained each of them on."""
KINDS = {
    "fully connected": (*FULLY_CONNECTED, "digits-mlp"),
    "convolutional": (*CONVOLUTIONAL, "simples-conv", "wide-resnet"),
}
THRESHOLDS = (0.10, 0.20, 0.40)
LOWERED = (0.0, -0.02, -0.05)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of the paper and what was counted here.

    Attributes:
        paper: what the paper says, as text; empty where it says nothing.
        paper_share: the same as a number, where it is one.
        count: pairs for which the statement holds, of `total`.
        definition: what is counted among what.
        note: what a reader has to know to compare the two.
    """

    statement: str
    paper: str
    paper_share: float | None
    count: int
    total: int
    definition: str
    note: str = ""

    @property
    def share(self) -> float:
        """`count / total`, NaN if nothing was measured."""
        return self.count / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share, which takes pairs as independent."""
        return wilson(self.count, self.total)

    @property
    def measured(self) -> str:
        """Share, counts and interval, in words."""
        if not self.total:
            return "not measured here"
        low, high = self.interval
        interval = f"95 % interval {percent(low, 1)} to {percent(high, 1)}"
        return f"{percent(self.share)}: {self.count} of {self.total}, {interval}"


def percent(share: float, digits: int = 2) -> str:
    """Return a share as text, a dash for NaN."""
    return "–" if math.isnan(share) else f"{share * 100:.{digits}f} %"


def wilson(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a share.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """
    if not total:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = count / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    # at the ends the bound is the end itself, which rounding would miss by a hair
    return (0.0 if count == 0 else centre - half), (1.0 if count == total else centre + half)


def effective(pairs: pandas.DataFrame, threshold: float) -> pandas.Series:
    """Return for each pair whether the attack cost more than the threshold."""
    return pairs["cost"] > threshold


def recovered(pairs: pandas.DataFrame, threshold: float) -> pandas.Series:
    """Return for each pair whether the attack cost more than the threshold and worker momentum gained more."""
    return effective(pairs, threshold) & (pairs["gain"] > threshold)


def lowered(pairs: pandas.DataFrame, threshold: float) -> pandas.Series:
    """Return for each pair whether worker momentum changed the accuracy by less than a threshold, at or below zero."""
    return pairs["gain"] < threshold


def of_kind(pairs: pandas.DataFrame, kind: str) -> pandas.DataFrame:
    """Return the pairs whose model is of a kind: `fully connected` or `convolutional`."""
    return pairs[pairs["model"].isin(KINDS[kind])]


def of_size(pairs: pandas.DataFrame, part: int) -> pandas.DataFrame:
    """Return the pairs with the largest f that n ≥ part·f + 3 allows: part 2 for f ≈ n/2, part 4 for f ≈ n/4."""
    return pairs[pairs["f"] == (pairs["n"] - 3) // part]


def claims(pairs: pandas.DataFrame) -> list[Claim]:
    """Return the paper's claims with what `comparison.pairs` says of each; pairs that lack a run count nowhere."""
    pairs = complete(pairs)
    full, convolutional = of_kind(pairs, "fully connected"), of_kind(pairs, "convolutional")
    half, quarter = of_size(convolutional, 2), of_size(convolutional, 4)
    every = {**FULLY_CONNECTED, **CONVOLUTIONAL}
    return [
        _effective("Attacks cost at least 20 % accuracy: fully connected models", 0.2580, full, FULLY_CONNECTED),
        _effective("Attacks cost at least 20 % accuracy: convolutional models", 0.7080, convolutional, CONVOLUTIONAL),
        _recovered("Where an attack cost at least 20 %, worker momentum recovers as much", None, pairs, every),
        _effective("Convolutional, f ≈ n/2: the attack costs at least 20 %", 1.0, half, CONVOLUTIONAL),
        _recovered("Convolutional, f ≈ n/2: worker momentum recovers at least 10 %", 0.7975, half, CONVOLUTIONAL, 0.10),
        _recovered("Convolutional, f ≈ n/2: worker momentum recovers at least 20 %", 0.4925, half, CONVOLUTIONAL),
        _effective("Convolutional, f ≈ n/4: the attack costs at least 20 %", 0.4646, quarter, CONVOLUTIONAL),
        _recovered("Convolutional, f ≈ n/4: worker momentum recovers at least 20 %", 0.9507, quarter, CONVOLUTIONAL),
        *(_lowered(threshold, pairs, every) for threshold in LOWERED),
    ]


def subsets(pairs: pandas.DataFrame) -> pandas.DataFrame:
    """Return the counts behind the claims for all pairs, each dataset and each number of Byzantine workers.

    Returns:
        One row per subset: `subset`, `pairs`, and for each threshold `effective_10`, `recovered_10`, … `lowered_0`, ….
    """
    pairs = complete(pairs)
    groups = {"all": pairs}
    groups |= dict(iter(pairs.groupby("dataset", sort=False)))
    groups |= {f"f = {f} of {n}": group for (n, f), group in pairs.groupby(["n", "f"], sort=False)}
    rows = []
    for name, group in groups.items():
        row = {"subset": name, "pairs": len(group)}
        for threshold in THRESHOLDS:
            row[f"effective_{threshold * 100:.0f}"] = int(effective(group, threshold).sum())
            row[f"recovered_{threshold * 100:.0f}"] = int(recovered(group, threshold).sum())
        for threshold in LOWERED:
            row[f"lowered_{abs(threshold) * 100:.0f}"] = int(lowered(group, threshold).sum())
        rows.append(row)
    return pandas.DataFrame(rows)


def _effective(statement: str, share: float, pairs: pandas.DataFrame, paper: dict[str, Sequence[str]]) -> Claim:
    return Claim(
        statement=statement,
        paper=percent(share),
        paper_share=share,
        count=int(effective(pairs, 0.20).sum()),
        total=len(pairs),
        definition="pairs with cost > 0.20, of all of these",
        note=_other_runs(pairs, paper),
    )


def _recovered(
    statement: str,
    share: float | None,
    pairs: pandas.DataFrame,
    paper: dict[str, Sequence[str]],
    threshold: float = 0.20,
) -> Claim:
    return Claim(
        statement=statement,
        paper="more than 60 %" if share is None else percent(share),
        paper_share=0.60 if share is None else share,
        count=int(recovered(pairs, threshold).sum()),
        total=int(effective(pairs, threshold).sum()),
        definition=f"pairs with gain > {threshold:.2f}, of those with cost > {threshold:.2f}",
        note=_other_runs(pairs, paper),
    )


def _lowered(threshold: float, pairs: pandas.DataFrame, paper: dict[str, Sequence[str]]) -> Claim:
    below = "" if threshold == 0 else f" by more than {percent(-threshold, 0)}"
    those = pairs[lowered(pairs, threshold)]
    where = those.groupby(["rule", "attack"]).size().sort_values(ascending=False, kind="stable")
    found = ", ".join(f"{count} {rule} under {attack}" for (rule, attack), count in where.head(3).items())
    more = f" and {len(where) - 3} other combinations" if len(where) > 3 else ""
    notes = (f"here: {found}{more}" if found else "", _other_runs(pairs, paper))
    return Claim(
        statement=f"Worker momentum lowers the maximum accuracy{below}",
        paper="0.23 %",
        paper_share=0.0023,
        count=len(those),
        total=len(pairs),
        definition=f"pairs with gain < {threshold:g}, of all pairs; the paper does not say which threshold it took",
        note="; ".join(filter(None, notes)),
    )


def _other_runs(pairs: pandas.DataFrame, paper: dict[str, Sequence[str]]) -> str:
    """Return which data and models were measured, if these are not the paper's."""
    theirs = {(dataset, model) for model, datasets in paper.items() for dataset in datasets}
    ours = set(zip(pairs["dataset"], pairs["model"], strict=True))
    if not ours or ours == theirs:
        return ""
    measured = ", ".join(f"{dataset} ({model})" for dataset, model in sorted(ours))
    return f"measured on {measured}; the paper’s share is over {', '.join(sorted({dataset for dataset, _ in theirs}))}"
