"""The generated pages are up to date, and what they tell people to write works."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest

from aggregators import gars
from aggregators.pre import pre_gars
from attacks import attacks
from experiments.partitions import partitions
from experiments.protocols import protocols
from experiments.topologies import topologies
from tools.arguments import explicit_parameters
from tools.registry import Registry

NO_PAPER = ("average", "nan", "zero")
OF_NOBODY = ("barbell", "complete", "file", "hypercube", "ring", "server", "star", "torus", "tree", "iid", "shared")
"""Graphs and partitions that are nobody's."""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["rules.md", "attacks.md", "topologies.md", "partitions.md"])
def test_page_is_not_stale(page: str, generate: ModuleType) -> None:
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert written == generate.PAGES[page](), f"docs/{page} is stale: run python3 docs/generate.py"


def test_conditions_are_found_by_asking(generate: ModuleType) -> None:
    for a, b, text in (
        (2, 1, "n ≥ 2f + 1"),
        (4, 3, "n ≥ 4f + 3"),
        (1, 1, "n ≥ f + 1"),
        (0, 1, "n ≥ 1"),
        (2, 0, "n ≥ 2f"),
    ):

        def check(n: int, f: int, a: int = a, b: int = b) -> None:
            if n < a * f + b:
                raise ValueError("too few")

        assert generate.condition(check) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Gupta, "A Rule", DSN-W 2021. Here the mean.', 'Gupta, "A Rule", DSN-W 2021'),
        ('a library (Gonzalez, "A Library", 2025), attack Inf.', 'a library (Gonzalez, "A Library", 2025)'),
        ('He, "Gossip", arXiv 2012.10333, 2020, section 2.', 'He, "Gossip", arXiv 2012.10333, 2020'),
        ('Wu, "Rules for\nAll", IEEE 2023. A\nrow of 2024.\n\nNot this.', 'Wu, "Rules for All", IEEE 2023'),
        ("no paper's.\n\nIn 2020.", "no paper's."),
    ],
)
def test_source_ends_after_the_year(text: str, expected: str, generate: ModuleType) -> None:
    module = ModuleType("of_a_rule", f"A rule.\n\nSource: {text}\n")
    with patch.dict(sys.modules, of_a_rule=module):
        assert generate.source(type("Rule", (), {"__module__": "of_a_rule"})) == expected


@pytest.mark.parametrize(
    "registry",
    [gars, pre_gars, attacks, topologies, partitions],
    ids=["rules", "pre-aggregators", "attacks", "topologies", "partitions"],
)
def test_no_source_is_cut_inside_brackets_or_quotes(registry: Registry, generate: ModuleType) -> None:
    for name, cls in registry.items():
        source = generate.source(cls)
        assert source.count("(") == source.count(")"), name
        assert source.count('"') % 2 == 0, name
        assert re.search(r"(19|20)\d\d\)?$", source) or name in (*NO_PAPER, *OF_NOBODY), name


def examples(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("page", ["rules.md", "attacks.md"])
def test_library_examples_run(page: str) -> None:
    code = examples(page)[0].replace("1_000_000", "1_000")
    names: dict = {}
    exec(code, names)
    assert names.get("result", names.get("byzantine")).isfinite().all()


def test_library_example_of_topologies_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(examples("topologies.md")[0])
    assert capsys.readouterr().out.endswith("[ 3  0  1  2  4  5  6  7  8  9 10]\n")


def test_page_about_protocols_has_them_all_and_its_example_runs() -> None:
    text = (ROOT / "docs" / "decentralised.md").read_text(encoding="utf-8")
    for name, protocol in protocols.items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        assert all(f"`{argument}" in line for argument in explicit_parameters(protocol.check, protocol.CONTEXT))
    names: dict = {}
    exec(examples("decentralised.md")[0], names)
    assert len(names["results"]) == 10
    assert names["results"][-1]["losses"].mean() < names["results"][0]["losses"].mean()


def test_examples_of_new_files_work_and_pass_the_generic_tests(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns(".*", "__pycache__", "cache", "results-*", "benchmarks")
    shutil.copytree(ROOT, tmp_path / "code", ignore=ignored)
    for page, path in (
        ("rules.md", "aggregators/middle.py"),
        ("attacks.md", "attacks/beyond.py"),
        ("topologies.md", "experiments/topologies/ladder.py"),
    ):
        example = examples(page)[-1]
        assert len([line for line in example.splitlines() if line.strip()]) <= 15
        (tmp_path / "code" / path).write_text(example, encoding="utf-8")
    line = "attack.py --gar middle --gar-args count:2 --attack beyond --attack-args factor:3 --nb-steps 3"
    for command in (
        line,
        "study.py topology ladder --nodes 12",
        "-m pytest -q tests/aggregators tests/attacks tests/experiments/topologies -k",
        "docs/generate.py",
    ):
        words = [*command.split(), *(["middle or beyond or ladder"] if command.endswith("-k") else [])]
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path / "code", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "[`middle`](../aggregators/middle.py) | Take the vector closest to"
        in (tmp_path / "code" / "docs" / "rules.md").read_text()
    )
