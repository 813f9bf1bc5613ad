"""Whole runs, in this process, on the digits."""

import io
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import attack
from experiments.server import ServerSimulation

SHORT = (
    "--nb-steps 12 --evaluation-delta 4 --gar krum --attack little --threads 1 --batch-size 19 --nb-for-study-past 3"
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(line: str, folder: str | None = "run") -> int:
    return attack.main([*line.split(), *(["--result-directory", folder] if folder else [])])


def rows(folder: str, name: str = "study") -> list[str]:
    return (Path(folder) / name).read_text().splitlines()[1:]


def step_of(row: str) -> int:
    return int(row.split("\t")[0])


def test_result_directory(capsys: pytest.CaptureFixture) -> None:
    assert run(SHORT) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == "run"
    assert any("gar krum" in line for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("step")] == ["0/12", "4/12", "8/12", "12/12"]
    assert lines[-2].startswith("final accuracy 0.")
    assert lines[-1] == "results in run"
    assert printed.err == ""
    assert Path("run/stdout.log").read_text() == printed.out
    assert Path("run/stderr.log").read_text() == ""
    assert [step_of(row) for row in rows("run")] == list(range(12))
    assert [step_of(row) for row in rows("run", "eval")] == [0, 4, 8, 12]
    assert all(len(row.split("\t")) == 24 for row in rows("run"))
    values = json.loads(Path("run/config.json").read_text())
    environment = values.pop("environment")
    assert (values["gar"], values["gar_args"], values["nb_real_byz"], values["threads"]) == ("krum", {}, 4, 1)
    assert environment["seed"] == 1
    assert environment["threads"] == 1
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0]
    assert {"python", "commit", "device"} <= environment.keys()
    phases = {row.split("\t")[0] for row in rows("run", "timing")}
    assert {"start", "data", "gradients", "attack", "rule", "metrics", "update", "evaluation"} <= phases


def test_default_folder_is_named_after_the_run() -> None:
    assert run("--nb-steps 1", folder=None) == 0
    assert [path.name for path in Path("results-data").iterdir()] == ["digits-average-n_11-lr_0.01-at_update-1"]


@pytest.mark.parametrize("threads", [1, 2])
def test_two_runs_give_the_same_bytes(threads: int) -> None:
    for folder in ("a", "b"):
        assert run(f"{SHORT} --threads {threads} --momentum-at worker", folder) == 0
    for name in ("study", "eval"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    assert run(f"{SHORT} --threads {threads} --momentum-at worker --seed 2", "c") == 0
    assert Path("a/study").read_bytes() != Path("c/study").read_bytes()


CONTINUED = [
    "--momentum-at worker --momentum-nesterov",  # 7 · 19 samples a step: a pass of 1,437 ends within step 10
    "--momentum-at server --nb-local-steps 2 --nb-for-study 9",
    "--gars krum,1;median,1 --model empire-cnn --model-args hidden:8 --batch-size 4",
]


@pytest.mark.parametrize("options", CONTINUED)
@pytest.mark.parametrize("cut", [1, 4, 11])
def test_continued_elsewhere_both_files_together_are_the_whole(options: str, cut: int) -> None:
    line = f"{SHORT} {options}"
    assert run(line, "whole") == 0
    assert run(f"{line} --nb-steps {cut} --checkpoint-delta {cut}", "first") == 0
    assert run(f"{line} --nb-steps {12 - cut} --load-checkpoint first/checkpoint-{cut}", "second") == 0
    for name in ("study", "eval"):
        before = [row for row in rows("first", name) if step_of(row) < cut]
        assert min(step_of(row) for row in rows("second", name)) >= cut
        assert before + rows("second", name) == rows("whole", name)


def test_continued_only_with_the_same_graph(capsys: pytest.CaptureFixture) -> None:
    line = "--topology file --topology-args path:graph.txt --nb-workers 4 --nb-decl-byz 0 --evaluation-delta 0"
    graph = Path("graph.txt")
    graph.write_text("0 1\n1 2\n2 3\n3 0\n")
    assert run(f"{line} --nb-steps 4", "whole") == 0
    assert run(f"{line} --nb-steps 2 --checkpoint-delta 2", "first") == 0
    (digest,) = {json.loads(Path(f, "config.json").read_text())["environment"]["graph"] for f in ("whole", "first")}
    assert f" graph {digest}" in " ".join(Path("first/config").read_text().split())
    graph.write_text("0 1\n1 2\n2 3\n3 0\n0 2\n")
    capsys.readouterr()
    assert run(f"{line} --nb-steps 2 --load-checkpoint first/checkpoint-2", "second") == 2
    assert capsys.readouterr().err == (
        "attack.py: --load-checkpoint: expected the state of such a run in first/checkpoint-2: the graph of "
        "--topology file --topology-args path:graph.txt was another one then; give that back, or begin again without a "
        "checkpoint\n"
    )
    assert not list(Path().glob("second*"))
    graph.write_text("# the same\n3,0\n0,1\n2,1\n2,3\n")
    assert run(f"{line} --nb-steps 2 --load-checkpoint first/checkpoint-2", "second") == 0
    assert rows("first") + rows("second") == rows("whole")


@pytest.mark.parametrize("cut", [3, 8])
def test_continued_in_the_same_folder_is_the_whole(cut: int) -> None:
    assert run(SHORT, "whole") == 0
    assert run(f"{SHORT} --checkpoint-delta {cut}") == 0
    assert run(f"{SHORT} --nb-steps {12 - cut} --load-checkpoint run/checkpoint-{cut}") == 0
    for name in ("study", "eval"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes()
        assert Path("run.0", name).read_bytes() == Path("whole", name).read_bytes()


def test_checkpoints_are_written_at_every_multiple() -> None:
    assert run("--nb-steps 6 --checkpoint-delta 3") == 0
    checkpoints = sorted(path.name for path in Path("run").glob("*checkpoint*"))
    assert checkpoints == ["checkpoint-0", "checkpoint-3", "checkpoint-6"]


def test_a_run_that_stops_by_itself_is_evaluated_where_it_stops(capsys: pytest.CaptureFixture) -> None:
    line = "--learning-rate-schedule 0.05,6,0 --stop-below 1e-9 --checkpoint-delta 7"
    assert run(line) == 0
    *_, stopped, final, _ = capsys.readouterr().out.splitlines()
    assert stopped.startswith("stopped at step 7: ")
    evaluations = [row.split("\t") for row in rows("run", "eval")]
    assert [int(row[0]) for row in evaluations] == [0, 7]
    assert final.startswith(f"final accuracy {float(evaluations[-1][1]):.4f}, ")
    assert run(f"{line} --load-checkpoint run/checkpoint-7", "rest") == 0
    assert rows("rest", "eval") == rows("run", "eval")[-1:]
    assert run(f"{line} --evaluation-delta 7", "multiple") == 0
    assert [step_of(row) for row in rows("multiple", "eval")] == [0, 7]
    assert run(f"{line} --evaluation-delta 0", "without") == 0
    assert not Path("without/eval").exists()


def test_only_the_latest_checkpoints_are_kept() -> None:
    assert run("--nb-steps 12 --checkpoint-delta 2 --checkpoint-keep 2") == 0
    assert sorted(path.name for path in Path("run").glob("*checkpoint*")) == ["checkpoint-10", "checkpoint-12"]


def test_fresh_seed_is_recorded_and_continued() -> None:
    line = f"{SHORT} --seed -1"
    assert run(f"{line} --nb-steps 5 --checkpoint-delta 5", "first") == 0
    assert run(f"{line} --nb-steps 7 --load-checkpoint first/checkpoint-5", "second") == 0
    seeds = [json.loads(Path(f, "config.json").read_text())["environment"]["seed"] for f in ("first", "second")]
    assert seeds[0] == seeds[1] >= 0
    assert run(f"{SHORT} --seed {seeds[0]}", "whole") == 0
    assert rows("first") + rows("second") == rows("whole")
    assert run(f"{line} --nb-steps 1", "third") == 0
    assert json.loads(Path("third/config.json").read_text())["environment"]["seed"] != seeds[0]


def at_step(step: int, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make something happen during a step."""
    original = ServerSimulation.step

    def wrapped(self: ServerSimulation) -> None:
        if self.step_index == step:
            action()
        original(self)

    monkeypatch.setattr(ServerSimulation, "step", wrapped)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_leaves_what_can_be_continued(
    number: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run(SHORT, "whole") == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        at_step(6, lambda: os.kill(os.getpid(), number), patch)
        assert run(SHORT) == status
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "interrupted after step 7" in captured.err
    assert "--load-checkpoint run.pending/checkpoint-7 --nb-steps 5" in captured.err
    assert not Path("run").exists()
    assert [step_of(row) for row in rows("run.pending")] == list(range(7))
    assert run(f"{SHORT} --load-checkpoint run.pending/checkpoint-7 --nb-steps 5") == 0
    for name in ("study", "eval"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes()
    assert not Path("run.pending").exists()


def test_second_interruption_stops_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_step(6, twice, monkeypatch)
    assert run(SHORT) == 130
    assert capsys.readouterr().err == "attack.py: interrupted\n"
    assert Path("run.pending/study").exists()
    assert not list(Path("run.pending").glob("*checkpoint*"))


def test_no_limit_of_steps_until_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    at_step(20, lambda: os.kill(os.getpid(), signal.SIGINT), monkeypatch)
    assert run(f"{SHORT} --nb-steps -1") == 130
    assert len(rows("run.pending")) == 21


def test_no_step_is_a_run_too() -> None:
    assert run("--nb-steps 0 --evaluation-delta 1") == 0
    assert rows("run") == []
    assert [step_of(row) for row in rows("run", "eval")] == [0]


def test_without_study_and_evaluation(capsys: pytest.CaptureFixture) -> None:
    assert run("--nb-steps 3 --nb-for-study 0 --evaluation-delta 0") == 0
    assert not Path("run/study").exists()
    assert not Path("run/eval").exists()
    assert capsys.readouterr().out.splitlines()[-1] == "results in run"


def test_loss_that_becomes_nan_is_said_once(capsys: pytest.CaptureFixture) -> None:
    assert run("--nb-steps 30 --attack nan --evaluation-delta 3") == 0
    captured = capsys.readouterr()
    assert captured.err.count("the loss became NaN") == 1
    assert captured.err == Path("run/stderr.log").read_text()
    assert len(rows("run")) == 30
    assert rows("run")[-1].split("\t")[2] == "nan"


def test_largest_factor_of_zero_is_said_once(capsys: pytest.CaptureFixture) -> None:
    assert run("--nb-steps 2 --attack alie --nb-decl-byz 1") == 0
    assert capsys.readouterr().out.count("z_max is 0 for h = 10, f = 1") == 1


def test_model_whose_gradients_are_computed_one_by_one_is_said(capsys: pytest.CaptureFixture) -> None:
    line = "--nb-steps 1 --model torchvision-efficientnet_b0 --nb-workers 1 --nb-decl-byz 0 --batch-size 3"
    assert run(f"{line} --evaluation-delta 0") == 0
    assert capsys.readouterr().out.count("gradients are computed one worker after another: it draws random") == 1


@pytest.mark.parametrize("answer", ["stop()\n", "\x04"])
def test_prompt(answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    said = f"print('at', simulation.step_index, config.gar, model.d)\n{answer}"
    monkeypatch.setattr(sys, "stdin", io.StringIO(said.replace("\x04", "")))
    status = run(f"{SHORT} --user-input-delta 5")
    printed = capsys.readouterr()
    assert "at 5 krum 4810" in printed.out
    if answer == "stop()\n":
        assert status == 130
        assert Path("run.pending/checkpoint-5").exists()
    else:
        assert status == 0
        assert printed.err.count("Ctrl-D goes on") == 2


def test_event_files() -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run(f"{SHORT} --tensorboard") == 0
    events = EventAccumulator("run/tensorboard")
    events.Reload()
    assert [event.step for event in events.Scalars("eval/Cross-accuracy")] == [0, 4, 8, 12]
    losses = [event.value for event in events.Scalars("study/Average loss")]
    assert losses == pytest.approx([float(row.split("\t")[2]) for row in rows("run")])


def test_bug_keeps_its_traceback_and_names_the_folder_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    at_step(3, fail, monkeypatch)
    with pytest.raises(ZeroDivisionError):
        run(SHORT)
    assert not Path("run.pending").exists()
    assert "ZeroDivisionError: a bug" in Path("run.failed/stderr.log").read_text()


def test_full_disk_is_a_users_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    at_step(3, full, monkeypatch)
    assert run(SHORT) == 2
    assert "cannot write to run.pending: No space left on device" in capsys.readouterr().err
    assert Path("run.pending").is_dir()


def test_settings_of_torch_are_restored() -> None:
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode(), torch.random.get_rng_state()
    assert run(f"{SHORT} --threads 1") == 0
    after = torch.get_num_threads(), torch.get_deterministic_debug_mode(), torch.random.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_leaving_at_the_prompt_continues_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"{SHORT} --batch-size-test 20 --batch-size-test-reps 1"
    assert run(line, "whole") == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("stop()\n"))
    assert run(f"{line} --user-input-delta 8") == 130
    assert run(f"{line} --nb-steps 4 --load-checkpoint run.pending/checkpoint-8") == 0
    for name in ("study", "eval"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes()


def test_prompt_without_input_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("exit()\n"))
    assert run(f"{SHORT} --user-input-delta 4") == 0
    monkeypatch.setattr(sys, "stdin", None)
    assert run(f"{SHORT} --user-input-delta 4") == 0


def test_checkpoint_on_a_full_disk(capsys: pytest.CaptureFixture) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        assert run("--nb-steps 2 --checkpoint-delta 1") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err.count("cannot write to run.pending: File too large; make room") == 1
    assert not list(Path().rglob("*checkpoint*"))


def damage(content: dict, how: str) -> None:
    if how in ("config", "seed", "state"):
        del content[how]
    elif how == "unknown":
        content["config"]["gar"] = "nope"
    elif how == "empty":
        content["state"] = {}
    elif how == "size":
        content["state"]["model"]["parameters"] = torch.ones(3)


@pytest.mark.parametrize("how", ["config", "seed", "state", "unknown", "empty", "size", "bytes"])
def test_damaged_checkpoint(how: str, capsys: pytest.CaptureFixture) -> None:
    assert run("--nb-steps 1 --checkpoint-delta 1", "made") == 0
    path = Path("made/checkpoint-1")
    if how == "bytes":
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 1
        path.write_bytes(whole)
    else:
        content = torch.load(path, weights_only=True)
        damage(content, how)
        torch.save(content, path)
    capsys.readouterr()
    assert run(f"--nb-steps 1 --load-checkpoint {path}") == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "--load-checkpoint: expected" in printed
    assert str(path) in printed
    assert not Path("run.pending").exists()


def test_bug_of_a_model_is_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("the size of tensor a must match the size of tensor b")

    monkeypatch.setattr(ServerSimulation, "__init__", broken)
    with pytest.raises(RuntimeError, match="the size of tensor a"):
        run("--nb-steps 1")


def test_rows_are_on_disk_while_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("experiments.run.FLUSH_INTERVAL_S", 0)
    at_step(7, lambda: seen.append(len(rows("run.pending"))), monkeypatch)
    assert run("--nb-steps 9 --evaluation-delta 0") == 0
    assert seen == [7]


def test_seeds() -> None:
    for seed in (0, 7, -1):
        assert run(f"--nb-steps 1 --evaluation-delta 0 --seed {seed}", f"seed{seed}") == 0
    used = [json.loads(Path(f"seed{seed}/config.json").read_text())["environment"]["seed"] for seed in (0, 7, -1)]
    assert used[:2] == [0, 7]
    assert used[2] >= 0


BAD = [
    ("--gar krumm", "unknown aggregation rule 'krumm'"),
    ("--gar bulyan", "bulyan: expected f from 0 to 2 for n = 11, got 4"),
    ("--dataset mnist --data-directory nowhere", "--dataset mnist: expected its files in nowhere/MNIST"),
    ("--dataset cifar10 --data-directory nowhere", "expected its files in nowhere/cifar-10-batches-py"),
    ("--dataset phishing --data-directory nowhere", "expected its files in nowhere/phishing"),
    ("--model simples-conv", "simples-conv: expected images of at least 16×16"),
    ("--model torchvision-alexnet", "the model cannot be trained with this loss on inputs of shape (1, 8, 8)"),
    ("--loss bce", "--model, --loss: the model cannot be trained"),
    ("--loss tripletmargin", "--model, --loss: the model cannot be trained"),
    ("--criterion sigmoid", "sigmoid: expected outputs and targets of one shape"),
    ("--criterion-args k:11", "top-k: expected at least 11 outputs"),
    ("--init-multi dirac", "--init-multi dirac: it cannot fill first.weight"),
    ("--init-mono xavier_uniform", "--init-mono xavier_uniform: it cannot fill first.bias of shape (64,)"),
    (
        "--attack bulyan --attack-args target_idx:4810",
        "--attack, --attack-args: bulyan: expected target_idx from -4810 to 4809",
    ),
    ("--nb-for-study-past 100000000000", "expected what fits into memory, got more"),
    ("--nb-for-study-past 1000000000000000000", "expected what fits into memory, got more"),
    ("--device cuda:99", "--device: expected a GPU for cuda:99, found"),
    ("--device-gar cuda:99", "--device-gar: expected a GPU for cuda:99, found"),
    ("--load-checkpoint nowhere", "--load-checkpoint: cannot read nowhere: No such file or directory"),
    ("--load-checkpoint .", "--load-checkpoint: cannot read .: Is a directory"),
    ("--load-checkpoint text", "--load-checkpoint: expected a whole checkpoint, got something else in text"),
    ("--load-checkpoint empty", "--load-checkpoint: expected a whole checkpoint, got something else in empty"),
    ("--load-checkpoint cut", "--load-checkpoint: expected a whole checkpoint, got something else in cut"),
    ("--load-checkpoint tensor", "--load-checkpoint: expected a file in the format 'byzantium checkpoint 3'"),
    ("--topology circle", "unknown topology 'circle', expected one of: barbell, complete"),
    (
        "--topology regular --topology-args k:3",
        "regular: expected an even k for an odd number of nodes, got k = 3 for n = 11",
    ),
    ("--topology ring --topology-args p:1", "--topology-args: ring has no argument 'p', expected what all have: byz"),
    ("--topology ring --attack nan --topology-args byzantine:[0,5,8,10]", "what node"),
    ("--topology file --topology-args path:text", "text, line 1: expected"),
    ("--topology ring --attack nan --gar krum", "hears 2 neighbours, "),
    ("--topology ring --topology-args weights:heavy", "--topology-args: weights: expected one of"),
    ("--topology star --topology-args weights:uniform", "but node 1 has 1 and node 0 has 10"),
    ("--topology complete --gar fltrust", "expected a rule for workers without a server, got fltrust"),
    (
        "--topology complete --protocol dpsgd --gar krum",
        "--gar, --gar-args, --gars, --pre-gar: expected none with",
    ),
    (
        "--topology complete --protocol dpsgd --momentum-at server",
        "--momentum-at: expected worker with --protocol dpsgd",
    ),
    ("--topology complete --protocol gossip --momentum-at server", "--momentum-at: expected worker or update with"),
    ("--topology complete --protocol monna --dampening 0.5", "--dampening: expected none with --protocol monna"),
    ("--topology complete --participation 0.5", "--participation: expected 1 without a server, got 0.5"),
    ("--topology complete --protocol gossips", "unknown protocol 'gossips', expected one of: clipped-gossip, dpsgd"),
    ("--topology complete --protocol-args s:1", "--protocol-args: robust has no argument 's', expected: no arguments"),
    ("--topology complete --pre-gar bucketing --gar gts", "--pre-gar: expected one that keeps every vector before gts"),
    ("--protocol dpsgd", "--protocol: expected --topology as well, other than server, got dpsgd"),
    ("--nb-local-byz 1", "--nb-local-byz: expected --topology as well, other than server, got 1"),
    ("--partition halves", "unknown partition 'halves', expected one of: dirichlet"),
    ("--partition dirichlet --partition-args alpha:0", "--partition-args: dirichlet: expected"),
    ("--partition extreme --nb-workers 2000", "--partition: expected samples for every node that trains, got none"),
    ("--participation 0.3 --attack nan", "--participation: expected a share of more than 4 of 11 workers"),
    (
        "--participation 0.7 --gar krum",
        "--participation, --gar, --gar-args, --nb-workers, --nb-decl-byz: krum: expected f",
    ),
    ("--participation 0", "--participation: expected ≤ 1 and > 0, got 0.0"),
    ("--stop-below 0", "--stop-below: expected > 0, got 0"),
    ("--batching maybe", "--batching: expected one of on, off, got 'maybe'"),
    ("--load-checkpoint good --gar median --seed 2", "which had --seed 1 (here 2), --gar 'average' (here 'median')"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_leaves_nothing_behind(
    line: str, message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.error
    import urllib.request

    def offline(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError("offline")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    assert run("--nb-steps 2 --checkpoint-delta 2 --evaluation-delta 0", "made") == 0
    whole = Path("made/checkpoint-2").read_bytes()
    Path("good").write_bytes(whole)
    Path("cut").write_bytes(whole[: len(whole) // 2])
    Path("text").write_text("not a checkpoint")
    Path("empty").write_bytes(b"")
    torch.save({"a": torch.ones(2)}, "tensor")
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert run(f"{line} --evaluation-delta 0") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("attack.py: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert sorted(Path().rglob("*")) == before


def test_pickles_are_not_executed(capsys: pytest.CaptureFixture) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, ("harmed",)

    torch.save({"format": Evil()}, "evil")
    assert run("--load-checkpoint evil") == 2
    assert not Path("harmed").exists()


def test_unwritable_result_folder(capsys: pytest.CaptureFixture) -> None:
    Path("file").write_text("")
    assert run("--nb-steps 1", "file/run") == 2
    assert "--result-directory: cannot write to file/run.pending" in capsys.readouterr().err


def test_tensorboard_without_the_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert run("--tensorboard") == 2
    assert "expected the package tensorboard, found none; pip install tensorboard" in capsys.readouterr().err
    assert not Path("run.pending").exists()


def test_real_data(data_directory: Path) -> None:
    """A few steps of the paper's MNIST cell, of Fashion-MNIST with its flips, and of phishing."""
    common = f"--data-directory {data_directory} --nb-steps 3 --evaluation-delta 3"
    cell = "--dataset mnist --batch-size 83 --model simples-full --nb-workers 51 --nb-decl-byz 24 --train-mode eval"
    assert run(f"{common} {cell} --gar krum-iclr21 --attack little --momentum-at worker", "mnist") == 0
    assert run(f"{common} --dataset fashionmnist --model simples-full --test-augment", "fashionmnist") == 0
    assert run(f"{common} --dataset phishing --gar median --attack empire", "phishing") == 0
    assert float(rows("phishing", "eval")[-1].split("\t")[1]) > 0.4
