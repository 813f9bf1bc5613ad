import dataclasses

import pytest

import aggregators
from attacks import attacks
from experiments.command_line import make_parser, parse
from experiments.config import SECTIONS, RunConfig
from experiments.datasets import datasets
from tools.errors import UserError

FLAGS = """--seed --device --device-gar --nb-steps --nb-workers --nb-for-study --nb-for-study-past --nb-decl-byz
--nb-real-byz --init-multi --init-multi-args --init-mono --init-mono-args --gar --gar-args --gars --pre-gar
--pre-gar-args --attack --attack-args
--model --model-args --loss --loss-args --criterion --criterion-args --dataset --batch-size --batch-size-test
--batch-size-test-reps --no-transform --learning-rate --learning-rate-decay --learning-rate-decay-delta
--learning-rate-schedule --momentum --dampening --momentum-nesterov --momentum-at --weight-decay --l1-regularize
--l2-regularize --gradient-clip --nb-local-steps --load-checkpoint --result-directory --evaluation-delta
--checkpoint-delta --checkpoint-keep --user-input-delta --dataset-args --data-directory --train-mode --test-augment
--threads --tensorboard --participation --topology --topology-args --protocol --protocol-args --nb-local-byz --batching
--stop-below --partition --partition-args"""


def test_every_flag_is_there_and_no_other() -> None:
    options = {flag for action in make_parser("x")._actions for flag in action.option_strings}
    assert options == {*FLAGS.split(), "-h", "--help"}
    assert {field.name for field in dataclasses.fields(RunConfig)} > SECTIONS.keys()


def test_help_lists_what_is_registered() -> None:
    text = " ".join(make_parser("x").format_help().split())
    for registry in (aggregators.gars, attacks, datasets):
        assert ", ".join(registry) in text
    assert "--topology-args all: byzantine:last, connected:True, allow-weak:False, weights:metropolis" in text
    assert "clipped-gossip: tau:adaptive epidemic: peers, mode:pull, flood:False monna: reach:all" in text


BAD = [
    ("--nb-workers 0", "--nb-workers: expected ≥ 1 and ≤ 1e+06, got 0"),
    ("--nb-steps " + 30 * "9", "--nb-steps: expected a whole number of at most 63 bits, got one of 100"),
    ("--nb-decl-byz 11", "--nb-decl-byz: expected 0 to 10, at least one worker being honest, got 11"),
    ("--nb-for-study -1", "--nb-for-study: expected ≥ 0 and ≤ 1e+06, got -1"),
    ("--threads 99999", "--threads: expected ≥ 1 and ≤ 1024, got 99999"),
    ("--result-directory .", "--result-directory: expected the name of a folder, got '.'"),
    ("--result-directory /", "--result-directory: expected the name of a folder, got '/'"),
    ("--result-directory a/..", "--result-directory: expected the name of a folder, got 'a/..'"),
    ("--result-directory=", "--result-directory: expected the name of a folder, got ''"),
    ("--result-directory=x\udcff", "--result-directory: expected printable characters, got"),
    ("--gars krum,1 --gar-args m:1", "--gar-args: expected none with --gars"),
    ("--nb-workers x", "argument --nb-workers: invalid int value: 'x'"),
    ("--nb-decl-byz -1", "--nb-decl-byz: expected ≥ 0, got -1"),
    ("--nb-real-byz 11 --attack nan", "--nb-real-byz: expected 0 to 10"),
    ("--nb-real-byz 2", "--attack: expected one of alie, anticge"),
    ("--gar krumm", "unknown aggregation rule 'krumm', expected one of: aksel, autogm, average"),
    (
        "--gar krum --nb-workers 10",
        "--gar, --gar-args, --nb-workers, --nb-decl-byz: krum: expected f from 0 to 3 for n = 10, got 4",
    ),
    ("--gar bulyan", "bulyan: expected f from 0 to 2 for n = 11, got 4"),
    ("--gar krum --gar-args m:6", "krum: expected m from 1 to n - f - 2 = 5, got 6"),
    ("--gar krum --gar-args k:1", "--gar-args: krum has no argument 'k', expected: m"),
    ("--gar krum --gar-args f:1", "--gar-args: krum has no argument 'f'"),
    ("--gar krum --gar-args copies:2", "--gar-args: krum has no argument 'copies'"),
    ("--gar median --gar-args m:1", "--gar-args: median has no argument 'm', expected: no arguments"),
    ("--gar krum --gar-args m", "--gar-args: expected key:value pairs such as name:1, got 'm'"),
    ("--gars krum", '--gars: expected "name,frequency'),
    ("--gars krum,0", '--gars: expected "name,frequency'),
    ("--gars krum,1,{", '--gars: expected "name,frequency'),
    ("--gars krum,1;krumm,1", "unknown aggregation rule 'krumm'"),
    ("--gars krum,1;bulyan,1", "bulyan: expected f from 0 to 2"),
    ('--gars krum,1,{"k":1}', "--gars: krum has no argument 'k'"),
    ("--attack alies", "unknown attack 'alies', expected one of: alie"),
    ("--attack little --attack-args z:1", "--attack-args: little has no argument 'z', expected: factor, negative"),
    ("--attack little --attack-args factor:x", "--attack, --attack-args: little: expected a number as factor, got 'x'"),
    ("--attack alie --nb-real-byz 1 --nb-workers 10", "--attack, --attack-args: alie: no factor of at least 0 exists"),
    ("--attack alie --attack-args direction:up", "expected one of positive, negative, got 'up'"),
    ("--attack-args z:1", "--attack-args: expected --attack as well"),
    ("--attack little --nb-workers 2 --nb-decl-byz 1", "little: expected at least 2 honest workers"),
    ("--dataset x", "unknown dataset 'x', expected one of: cifar10"),
    ("--dataset-args x:1", "--dataset-args: digits has no argument 'x', expected: split-seed"),
    ("--batch-size 0", "--batch-size: expected ≥ 1, got 0"),
    ("--batch-size-test 0", "--batch-size-test: expected ≥ 1, got 0"),
    ("--batch-size-test-reps 0", "--batch-size-test-reps: expected ≥ 1 and ≤ 1e+06, got 0"),
    ("--model x", "unknown model 'x', expected one of: digits-mlp"),
    ("--model-args depth:3", "--model-args: digits-mlp has no argument 'depth', expected: hidden"),
    ("--train-mode test", "--train-mode: expected one of train, eval, got 'test'"),
    ("--init-multi x", "--init-multi: expected one of constant, dirac"),
    ("--init-multi constant", "--init-multi-args: constant needs the argument val:<value>"),
    (
        "--init-multi normal --init-multi-args sd:1",
        "--init-multi-args: normal has no argument 'sd', expected: mean, std",
    ),
    ("--init-mono-args val:1", "--init-mono-args: expected --init-mono as well"),
    ("--loss x", "--loss: expected one of bce"),
    ("--loss-args x:1", "nll has no argument 'x'"),
    ("--criterion x", "unknown criterion 'x', expected one of: sigmoid, top-k"),
    ("--criterion-args k:0", "top-k: expected k of at least 1, got 0"),
    ("--criterion-args j:0", "--criterion-args: top-k has no argument 'j', expected: k"),
    ("--l1-regularize -1", "--l1-regularize: expected ≥ 0, got -1.0"),
    ("--l2-regularize nan", "--l2-regularize: expected a finite number ≥ 0, got nan"),
    ("--learning-rate -0.1", "--learning-rate: expected ≥ 0, got -0.1"),
    ("--learning-rate inf", "--learning-rate: expected a finite number ≥ 0, got inf"),
    ("--learning-rate-decay nan", "--learning-rate-decay: expected a finite number, got nan"),
    ("--learning-rate-decay-delta 0", "--learning-rate-decay-delta: expected ≥ 1, got 0"),
    ("--learning-rate-schedule 0.1,2", "--learning-rate-schedule: expected rate"),
    ("--momentum 1", "--momentum: expected ≥ 0 and < 1, got 1.0"),
    ("--dampening 1.5", "--dampening: expected ≥ 0 and ≤ 1, got 1.5"),
    ("--momentum-at client", "--momentum-at: expected one of update, server, worker, got 'client'"),
    ("--weight-decay -1", "--weight-decay: expected ≥ 0, got -1.0"),
    ("--gradient-clip 0", "--gradient-clip: expected > 0, got 0.0"),
    ("--nb-local-steps 0", "--nb-local-steps: expected ≥ 1, got 0"),
    ("--nb-for-study-past 0", "--nb-for-study-past: expected ≥ 1, got 0"),
    ("--evaluation-delta -1", "--evaluation-delta: expected ≥ 0, got -1"),
    ("--checkpoint-delta -1", "--checkpoint-delta: expected ≥ 0, got -1"),
    ("--user-input-delta -1", "--user-input-delta: expected ≥ 0, got -1"),
    ("--threads 0", "--threads: expected ≥ 1 and ≤ 1024, got 0"),
    ("--device gpu", "--device: expected auto, cpu, cuda or cuda:<index>, got 'gpu'"),
    ("--device-gar auto", "--device-gar: expected same, cpu, cuda or cuda:<index>, got 'auto'"),
    ("--device cuda:x", "--device: expected auto, cpu, cuda"),
    ("--nonsense", "unrecognized arguments: --nonsense"),
    ("--nb-work 3", "unrecognized arguments: --nb-work"),
    ("--seed", "argument --seed: expected one argument"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_command_lines(line: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(line.split())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_help_lists_every_argument_a_user_may_give() -> None:
    lines = make_parser("x").format_help().splitlines()
    assert "    krum: m" in lines
    assert "    little: factor:1.5, negative:False" in lines
    assert "    alie: z:max, direction:negative" in lines
    assert "    empire-cnn: hidden, dropout:0.25" in lines
    assert not any(line.startswith("    median:") for line in lines)  # it has none
