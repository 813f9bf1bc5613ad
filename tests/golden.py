"""Values computed by other implementations of the same definitions, in golden.json."""

import json
from pathlib import Path
from typing import Any

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))["cases"]


def outputs(kind: str) -> list[Any]:
    """Return (case, output) pairs as test parameters; `kind` is "rules" or "attacks"."""
    return [(case, output) for case in CASES for output in case[kind]]


def label(value: dict[str, Any]) -> str:
    """Return the name of a case or output for pytest."""
    if "gradients" in value:
        return f"n{value['n']}-f{value['f']}"
    return value["name"] + "".join(f"-{key}:{argument}" for key, argument in value["arguments"].items())
