"""Grids: how many runs, under which names, with which flags."""

import shlex
from collections import Counter
from pathlib import Path

import pytest

from experiments.command_line import parse
from experiments.grids import find, grids
from tools.errors import UserError

SEEDS = range(1, 6)
MNIST = (
    "--threads 1 --nb-steps 300 --batch-size 83 --model simples-full --loss nll --learning-rate-decay-delta 300 "
    "--momentum 0.9 --l2-regularize 1e-4 --evaluation-delta 5 --gradient-clip 2 --nb-for-study 1 "
    "--nb-for-study-past 150 --train-mode eval --test-augment"
)
CIFAR = (
    "--threads 1 --nb-steps 3000 --batch-size 50 --model empire-cnn --loss nll --learning-rate-decay 167 "
    "--momentum 0.99 --l2-regularize 1e-2 --evaluation-delta 100 --gradient-clip 5 --nb-for-study 1 "
    "--nb-for-study-past 25 --train-mode eval --test-augment"
)
WIDE_RESNET = (
    "--threads 1 --nb-steps 20000 --batch-size 20 --model wide-resnet "
    "--model-args depth:28 widen_factor:10 dropout:0.3 --loss crossentropy "
    "--learning-rate-schedule 0.02,8000,0.004,16000,0.0008 --momentum 0.99 --momentum-nesterov --l2-regularize 5e-4 "
    "--evaluation-delta 100 --gradient-clip 5 --nb-for-study 1 --nb-for-study-past 1 --train-mode eval --test-augment "
    "--dataset cifar10 --checkpoint-delta 1000 --checkpoint-keep 1"
)
LITTLE = "--attack little --attack-args factor:1.5 negative:True"
EMPIRE = "--attack empire --attack-args factor:1.1"
MONNA = (
    "--threads 1 --dataset mnist --model simples-conv --topology complete --protocol monna --batch-size 25 "
    "--nb-steps 600 --learning-rate 0.75 --learning-rate-decay 50 --learning-rate-decay-delta 50 --momentum 0.99 "
    "--gradient-clip 2 --l2-regularize 1e-4 --evaluation-delta 100 --partition dirichlet"
)
DUMBBELL = (
    "--threads 1 --dataset mnist --model mnist-cnn --topology dumbbell --nb-workers 20 --nb-decl-byz 0 --batch-size 32 "
    "--learning-rate 0.01 --learning-rate-decay 0 --momentum 0.9 --nb-steps 900 --evaluation-delta 450"
)
PINNED = {
    ("monna", "mnist-alpha_1-little-nna-2"): (
        f"{MONNA} --partition-args alpha:1 --nb-workers 26 --nb-decl-byz 5 --attack little --attack-args factor:-16 "
        "--gar nna --seed 2"
    ),
    ("monna", "mnist-alpha_5-labelflip-clippedgossip-1"): (
        f"{MONNA} --partition-args alpha:5 --nb-workers 26 --nb-decl-byz 5 --attack labelflip --gar clippedgossip "
        "--seed 1"
    ),
    ("monna", "mnist-alpha_5-honest-n_21-1"): (
        f"{MONNA} --partition-args alpha:5 --nb-workers 21 --nb-decl-byz 0 --seed 1"
    ),
    ("dumbbell", "dumbbell-noniid-dpsgd-1"): (
        f"{DUMBBELL} --partition extreme --partition-args groups:2 by:labels samples:960 --protocol dpsgd --seed 1"
    ),
    ("dumbbell", "dumbbell-iid-trmean-1"): (
        f"{DUMBBELL} --partition iid --partition-args samples:960 --protocol robust --gar trmean --nb-local-byz 1 "
        "--seed 1"
    ),
    ("iclr21", "mnist-average-n_39-lr_0.02-nesterov-1"): (
        f"{MNIST} --dataset mnist --nb-workers 39 --nb-decl-byz 0 --learning-rate 0.02 --momentum-nesterov --seed 1"
    ),
    ("iclr21", "mnist-little-krum-f_24-lr_0.5-at_worker-nesterov-1"): (
        f"{MNIST} {LITTLE} --dataset mnist --nb-workers 51 --nb-decl-byz 24 --nb-real-byz 24 --gar krum-iclr21 "
        "--learning-rate 0.5 --momentum-at worker --momentum-nesterov --seed 1"
    ),
    ("iclr21", "fashionmnist-average-n_27-lr_0.5-2"): (
        f"{MNIST} --dataset fashionmnist --nb-workers 27 --nb-decl-byz 0 --learning-rate 0.5 --seed 2"
    ),
    ("iclr21", "fashionmnist-empire-bulyan-f_12-lr_0.02-at_update-5"): (
        f"{MNIST} {EMPIRE} --dataset fashionmnist --nb-workers 51 --nb-decl-byz 12 --nb-real-byz 12 "
        "--gar bulyan-iclr21 --learning-rate 0.02 --seed 5"
    ),
    ("iclr21", "cifar10-average-n_14-lr_0.01-1"): (
        f"{CIFAR} --dataset cifar10 --nb-workers 14 --nb-decl-byz 0 --learning-rate 0.01 "
        "--learning-rate-decay-delta 1500 --seed 1"
    ),
    ("iclr21", "cifar10-little-median-f_5-lr_0.01-at_update-nesterov-5"): (
        f"{CIFAR} {LITTLE} --dataset cifar10 --nb-workers 25 --nb-decl-byz 5 --gar median --learning-rate 0.01 "
        "--learning-rate-decay-delta 1500 --momentum-nesterov --seed 5"
    ),
    ("iclr21", "cifar100-empire-phocas-f_11-lr_0.001-at_worker-3"): (
        f"{CIFAR} {EMPIRE} --dataset cifar100 --nb-workers 25 --nb-decl-byz 11 --gar phocas --learning-rate 0.001 "
        "--learning-rate-decay-delta 3000 --momentum-at worker --seed 3"
    ),
    ("iclr21-appendix", "cifar10-average-n_7-lr_pow-nesterov-1"): (
        f"{WIDE_RESNET} --nb-workers 7 --nb-decl-byz 0 --seed 1"
    ),
    ("iclr21-appendix", "cifar10-little-bulyan-f_2-lr_pow-at_worker-nesterov-5"): (
        f"{WIDE_RESNET} {LITTLE} --nb-workers 11 --nb-decl-byz 2 --gar bulyan-iclr21 --momentum-at worker --seed 5"
    ),
    ("smoke", "digits-empire-bulyan-f_2-lr_0.1-at_worker-1"): (
        f"{EMPIRE} --threads 1 --nb-steps 100 --nb-workers 11 --nb-decl-byz 2 --gar bulyan-iclr21 --learning-rate 0.1 "
        "--momentum-at worker --nb-for-study-past 25 --seed 1"
    ),
}


@pytest.mark.parametrize(("grid", "runs"), [("iclr21", 3680), ("iclr21-appendix", 110)])
def test_number_of_runs(grid: str, runs: int) -> None:
    named = list(grids[grid].runs(SEEDS))
    assert len(named) == runs
    assert len({name for name, _ in named}) == runs
    deciding = [str({**config.to_dict(), "result_directory": None}) for _, config in named]
    assert len(set(deciding)) == runs  # no experiment is there twice under two names


def test_families_of_the_paper() -> None:
    configs = [config for _, config in grids["iclr21"].runs([1])]
    assert Counter(config.dataset for config in configs) == dict.fromkeys(
        ("mnist", "fashionmnist", "cifar10", "cifar100"), 184
    )
    assert sum(config.attack is None for config in configs) == 32
    assert {(c.nb_workers, c.nb_decl_byz) for c in configs if c.gar == "bulyan-iclr21"} == {(51, 12), (25, 5)}


def test_one_seed_comes_after_the_other() -> None:
    seeds = [config.seed for _, config in grids["smoke"].runs([3, 1])]
    assert seeds == [3] * (len(seeds) // 2) + [1] * (len(seeds) // 2)


@pytest.mark.parametrize(("grid", "name"), PINNED)
def test_pinned_run(grid: str, name: str) -> None:
    assert dict(grids[grid].runs(SEEDS))[name] == parse(shlex.split(PINNED[grid, name]))


@pytest.mark.parametrize("name", sorted(grids))
def test_every_grid(name: str) -> None:
    grid = grids[name]
    assert grid.title
    for run, config in grid.runs([7]):
        assert run.endswith("-7")
        assert (config.seed, config.threads) == (7, grid.threads)


def test_template_works_as_it_stands() -> None:
    grid = find(str(Path(__file__).parents[2] / "experiments/grids/template.py"))
    assert [name for name, _ in grid.runs([1])] == ["honest-1", "alie-krum-1", "alie-median-1"]


HEAD = "from experiments.config import RunConfig\nfrom experiments.grids import Grid\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "expected a file, found none"),
        ("raise KeyError('x')", "cannot import .*KeyError: 'x'"),
        ("def (", "cannot import .*SyntaxError"),
        ("import sys; sys.exit('no')", "cannot import .*SystemExit: no"),
        (HEAD, "expected one grid in .*, got 0"),
        (HEAD + "class A(Grid): pass", "expected one grid in"),
    ],
)
def test_files_that_are_no_grid(content: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=words):
        find(str(path))


def test_unknown_name() -> None:
    with pytest.raises(UserError, match=r"--grid: unknown grid 'iclr', expected one of: dumbbell, .*or the path"):
        find("iclr")


def test_two_experiments_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "twice.py"
    body = "    def experiments(cls):\n        yield 'a', RunConfig()\n        yield 'a', RunConfig(nb_steps=1)\n"
    path.write_text(f"{HEAD}class Twice(Grid):\n    name = 'twice'\n    title = 'x'\n    @classmethod\n{body}")
    with pytest.raises(UserError, match="every experiment under its own name, got a twice"):
        list(find(str(path)).runs([1]))
