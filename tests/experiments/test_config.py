import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attacks.alie import Direction
from experiments.command_line import parse
from experiments.config import RunConfig
from experiments.datasets import datasets
from studies.grouping import UNDECIDING
from tools.errors import UserError

PRINTABLE = "ab C_é日"  # argparse drops a value of two hyphens

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
    data_directory=st.text(PRINTABLE),
    result_directory=st.none() | st.text(PRINTABLE, min_size=1),
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
    assert [(defence.rule.name, defence.arguments, defence.frequency) for defence in config.defences()] == [
        ("krum", {"m": 2}, 1.0),
        ("median", {}, 0.5),
    ]


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


def test_wrong_types_in_python() -> None:
    with pytest.raises(UserError, match="--nb-workers: expected int, got '11'"):
        RunConfig(nb_workers="11")
    with pytest.raises(UserError, match="--seed: expected int, got True"):
        RunConfig(seed=True)
    with pytest.raises(UserError, match="got also colour"):
        RunConfig.from_dict({"colour": "red"})
    assert RunConfig(momentum=0).momentum == 0


def test_studies_know_which_fields_decide_nothing() -> None:
    undeciding = {field.name for field in dataclasses.fields(RunConfig) if not field.metadata["decides"]}
    assert undeciding == UNDECIDING - {"nb_honests"}  # which the ICLR 2021 code writes
