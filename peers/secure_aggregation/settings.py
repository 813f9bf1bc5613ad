"""What a server tells all peers of how it aggregates, as text: names and numbers, never code."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peers.secure_aggregation.combining import Combination
from peers.secure_aggregation.profiles import AggregationProfile, profiles
from tools.errors import UserError, one_line


@dataclass(frozen=True)
class Settings:
    """How peers aggregate.

    Attributes:
        combination: of means of groups by a rule; None: a mean over all.
        timeout_s: after so long without a sign of life, or without progress, a peer counts as lost.
    """

    profile: AggregationProfile
    combination: Combination | None
    timeout_s: float

    @property
    def silence_s(self) -> float:
        """After how long without a word somebody is lost, so that the round goes on within `timeout_s`."""
        return 0.6 * self.timeout_s

    @property
    def beat_s(self) -> float:
        """How often peers give a sign of life."""
        return 0.1 * self.timeout_s

    def to_text(self) -> str:
        """Return this as JSON."""
        combine = self.combination
        return json.dumps(
            {
                "profile": self.profile.name,
                "arguments": self.profile.arguments,
                "combine": None if combine is None else [combine.rule, combine.f, dict(combine.arguments)],
                "timeout_s": self.timeout_s,
            },
            sort_keys=True,
            allow_nan=False,
        )

    @property
    def digest(self) -> bytes:
        """SHA-256 of what members of a group must agree on."""
        return hashlib.sha256(self.to_text().encode()).digest()


def read_settings(text: str) -> Settings:
    """Return what `to_text` gave.

    Raises:
        UserError: settings that this peer cannot follow.
    """
    try:
        given = json.loads(text)
        if not isinstance(given, Mapping) or given.keys() != {"profile", "arguments", "combine", "timeout_s"}:
            raise ValueError(f"expected profile, arguments, combine and timeout_s, got {text[:200]}")
        profile = _profile(given["profile"], given["arguments"])
        combination = None if given["combine"] is None else _combination(*given["combine"])
        timeout_s = given["timeout_s"]
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < 1e9:
            raise ValueError(f"timeout_s: expected a number above 0, got {timeout_s!r}")
    except UserError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"the server's settings: {one_line(error)}") from error
    return Settings(profile, combination, float(timeout_s))


def _profile(name: Any, arguments: Any) -> AggregationProfile:
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError(f"expected the name of a profile and its arguments, got {name!r} and {arguments!r}")
    return profiles[name](**arguments)


def _combination(rule: Any, f: Any, arguments: Any) -> Combination:
    if not isinstance(rule, str) or type(f) is not int or not isinstance(arguments, dict):
        raise ValueError(f"combine: expected a rule, f and arguments, got {rule!r}, {f!r} and {arguments!r}")
    return Combination(rule, f, arguments)
