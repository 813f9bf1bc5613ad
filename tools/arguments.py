"""`key:value` pairs of the command line, and how they reach the parameters of a function."""

import ast
import inspect
import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from numbers import Integral, Real
from typing import Any

from tools.errors import UserError


def parse_value(text: str) -> Any:
    """Read a number, True, False, None, list or dictionary; anything else is the string itself."""
    constants = {"true": True, "false": False, "none": None}
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    if isinstance(value, tuple):  # JSON has lists only, and config.json must give back what was typed
        return list(value)
    return value if isinstance(value, (bool, int, float, str, list, dict)) else text


def parse_pairs(texts: Iterable[str]) -> dict[str, Any]:
    """Read `key:value` texts; hyphens in a key count as underscores.

    Raises:
        UserError: a text without key or colon, or a key given twice.
    """
    pairs: dict[str, Any] = {}
    for text in texts:
        key, colon, value = text.partition(":")
        key = key.strip().replace("-", "_")
        if not colon or not key.isidentifier():
            raise UserError(f"expected key:value pairs such as name:1, got {text!r}")
        if key in pairs:
            raise UserError(f"expected each key once, got {key!r} twice")
        pairs[key] = parse_value(value.strip())
    return pairs


def format_pairs(pairs: dict[str, Any]) -> list[str]:
    """Write pairs as `key:value` texts that `parse_pairs` reads back as the same values."""
    return [f"{key}:{value if _reads_back(value) else repr(value)}" for key, value in pairs.items()]


def _reads_back(value: Any) -> bool:
    parsed = parse_value(str(value))
    return type(parsed) is type(value) and parsed == value and str(value) == str(value).strip()


def spelled(name: str) -> str:
    """Return the name of a parameter as the documentation spells it for the command line."""
    return name.replace("_", "-")


def explicit_parameters(function: Callable, context: Collection[str] = ()) -> dict[str, inspect.Parameter]:
    """Return the parameters that a user may set: named ones, without those the caller fills in itself."""
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if p.kind in named and name not in context}


def bind(function: Callable, pairs: dict[str, Any], what: str, context: Collection[str] = ()) -> dict[str, Any]:
    """Return pairs as keyword arguments of a function, names checked and enumerations looked up.

    Args:
        what: whose arguments these are, for the error, e.g. "krum".
        context: parameters the caller fills in itself, which a user may not set.

    Raises:
        UserError: a key the function does not have, one it needs and did not get, or a value outside an enumeration.
    """
    parameters = explicit_parameters(function, context)
    for key in pairs:
        if key not in parameters:
            known = ", ".join(map(spelled, parameters)) or "no arguments"
            raise UserError(f"{what} has no argument {key!r}, expected: {known}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in pairs:
            raise UserError(f"{what} needs the argument {spelled(name)}:<value>")
    return {key: _convert(value, parameters[key].default, f"{what}: {key}") for key, value in pairs.items()}


def _convert(value: Any, default: Any, what: str) -> Any:
    if not isinstance(default, Enum) or isinstance(value, Enum):
        return value
    members = {member.name.lower(): member for member in type(default)}
    if str(value).lower() not in members:
        raise UserError(f"{what}: expected one of {', '.join(members)}, got {value!r}")
    return members[str(value).lower()]


def require_context(kind: Any, given: Mapping[str, Any]) -> None:
    """Raise ValueError, naming it, where a piece of context is absent that a rule or an attack needs."""
    for piece in kind.needs:
        if given.get(piece) is None:
            raise ValueError(f"{kind.name}: expected the context {piece!r}, got none")


def check_number(
    name: str,
    parameter: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Raise unless a parameter of a rule or an attack is a finite number of at least, or above, and at most these.

    Raises:
        TypeError: not a number.
        ValueError: another one.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number as {parameter}, got {value!r}")
    if not (abs(value) <= sys.float_info.max and least <= value <= most and value > above):
        finite = "a finite " if most == math.inf else ""
        raise ValueError(f"{name}: expected {finite}{parameter}{_range(least, above, most)}, got {value!r}")


def check_whole(name: str, parameter: str, value: Any, *, least: int, most: float = math.inf) -> None:
    """Raise unless a parameter of a rule or an attack is a whole number from `least` to `most`; see `check_number`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected a whole number as {parameter}, got {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name}: expected {parameter}{_range(least, -math.inf, most)}, got {value!r}")


def _range(least: float, above: float, most: float) -> str:
    if least > -math.inf and most < math.inf:
        return f" from {least:g} to {most:g}"
    lower = f" of at least {least:g}" if least > -math.inf else f" above {above:g}" if above > -math.inf else ""
    return lower + (f"{' and' if lower else ' of'} at most {most:g}" if most < math.inf else "")
