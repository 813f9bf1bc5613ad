import hashlib
import json
import re
from typing import Any

import numpy as np
import pytest

from peers.secure_aggregation.combining import Combination
from peers.secure_aggregation.layout import Layout
from peers.secure_aggregation.messages import MOST_SETTINGS
from peers.secure_aggregation.profiles import (
    AggregationProfile,
    AverageAdditiveSharingModelProfile,
    AverageTorchAdditiveSharingModelProfile,
    Prepared,
)
from peers.secure_aggregation.settings import Settings, read_settings
from tools.errors import UserError

TIMEOUT = "timeout_s: expected 1 to 1e.09 seconds, as what is lost on the way is sent again after half a second at "
TIMEOUT += "the earliest, got "
TEXT = (
    '{"arguments": {"clip": 1000000.0, "digits_to_keep": 6, "max_weight": 1}, "combine": null, '
    '"profile": "average-torch", "timeout_s": 30.0}'
)


class Own(AverageAdditiveSharingModelProfile, name="own profile for a test"):
    def __init__(self, label: Any, digits: int = 3, flag: bool = False) -> None:
        super().__init__(digits)


class Nameless(AverageAdditiveSharingModelProfile):
    pass


class Sum(AggregationProfile, name="sum for a test"):
    """A profile that is no average."""

    def __init__(self) -> None:
        pass

    def prepare(self, data: Any, weight: int = 1) -> Prepared:
        return Prepared(Layout(()), np.zeros(1, np.uint64))

    def create_shares_on_prepared_data(self, prepared: Prepared, num_shares: int) -> list[Any]:
        return []

    def aggregate(self, shares: Any) -> Prepared:
        return shares[0]

    def unprepare(self, prepared: Prepared) -> Any:
        return {}


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(TEXT) | changes)


def test_settings_as_text() -> None:
    settings = Settings(AverageTorchAdditiveSharingModelProfile(6), None, 30.0)
    assert settings.to_text() == TEXT
    assert settings.digest == hashlib.sha256(TEXT.encode()).digest()
    combined = Settings(AverageTorchAdditiveSharingModelProfile(6), Combination("krum", 2, {"m": 3}), 30.0)
    assert combined.to_text() == TEXT.replace("null", '["krum", 2, {"m": 3}]')
    assert combined.digest != settings.digest


def test_times_within_which_things_happen() -> None:
    settings = Settings(AverageTorchAdditiveSharingModelProfile(6), None, 30.0)
    assert settings.silence_s == pytest.approx(18)
    assert settings.beat_s == pytest.approx(3)
    assert Settings(settings.profile, None, 10.0).beat_s == pytest.approx(1)
    assert Settings(settings.profile, None, 600.0).beat_s == pytest.approx(3)  # a server that is gone is noticed


@pytest.mark.parametrize(
    "settings",
    [
        Settings(AverageTorchAdditiveSharingModelProfile(6), None, 30.0),
        Settings(AverageAdditiveSharingModelProfile(0, clip=5, max_weight=2**40), None, 1.25),
        Settings(AverageAdditiveSharingModelProfile(3, clip=0.1), Combination("krum", 1, {"m": 2}), 30.0),
        Settings(AverageTorchAdditiveSharingModelProfile(3), Combination("median", 0), 1e8),
        Settings(Own('a label: é, \U0001f600, "quoted"'), None, 30.0),
        Settings(Own(None, 4, flag=True), None, 30.0),
        Settings(Sum(), None, 30.0),
    ],
    ids=lambda settings: settings.to_text()[:60],
)
def test_what_was_told_is_what_was_meant(settings: Settings) -> None:
    got = read_settings(settings.to_text())
    assert type(got.profile) is type(settings.profile)
    assert got.profile.arguments == settings.profile.arguments
    assert got.combination == settings.combination
    assert got.timeout_s == settings.timeout_s
    assert got.to_text() == settings.to_text()
    assert got.digest == settings.digest


def test_integers_and_floats_stay_what_they_are() -> None:
    for clip in (5, 5.0):
        settings = read_settings(Settings(AverageAdditiveSharingModelProfile(0, clip), None, 1.0).to_text())
        assert type(settings.profile.arguments["clip"]) is type(clip)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", r"expected profile, arguments, combine and timeout_s, got \[\]"),
        ("5", "expected profile, arguments, combine and timeout_s, got 5"),
        ("[" * 10_000, "recursion|Expecting value"),
        ('{"profile": "average-torch"}', "expected profile, arguments, combine and timeout_s, got"),
        (changed(extra=1), "expected profile, arguments, combine and timeout_s, got"),
        (changed(profile="average-toch"), "no profile 'average-toch' here, but average-numpy, average-torch.*; import"),
        (changed(profile=3), r"expected the name of a profile and its arguments, got 3 and \{"),
        (changed(profile=["average-torch"]), "expected the name of a profile and its arguments, got"),
        (changed(arguments=[6]), r"expected the name of a profile and its arguments, got 'average-torch' and \[6\]"),
        (changed(arguments={}), "missing a required argument: 'digits_to_keep'"),
        (changed(arguments={"digits_to_keep": 6, "digits": 2}), "got an unexpected keyword argument 'digits'"),
        (changed(arguments={"digits_to_keep": 6, "self": 2}), "self"),
        (changed(arguments={"digits_to_keep": 6, "cls": 2}), "cls"),
        (changed(arguments={"digits_to_keep": 19}), "digits_to_keep: expected a whole number from 0 to 18, got 19"),
        (changed(arguments={"digits_to_keep": 6, "clip": 10**300}), "clip: expected a number above 0 and below 2.63"),
        (changed(arguments={"digits_to_keep": 6, "max_weight": 10**300}), "max_weight: expected a whole number from 1"),
        (TEXT.replace("1000000.0", "NaN"), "clip: expected a number above 0"),
        (TEXT.replace("1000000.0", "1e999"), "clip: expected a number above 0"),
        (TEXT.replace("1000000.0", "9" * 5000), "integer string conversion"),
        (changed(combine="krum"), "combine: expected a rule, f and arguments, got 'krum'"),
        (changed(combine=5), "combine: expected a rule, f and arguments, got 5"),
        (changed(combine=["krum", 1]), r"combine: expected a rule, f and arguments, got \['krum', 1\]"),
        (changed(combine=["krum", 1, []]), r"combine: expected a rule, f and arguments, got \['krum', 1, \[\]\]"),
        (changed(combine=["krum", 1.0, {}]), r"combine: expected a rule, f and arguments, got \['krum', 1.0, \{\}\]"),
        (changed(combine=["krum", True, {}]), "combine: expected a whole number as f, got True"),
        (changed(combine=[["krum"], 1, {}]), r"combine: expected a rule, f and arguments, got \[\['krum'\], 1,"),
        (changed(combine=["krumm", 1, {}]), "combine: unknown aggregation rule 'krumm', expected one of"),
        (changed(combine=["krum", -1, {}]), "combine: expected f of at least 0, got -1"),
        (changed(combine=["ubar", 1, {}]), "combine: expected a rule of vectors only, got ubar, which needs loss"),
        (changed(combine=["krum", 1, {"x": 1}]), "combine: krum has no argument 'x', expected: m"),
        (
            changed(profile="sum for a test", arguments={}, combine=["median", 1, {}]),
            "combine: expected a profile that averages models, got sum for a test",
        ),
        (changed(timeout_s=0), TIMEOUT + "0"),
        (changed(timeout_s=0.99), TIMEOUT + "0.99"),
        (changed(timeout_s=10**9 + 1), TIMEOUT + "1000000001"),
        (changed(timeout_s=True), TIMEOUT + "True"),
        (changed(timeout_s="30"), TIMEOUT + "'30'"),
        (TEXT.replace("30.0", "NaN"), TIMEOUT + "nan"),
        (TEXT.replace("30.0", "1e999"), TIMEOUT + "inf"),
    ],
    ids=lambda text: text[:40],
)
def test_settings_that_cannot_be_followed_are_a_user_error(text: str, error: str) -> None:
    with pytest.raises(UserError, match=f"^the server's settings: .*(?:{error})") as caught:
        read_settings(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        (
            Nameless(3),
            "aggregation_profile: expected a class with a name of its own, got Nameless; write class "
            'Nameless(…, name="…")',
        ),
        (Own((1, 2)), "own profile for a test: expected plain numbers, texts and truth values as arguments, got"),
        (Own({1: 2}), "own profile for a test: expected plain numbers, texts and truth values as arguments, got"),
        (Own(np.ones(2)), "settings: expected plain numbers, texts and truth values: Object of type ndarray"),
        (Own(float("nan")), "settings: expected plain numbers, texts and truth values: Out of range float"),
        (Own("x" * MOST_SETTINGS), f"settings: expected at most {MOST_SETTINGS} characters in all, got 1"),
    ],
    ids=["no name", "tuple", "keys", "array", "nan", "long"],
)
def test_profiles_of_which_peers_cannot_be_told_are_refused(profile: AggregationProfile, text: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(text)}"):
        Settings(profile, None, 30.0)


def test_the_longest_settings_are_just_that() -> None:
    spare = MOST_SETTINGS - len(Settings(Own(""), None, 30.0).to_text())
    assert len(Settings(Own("x" * spare), None, 30.0).to_text()) == MOST_SETTINGS
    with pytest.raises(UserError, match=f"got {MOST_SETTINGS + 1}$"):
        Settings(Own("x" * (spare + 1)), None, 30.0)


def test_rules_go_with_averages_only() -> None:
    Settings(Own("x"), Combination("median"), 30.0)
    with pytest.raises(UserError, match=r"^combine: expected a profile that averages models, got sum for a test$"):
        Settings(Sum(), Combination("median"), 30.0)
    with pytest.raises(UserError, match=r"^settings: expected plain numbers"):
        Settings(Own("x"), Combination("krum", 1, {"m": np.int64(3)}), 30.0)
