import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import decentralised
from experiments.environment import settings
from experiments.network_simulation import NetworkSimulation
from experiments.phases import PhaseClock
from experiments.run import load_data
from tools.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--quick", "--threads", "1"]
CONTENDERS = ["ours", "with a study", "as a library"]


@pytest.fixture(autouse=True)
def _wide_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decentralised, "SETTLE_S", 0)


def without_krum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "krum.primitives.attacks.alie", None)
    monkeypatch.setitem(sys.modules, "krum", None)


def rows(printed: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("|")]


def test_monna_alone_prints_tables_and_writes_all_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_krum(monkeypatch)
    folder = tmp_path / "made" / "anew"
    line = ["--parts", "monna", "--rounds", "2", "--steps", "90", "-o", str(folder)]  # more than the study keeps
    assert decentralised.main([*QUICK, *line]) == 0
    printed = capsys.readouterr().out
    assert "## monna, n, f = 5,1\n" in printed
    assert "\nkrum: not compared, " in printed
    table = rows(printed)
    assert [row[0] for row in table] == ["round, ms", "---", *CONTENDERS, "evaluation, ms", "---", "ours"]
    assert table[0][4:6] == ["/ krum", "data"]
    assert {"gradients", "rule"} < set(table[0])
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["environment"]["threads"] == 1
    assert list(results["monna"]) == ["5,1"]
    monna = results["monna"]["5,1"]
    assert monna["peer"] is None
    assert list(monna["ms"]["round"]) == CONTENDERS
    times = [*monna["ms"]["round"].values(), *monna["ms"]["evaluation"].values()]
    times += [ms for phases in monna["phase_ms"].values() for ms in phases.values()]
    assert {len(ms) for ms in times} == {2}
    assert all(taken >= 0 for ms in times for taken in ms)
    assert "snapshot" in monna["phase_ms"]["as a library"]
    assert "snapshot" not in monna["phase_ms"]["ours"]
    assert monna["rounds_done"] == 90 + 2 * (1 + 90)  # to warm up, then in each turn one that is not timed
    assert f"after 272 rounds: ours {monna['accuracies']['ours']:.3f}" in printed


def test_krum_takes_its_turns_on_the_same_network_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("krum")
    assert decentralised.main([*QUICK, "--parts", "monna", "-o", str(tmp_path)]) == 0
    table = rows(capsys.readouterr().out)
    peer = table[0][4].removeprefix("/ ")
    assert [row[0] for row in table] == ["round, ms", "---", *CONTENDERS, peer, "evaluation, ms", "---", "ours", peer]
    assert all("at most 0.25" in row[4] or "**exceeds** 0.25" in row[4] for row in table[2:5])
    monna = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["monna"]["5,1"]
    assert set(decentralised.PHASES.values()) == set(monna["phase_ms"][peer])
    assert 0 < monna["accuracies"][peer] < 1
    config = decentralised.monna_configs(decentralised.parse(QUICK))["5,1"]
    with settings(config):
        data = load_data(config)
        ours = NetworkSimulation(config, data, decentralised.SEED)
        theirs = decentralised.krum_simulation(config, data, ours.shards)
    assert torch.equal(theirs.parameters, ours.protocol.parameters)
    for shard, dataset in zip(ours.shards, theirs.train_datasets, strict=True):
        assert torch.equal(dataset.tensors[0], data.train.inputs[shard])
        assert torch.equal(dataset.tensors[1], data.train.targets[shard])
    assert torch.equal(theirs.test_set.tensors[0], data.test.inputs)
    assert (theirs.learning_rate, theirs.beta, theirs.n, theirs.f) == (0.75, 0.99, 5, 1)
    assert (theirs.train_batch_size, theirs.test_batch_size) == (25, 100)


def test_growth_counts_the_matrices_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"--parts growth --protocols dpsgd --nodes 300 --batch-size 3 --output {tmp_path}"
    assert decentralised.main([*QUICK, *line.split()]) == 0
    printed = capsys.readouterr().out
    assert "## dpsgd on rings, batches of 3\n" in printed
    assert "up to 300 nodes, and no ring is larger" in printed
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["monna"] == {}
    dpsgd = results["growth"]["dpsgd"]
    assert dpsgd["matrix_bytes"] == {"300": 300 * 4810 * 4}
    assert len(dpsgd["ms"]["300"]) == 2
    if dpsgd["peak_bytes"]["300"] is not None:  # models before and after, gradients, momenta; and activations
        assert 4 < dpsgd["peak_bytes"]["300"] / dpsgd["matrix_bytes"]["300"] < 16


def test_rings_are_ascending_and_each_protocol_has_its_own() -> None:
    arguments = decentralised.parse([*QUICK, "--nodes", "8", "4", "8", "--batch-size", "7"])
    configs = decentralised.ring_configs(arguments)
    assert list(configs) == ["dpsgd", "gossip", "robust"]
    for protocol, rings in configs.items():
        assert list(rings) == ["4", "8"]
        for n, config in rings.items():
            assert (config.protocol, config.topology, config.nb_workers) == (protocol, "ring", int(n))
            assert (config.nb_real_byz, config.batch_size, config.nb_for_study) == (0, 7, 0)
    assert (configs["robust"]["4"].gar, configs["robust"]["4"].nb_local_byz) == ("trmean", 1)


def test_the_defaults_are_the_cells_that_are_asked_for() -> None:
    arguments = decentralised.parse(["--data-directory", "data"])
    (config,) = decentralised.monna_configs(arguments).values()
    assert (config.nb_workers, config.nb_decl_byz, config.nb_real_byz, config.batch_size) == (20, 3, 3, 25)
    assert (config.dataset, config.model, config.attack, config.attack_args) == (
        "mnist",
        "simples-full",
        "alie",
        {"z": 1.5},
    )
    assert config.data_directory == str(Path("data").resolve())
    assert list(decentralised.ring_configs(arguments)["gossip"]) == ["16", "64", "256", "1024"]


class Ticks:
    """A clock that advances by what calls say they take."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    ticks = Ticks()
    monkeypatch.setattr(time, "perf_counter", ticks.perf_counter)
    return ticks


def test_contenders_take_turns_and_only_the_calls_of_a_turn_count(ticks: Ticks) -> None:
    called = ""
    clock = PhaseClock(torch.device("cpu"))

    def action(who: str) -> None:
        nonlocal called
        called += who
        with clock.phase("walk"):
            ticks.now += 0.001 * len(called)
        ticks.now += 1

    actions = {who: lambda who=who: action(who) for who in "ab"}
    times, phases = decentralised.take_turns(actions, {"a": clock}, 2, 3, "cpu")
    assert called == "aaabbb" + "aaaabbbb" * 2
    numbers = [[n + 1 for n, who in enumerate(called) if who == "a"], [n + 1 for n, w in enumerate(called) if w == "b"]]
    for who, places in zip("ab", numbers, strict=True):
        turns = [places[4:7], places[8:11]]
        assert times[who] == pytest.approx([1000 + sum(turn) / 3 for turn in turns])
    assert phases == {"a": {"walk": pytest.approx([(8 + 9 + 10) / 3, (16 + 17 + 18) / 3])}}


def test_a_simulations_methods_count_their_time_by_phase(ticks: Ticks) -> None:
    def method(seconds: float, result: Any = None) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            ticks.now += seconds
            return result or (arguments, keywords)

        return call

    simulation = SimpleNamespace(**{name: method(2.0**k) for k, name in enumerate(decentralised.PHASES)})
    clock = decentralised.phase_clock(simulation, torch.device("cpu"))
    assert clock.seconds() == {}
    assert simulation.local_update(1, two=2) == ((1,), {"two": 2})
    for name in decentralised.PHASES:
        getattr(simulation, name)()
    spent = {phase: 2.0**k for k, phase in enumerate(decentralised.PHASES.values())}
    assert clock.seconds() == spent | {"momentum": 2 * spent["momentum"]}


@pytest.mark.parametrize(
    ("by_node", "expected"),
    [
        ({4: 9.0, 8: 1.2, 16: 1.0, 32: 1.0}, 8),
        ({4: 9.0, 8: 1.2001, 16: 1.0, 32: 1.0}, 16),
        ({4: 1.0, 8: 1.0, 16: 3.0}, 4),
        ({4: 8.0, 8: 4.0, 16: 2.0}, 16),
    ],
)
def test_saturation_is_the_smallest_size_near_the_least(by_node: dict[int, float], expected: int) -> None:
    assert decentralised.saturated(by_node) == expected


def test_spread_is_median_quartiles_and_least() -> None:
    assert decentralised.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == ["3", "2 to 4", "1"]
    assert decentralised.spread([7.25]) == ["7.25", "7.25 to 7.25", "7.25"]


def test_a_ratio_is_the_median_over_pairs_and_says_whether_it_is_as_asked_for() -> None:
    assert decentralised.beside([1.0, 9.0, 1.0], [4.0, 9.0, 8.0], 0.25) == "0.25, at most 0.25"
    assert decentralised.beside([1.01, 9.0, 1.0], [4.0, 9.0, 8.0], 0.25) == "0.253, **exceeds** 0.25"


def test_phases_on_which_nobody_spends_a_hundredth_are_left_out() -> None:
    phases = {
        "a": {"rule": [98.9, 98.9], "data": [1.1, 1.1], "update": [0.9, 0.9]},
        "b": {"rule": [1.0], "idle": [0.009]},
    }
    assert decentralised.split(phases) == (["rule", "data"], {"a": ["98.9", "1.1"], "b": ["1", ""]})


def ring_result(**ms: float) -> dict[str, Any]:
    times = {n.removeprefix("n"): [taken] * 3 for n, taken in ms.items()}
    return {
        "ms": times,
        "phase_ms": {n: {"rule": taken} for n, taken in times.items()},
        "matrix_bytes": dict.fromkeys(times, 2 * 10**6),
        "peak_bytes": dict.fromkeys(times, 4500000),
    }


def test_growth_is_set_beside_the_smallest_ring_and_the_first_that_is_saturated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    decentralised.report_rings(ring_result(n16=1.6, n64=3.2, n256=12.8, n1024=61.44))
    printed = capsys.readouterr().out
    head, _, *table = rows(printed)
    assert head[:7] == ["nodes", "round, ms", "quartiles", "least", "per node, µs", "/ at 16", "/ at 64"]
    assert table[0] == ["16", "1.6", "1.6 to 1.6", "1.6", "100", "1.00", "", "4.5", "2.25", "1.6"]
    assert [row[4:7] for row in table[1:]] == [["50", "0.50", "1.00"], ["50", "0.50", "1.00"], ["60", "0.60", "1.20"]]
    assert printed.endswith("From 64 nodes on, a node's time stays within 20%: +20%\n")
    decentralised.report_rings(ring_result(n16=1.6, n64=3.2, n256=12.8, n1024=66.0))
    assert capsys.readouterr().out.endswith("From 64 nodes on, a node's time does **not** stay within 20%: +29%\n")
    decentralised.report_rings(ring_result(n16=1.6, n64=3.2) | {"peak_bytes": {"16": None, "64": None}})
    printed = capsys.readouterr().out
    assert rows(printed)[2][7:9] == ["", ""]
    assert printed.endswith("Growth is less than linear up to 64 nodes, and no ring is larger\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "argument --data-directory: expected the folder with MNIST in it; or --parts growth"),
        (["--quick", "--rounds", "0"], "argument --rounds: expected at least 1, got 0"),
        (["--quick", "--steps", "0"], "argument --steps: expected at least 1, got 0"),
        (["--quick", "--sizes", "20"], "argument --sizes: expected n,f such as 20,3, got '20'"),
    ],
)
def test_options_that_cannot_be_are_refused(line: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        decentralised.main(line)
    assert capsys.readouterr().err.endswith(f"{message}\n")


def test_numbers_that_cannot_be_are_refused_before_anything_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^--nb-decl-byz: expected less than half of 4 nodes"):
        decentralised.main([*QUICK, "--sizes", "5,1", "4,2"])
    assert capsys.readouterr().out == ""


def test_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, str(ROOT / "benchmarks" / "decentralised.py"), *QUICK, "-o", "file/folder"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "benchmarks/decentralised.py: --output: cannot write results.json in file/folder: Not a directory; "
        "name another folder\n"
    )
