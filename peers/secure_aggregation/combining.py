"""A robust rule over the means of secure groups.

A sum hides a poisoned model as well as it hides an honest one. So the means of groups, in each of which models stay
hidden, may meet a rule that tolerates f of them: a peer that poisons its group's mean spoils that group, and no more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from peers.secure_aggregation.profiles import AggregationProfile, Prepared
from tools.errors import UserError, one_line


@dataclass(frozen=True)
class Combination:
    """How means of groups are combined.

    Attributes:
        rule: name of an aggregation rule.
        f: groups that may be poisoned.
        arguments: further ones of the rule, as `--gar-args` takes them.
    """

    rule: str
    f: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def check(self, groups: int) -> None:
        """Raise UserError if the rule is unknown, or cannot take so many groups."""
        from aggregators import CONTEXT, gars
        from tools.arguments import bind

        rule = gars[self.rule]
        if rule.needs:
            raise UserError(f"combine: expected a rule that needs means of groups only, got {self.rule}: {rule.needs}")
        try:
            rule.check(
                n=groups, f=self.f, **bind(rule.formula(), dict(self.arguments), f"combine: {self.rule}", CONTEXT)
            )
        except (ValueError, TypeError) as error:
            raise UserError(
                f"combine: for {groups} groups: {one_line(error)}; use more peers, or smaller groups"
            ) from error

    def __call__(self, means: np.ndarray, seed: bytes) -> np.ndarray:
        """Return what the rule makes of means (groups, d), float64, as (d,).

        Args:
            seed: of random rules, the same for all who compute this.
        """
        import torch

        from aggregators import gars

        generator = torch.Generator().manual_seed(int.from_bytes(seed[:7], "big"))
        return (
            gars[self.rule].aggregate(torch.from_numpy(means), f=self.f, generator=generator, **self.arguments).numpy()
        )


def combine_sums(profile: AggregationProfile, sums: list[Prepared], combination: Combination, seed: bytes) -> Any:
    """Return the model that a rule makes of the means of groups.

    Integer entries are averaged over all peers, as without a rule.

    Args:
        sums: of each group.
    """
    layout = sums[0].layout
    overall = profile.unprepare(profile.aggregate(sums))
    floats = [entry for entry in layout.entries if entry.is_float]
    if not floats:
        return overall
    means = [profile.unprepare(each) for each in sums]
    rows = [np.concatenate([profile.numbers(mean[entry.name]) for entry in floats]) for mean in means]
    combined, start = combination(np.stack(rows), seed), 0
    for entry in floats:
        values = combined[start : start + entry.size].reshape(entry.shape)
        overall[entry.name] = profile.from_mean(values, entry)
        start += entry.size
    return overall
