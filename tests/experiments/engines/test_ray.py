"""The Ray engine: on a real cluster of two nodes, one of which is killed; and what a node does with a task."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.config import RunConfig
from experiments.engines.ray import RayEngine, do_on_node, pack, unpack
from experiments.plan import Action, plan
from experiments.run import run
from tools.console import Console
from tools.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
CONFIG = RunConfig(nb_steps=6, evaluation_delta=3, threads=1, device="cpu")
GRID = """
from experiments.config import RunConfig
from experiments.grids import Grid

class Mine(Grid, name="mine"):
    title = "A grid of the tests"

    @classmethod
    def experiments(cls):
        for number in range(4):
            yield f"run{number}", RunConfig(nb_steps=400, attack="alie", gar="krum", learning_rate=0.01 * (number + 1))
"""


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """Return a folder of runs in which the run `one` has finished, with a checkpoint after three of six steps."""
    folder = tmp_path / "earlier"
    run(dataclasses.replace(CONFIG, checkpoint_delta=3, result_directory=str(folder / "one")), Console())
    return folder


def assert_same_bytes(first: Path, second: Path) -> None:
    for name in ("study", "eval"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_node_that_shares_the_folder_writes_there(earlier: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "marker").touch()
    answer = do_on_node(CONFIG.to_dict(), False, "one", str(results / "marker"), {})
    assert answer == ("done", "", None)
    assert_same_bytes(results / "one", earlier / "one")


def test_a_node_that_does_not_sends_the_files_back(earlier: Path, tmp_path: Path) -> None:
    outcome, _, files = do_on_node(CONFIG.to_dict(), False, "one", str(tmp_path / "elsewhere" / "marker"), {})
    assert outcome == "done"
    results = tmp_path / "results"
    (results / "one").mkdir(parents=True)
    unpack(files, results, "one")
    assert_same_bytes(results / "one", earlier / "one")
    assert sorted(path.name for path in results.iterdir()) == ["one", "one.0"]
    config = dataclasses.replace(CONFIG, result_directory=str(results / "one"))
    assert plan("one", config, {"cpu"}).action is Action.SKIP


def test_a_run_is_continued_where_no_folder_is_shared(earlier: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    unpack({path.replace("one/", "one.pending/"): text for path, text in pack(earlier, "one").items()}, results, "one")
    (results / "one.pending" / "checkpoint-6").unlink()
    planned = plan("one", dataclasses.replace(CONFIG, result_directory=str(results / "one")), {"cpu"})
    assert planned.done == 3
    fields = dataclasses.replace(planned.prepare(), result_directory=None).to_dict()
    outcome, reason, files = do_on_node(
        fields, False, "one", str(tmp_path / "nowhere" / "marker"), pack(results, "one")
    )
    assert (outcome, reason) == ("done", "")
    unpack(files, results, "one")
    assert sorted(path.name for path in results.iterdir()) == ["one"]
    assert_same_bytes(results / "one", earlier / "one")


def test_a_failure_on_a_node_comes_back_with_its_reason(tmp_path: Path) -> None:
    fields = dataclasses.replace(CONFIG, dataset="phishing", data_directory=str(tmp_path)).to_dict()
    (tmp_path / "phishing").mkdir()
    (tmp_path / "phishing" / "phishing").write_text("this is not the file\n")
    outcome, reason, files = do_on_node(fields, False, "one", str(tmp_path / "nowhere" / "marker"), {})
    assert outcome == "failed"
    assert "phishing" in reason
    assert files == {}


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--engine ray: expected the package ray .*; pip install ray"):
        RayEngine(None, tmp_path, None, 1)


CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
for _ in sys.stdin:
    cluster.remove_node(second, allow_graceful=False)
    print("killed", flush=True)
cluster.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[subprocess.Popen]:
    """Yield a process with a cluster of two nodes; it prints their address, and kills the second for a line of input.

    Ray in the tests' own process would leave its signal handlers there.
    """
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs the package ray")
    command = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()
        process.wait(60)


def test_a_killed_node_loses_nothing(cluster: subprocess.Popen, tmp_path: Path) -> None:
    address = cluster.stdout.readline().strip()
    (tmp_path / "mine.py").write_text(GRID)

    def start(*arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "reproduce.py"), "--grid", "mine.py", "--seeds", "1", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    process = start("--engine", "ray", "--ray-address", address, "--result-directory", "by-ray")
    assert "4 to do on 2 slots" in process.stdout.readline()
    for line in process.stdout:
        if line.startswith("[1/4]"):
            break
    print("kill", file=cluster.stdin, flush=True)
    assert cluster.stdout.readline() == "killed\n"
    out, err = process.communicate(timeout=200)
    assert (process.returncode, "[4/4]" in out, "FAILED" in out) == (0, True, False), out + err
    local = start("--devices", "cpu", "--result-directory", "locally")
    local.communicate(timeout=200)
    assert local.returncode == 0
    names = [f"run{number}-1" for number in range(4)]
    folders = sorted(path.name for path in (tmp_path / "by-ray").iterdir() if not path.name.startswith("."))
    assert [name for name in folders if ".pending." not in name] == names  # the lost run's first attempt is kept aside
    for name in names:
        assert_same_bytes(tmp_path / "by-ray" / name, tmp_path / "locally" / name)
