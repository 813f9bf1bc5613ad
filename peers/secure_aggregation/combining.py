"""A robust rule over the means of secure groups.

A sum hides a poisoned model as well as it hides an honest one. So the means of groups, in each of which models stay
hidden, may meet a rule that tolerates f of them: a peer that poisons its group's mean spoils that group, and no more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from peers.secure_aggregation.profiles import AverageAdditiveSharingModelProfile, Prepared
from tools.arguments import bind, check_whole
from tools.errors import UserError, one_line


@dataclass(frozen=True)
class Combination:
    """How means of groups are combined; to the rule all groups are alike, whatever the weights of their members.

    Attributes:
        rule: name of an aggregation rule.
        f: groups that may be poisoned.
        arguments: further ones of the rule, as `--gar-args` takes them.

    Raises:
        UserError: no such rule, one that needs more than vectors, or arguments that it does not have.
    """

    rule: str
    f: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from aggregators import gars

        try:
            needs = gars[self.rule].needs
            check_whole("combine", "f", self.f, least=0)
        except (ValueError, TypeError) as error:
            raise UserError(f"combine: {one_line(error).removeprefix('combine: ')}") from error
        if needs:
            raise UserError(
                f"combine: expected a rule of vectors only, got {self.rule}, which needs {', '.join(needs)}"
            )
        _ = self._bound

    @cached_property
    def _bound(self) -> dict[str, Any]:
        from aggregators import CONTEXT, gars

        return bind(gars[self.rule].formula(), dict(self.arguments), f"combine: {self.rule}", CONTEXT)

    def check(self, groups: int) -> None:
        """Raise UserError if the rule cannot take so many groups, or the values of its arguments."""
        from aggregators import gars

        try:
            gars[self.rule].check(n=groups, f=self.f, **self._bound)
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
        rule = gars[self.rule]
        return rule.aggregate(torch.from_numpy(means), f=self.f, generator=generator, **self._bound).numpy()


def combine_sums(
    profile: AverageAdditiveSharingModelProfile, sums: list[Prepared], combination: Combination, seed: bytes
) -> dict[str, Any]:
    """Return the model that a rule makes of the means of groups.

    Integer entries are averaged over all peers, as without a rule.

    Args:
        sums: of each group.

    Raises:
        ValueError: the sum of weights of a group is not positive, or the rule cannot take so many groups.
    """
    overall = profile.unprepare(profile.aggregate(sums))
    rows = [[mean for entry, mean in profile.means(each) if entry.is_float] for each in sums]
    if not any(mean.size for mean in rows[0]):
        return overall
    combined, start = combination(np.stack([np.concatenate(row) for row in rows]), seed), 0
    for entry in sums[0].layout.entries:
        if entry.is_float:
            overall[entry.name] = profile.from_mean(combined[start : start + entry.size], entry)
            start += entry.size
    return overall
