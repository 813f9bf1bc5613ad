"""What a server tells all peers of how it aggregates, as text: names and numbers, never code."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peers.secure_aggregation.combining import Combination
from peers.secure_aggregation.messages import MOST_SETTINGS
from peers.secure_aggregation.profiles import AggregationProfile, AverageAdditiveSharingModelProfile, profiles
from tools.errors import UserError, one_line

LONGEST_BEAT_S = 3.0

LEAST_TIMEOUT_S, LONGEST_TIMEOUT_S = 1.0, 1e9


@dataclass(frozen=True)
class Settings:
    """How peers aggregate.

    Attributes:
        combination: of means of groups by a rule; None: a mean over all.
        timeout_s: after so long without a sign of life, or without progress, a peer counts as lost.

    Raises:
        UserError: a profile of which peers cannot be told, or with which `combination` does not go.
    """

    profile: AggregationProfile
    combination: Combination | None
    timeout_s: float

    def __post_init__(self) -> None:
        cls, arguments = type(self.profile), self.profile.arguments
        if profiles.get(getattr(cls, "name", "")) is not cls:
            raise UserError(
                f"aggregation_profile: expected a class with a name of its own, got {cls.__name__}; write class "
                f'{cls.__name__}(…, name="…")'
            )
        try:
            told = json.loads(self.to_text())["arguments"]
        except (TypeError, ValueError) as error:
            raise UserError(f"settings: expected plain numbers, texts and truth values: {one_line(error)}") from error
        if told != arguments:
            raise UserError(f"{cls.name}: expected plain numbers, texts and truth values as arguments, got {arguments}")
        if len(self.to_text()) > MOST_SETTINGS:
            raise UserError(f"settings: expected at most {MOST_SETTINGS} characters in all, got {len(self.to_text())}")
        if self.combination is not None and not isinstance(self.profile, AverageAdditiveSharingModelProfile):
            raise UserError(f"combine: expected a profile that averages models, got {cls.name}")

    @property
    def silence_s(self) -> float:
        """After how long without a word somebody is lost, so that the round goes on within `timeout_s`."""
        return 0.6 * self.timeout_s

    @property
    def beat_s(self) -> float:
        """How often peers give a sign of life, and the server an answer."""
        return min(0.1 * self.timeout_s, LONGEST_BEAT_S)

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


def check_timeout(timeout_s: Any, name: str = "timeout_s") -> None:
    """Raise UserError for a number of seconds that is none, or too small for anything to be sent again within it."""
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not is_number or not LEAST_TIMEOUT_S <= timeout_s <= LONGEST_TIMEOUT_S:
        raise UserError(
            f"{name}: expected {LEAST_TIMEOUT_S:g} to {LONGEST_TIMEOUT_S:g} seconds, as what is lost on the way is "
            f"sent again after half a second at the earliest, got {timeout_s!r}"
        )


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
        combination = None if given["combine"] is None else _combination(given["combine"])
        timeout_s = given["timeout_s"]
        check_timeout(timeout_s)
        return Settings(profile, combination, float(timeout_s))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"the server's settings: {one_line(error)}") from error


def _profile(name: Any, arguments: Any) -> AggregationProfile:
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError(f"expected the name of a profile and its arguments, got {name!r} and {arguments!r}")
    if name not in profiles:
        raise ValueError(f"no profile {name!r} here, but {', '.join(profiles)}; import the module that defines it")
    return profiles[name](**arguments)


def _combination(given: Any) -> Combination:
    match given:
        case [str(rule), int(f), dict(arguments)]:
            return Combination(rule, f, arguments)
    raise ValueError(f"combine: expected a rule, f and arguments, got {given!r}")
