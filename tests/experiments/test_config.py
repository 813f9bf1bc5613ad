import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aggregators
from attacks import attacks
from attacks.alie import Direction
from experiments.config import SECTIONS, RunConfig, make_parser, parse
from experiments.datasets import datasets
from tools.errors import UserError

FLAGS = """--seed --device --device-gar --nb-steps --nb-workers --nb-for-study --nb-for-study-past --nb-decl-byz
--nb-real-byz --init-multi --init-multi-args --init-mono --init-mono-args --gar --gar-args --gars --attack --attack-args
--model --model-args --loss --loss-args --criterion --criterion-args --dataset --batch-size --batch-size-test
--batch-size-test-reps --no-transform --learning-rate --learning-rate-decay --learning-rate-decay-delta
--learning-rate-schedule --momentum --dampening --momentum-nesterov --momentum-at --weight-decay --l1-regularize
--l2-regularize --gradient-clip --nb-local-steps --load-checkpoint --result-directory --evaluation-delta
--checkpoint-delta --user-input-delta --dataset-args --data-directory --train-mode --test-augment --threads
--tensorboard"""

configs = st.builds(
    RunConfig,
    seed=st.integers(-5, 10**9),
    threads=st.none() | st.integers(1, 64),
    nb_steps=st.integers(-1, 10**6),
    nb_workers=st.integers(11, 60),
    nb_decl_byz=st.integers(0, 4),
    gar=st.sampled_from(["krum", "median", "average"]),
    attack=st.none() | st.sampled_from(["little", "empire", "nan"]),
    dataset=st.sampled_from(sorted(datasets)),
    batch_size=st.integers(1, 1_000),
    no_transform=st.booleans(),
    data_directory=st.text(min_size=1),
    result_directory=st.none() | st.text(),
    init_multi=st.none() | st.sampled_from(["xavier_uniform", "xavier_uniform_", "normal_"]),
    learning_rate=st.floats(0, 1e6),
    learning_rate_decay=st.floats(-1e9, 1e9),
    momentum=st.floats(0, 0.999),
    momentum_at=st.sampled_from(["update", "server", "worker"]),
    momentum_nesterov=st.booleans(),
    gradient_clip=st.none() | st.floats(1e-9, 1e9),
    model_args=st.just({}),
)


@given(configs)
def test_command_line_and_json_give_back_the_configuration(config: RunConfig) -> None:
    assert parse(config.to_argv()) == config
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.differences(parse(config.to_argv())) == []


def test_arguments_survive_the_command_line() -> None:
    config = RunConfig(
        nb_decl_byz=2,
        gar="krum",
        gar_args={"m": 3},
        attack="bulyan",
        attack_args={"target_idx": "all", "factor": -4.0, "negative": True},
        model="simples-full",
        model_args={"hidden": 7},
        loss="nll",
        loss_args={"weight": [1.0, 2.5]},
        criterion_args={"k": 2},
        dataset_args={"split_seed": 3},
        init_multi="xavier_uniform",
        init_multi_args={"gain": 2.0},
        gars='krum,1,{"m": 2};median,0.5',
    )
    assert parse(config.to_argv()) == config
    assert [(rule.name, arguments, share) for rule, arguments, share in config.rules()] == [
        ("krum", {"m": 2}, 1.0),
        ("median", {}, 0.5),
    ]


def test_every_flag_is_there_and_no_other() -> None:
    options = {flag for action in make_parser("x")._actions for flag in action.option_strings}
    assert options == {*FLAGS.split(), "-h", "--help"}
    assert {field.name for field in dataclasses.fields(RunConfig)} > SECTIONS.keys()


def test_help_lists_what_is_registered() -> None:
    text = " ".join(make_parser("x").format_help().split())
    for registry in (aggregators.gars, attacks, datasets):
        assert ", ".join(registry) in text


def test_defaults_of_a_bare_command() -> None:
    config = parse([])
    assert (config.dataset, config.model, config.loss, config.criterion) == ("digits", "digits-mlp", "nll", "top-k")
    assert (config.nb_workers, config.nb_decl_byz, config.nb_real_byz) == (11, 4, 0)
    assert (config.nb_steps, config.seed) == (300, 1)
    assert parse(["--attack", "alie"]).nb_real_byz == 4
    assert parse(["--attack", "alie", "--nb-decl-byz", "3"]).nb_real_byz == 3
    assert parse(["--attack", "alie", "--nb-real-byz", "0"]).nb_real_byz == 0
    phishing = parse(["--dataset", "phishing"])
    assert (phishing.model, phishing.loss, phishing.criterion) == ("simples-logit", "bce", "sigmoid")
    assert parse(["--dataset", "phishing", "--loss", "mse"]).loss == "mse"


def test_names() -> None:
    line = "--dataset mnist --gar krum --attack little --momentum-at worker --momentum-nesterov --learning-rate 0.5"
    assert parse(line.split()).name == "mnist-little-krum-f_4-lr_0.5-at_worker-nesterov-1"
    assert parse(["--gars", "krum,1;median,1", "--seed", "-1"]).name == "digits-mixture-n_11-lr_0.01-at_update-fresh"
    assert str(parse([]).folder()) == "results-data/digits-average-n_11-lr_0.01-at_update-1"
    assert str(parse(["--result-directory", "here/it"]).folder()) == "here/it"


def test_what_decides_numbers() -> None:
    config = RunConfig(device="cuda:0", attack="alie")
    same: dict[str, Any] = {
        "device": "cuda:1",
        "nb_steps": 7,
        "data_directory": "elsewhere",
        "result_directory": "there",
        "load_checkpoint": "file",
        "checkpoint_delta": 5,
        "user_input_delta": 5,
        "tensorboard": True,
    }
    assert config.differences(dataclasses.replace(config, **same)) == []
    for name, value in {"device": "cpu", "seed": 2, "threads": 3, "gar": "median", "evaluation_delta": 7}.items():
        assert config.differences(dataclasses.replace(config, **{name: value})) == [name]
    assert config.differences(dataclasses.replace(config, attack_args={"z": 1})) == ["attack_args"]


def test_enumerations_of_attacks() -> None:
    config = parse(["--attack", "alie", "--attack-args", "z:1.5", "direction:positive"])
    assert config.attack_args == {"z": 1.5, "direction": "positive"}
    assert config.attack_and_arguments()[1] == {"z": 1.5, "direction": Direction.POSITIVE}


BAD = [
    ("--nb-workers 0", "--nb-workers: expected ≥ 1, got 0"),
    ("--nb-workers x", "argument --nb-workers: invalid int value: 'x'"),
    ("--nb-decl-byz -1", "--nb-decl-byz: expected ≥ 0, got -1"),
    ("--nb-real-byz 11 --attack nan", "--nb-real-byz: expected 0 to 10"),
    ("--nb-real-byz 2", "--attack: expected one of alie, anticge"),
    ("--gar krumm", "unknown aggregation rule 'krumm', expected one of: aksel, average"),
    (
        "--gar krum --nb-workers 10",
        "--gar, --nb-workers, --nb-decl-byz: krum: expected f from 0 to 3 for n = 10, got 4",
    ),
    ("--gar bulyan", "bulyan: expected f from 0 to 2 for n = 11, got 4"),
    ("--gar krum --gar-args m:6", "krum: expected m from 1 to n - f - 2 = 5, got 6"),
    ("--gar krum --gar-args k:1", "--gar-args: krum has no argument 'k', expected: m"),
    ("--gar krum --gar-args f:1", "--gar-args: krum has no argument 'f'"),
    ("--gar krum --gar-args copies:2", "--gar-args: krum has no argument 'copies'"),
    ("--gar median --gar-args m:1", "--gar-args: median has no argument 'm', expected: no arguments"),
    ("--gar krum --gar-args m", "--gar-args: expected key:value pairs such as m:1, got 'm'"),
    ("--gars krum", '--gars: expected "name,frequency'),
    ("--gars krum,0", '--gars: expected "name,frequency'),
    ("--gars krum,1,{", '--gars: expected "name,frequency'),
    ("--gars krum,1;krumm,1", "unknown aggregation rule 'krumm'"),
    ("--gars krum,1;bulyan,1", "bulyan: expected f from 0 to 2"),
    ('--gars krum,1,{"k":1}', "--gars: krum has no argument 'k'"),
    ("--attack alies", "unknown attack 'alies', expected one of: alie"),
    ("--attack little --attack-args z:1", "--attack-args: little has no argument 'z', expected: factor, negative"),
    ("--attack little --attack-args factor:x", "--attack: little: expected a number as factor, got 'x'"),
    ("--attack alie --nb-real-byz 1 --nb-workers 10", "--attack: alie: no factor of at least 0 exists"),
    ("--attack alie --attack-args direction:up", "expected one of positive, negative, got 'up'"),
    ("--attack-args z:1", "--attack-args: expected --attack as well"),
    ("--attack little --nb-workers 2 --nb-decl-byz 1", "little: expected at least 2 honest workers"),
    ("--dataset x", "unknown dataset 'x', expected one of: cifar10"),
    ("--dataset-args x:1", "--dataset-args: digits has no argument 'x', expected: split_seed"),
    ("--batch-size 0", "--batch-size: expected ≥ 1, got 0"),
    ("--batch-size-test 0", "--batch-size-test: expected ≥ 1, got 0"),
    ("--batch-size-test-reps 0", "--batch-size-test-reps: expected ≥ 1, got 0"),
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
    ("--l2-regularize nan", "--l2-regularize: expected ≥ 0, got nan"),
    ("--learning-rate -0.1", "--learning-rate: expected ≥ 0, got -0.1"),
    ("--learning-rate inf", "--learning-rate: expected ≥ 0, got inf"),
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
    ("--threads 0", "--threads: expected ≥ 1, got 0"),
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


def test_wrong_types_in_python() -> None:
    with pytest.raises(UserError, match="--nb-workers: expected int, got '11'"):
        RunConfig(nb_workers="11")
    with pytest.raises(UserError, match="--seed: expected int, got True"):
        RunConfig(seed=True)
    with pytest.raises(UserError, match="got also colour"):
        RunConfig.from_dict({"colour": "red"})
    assert RunConfig(momentum=0).momentum == 0
