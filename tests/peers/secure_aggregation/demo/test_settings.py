import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import datasets
from peers.secure_aggregation.demo.settings import DemoSettings
from tools.errors import UserError

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"total": 0}, "--total: expected at least 1, got 0"),
    ({"total": 2}, "--total: expected at least 3 (--server-group-size), got 2"),
    ({"total": 5, "server_target_size": 6}, "--total: expected at least 6 (--server-target-size), as no round would "),
    ({"epochs": 0}, "--epochs: expected at least 1, got 0"),
    ({"data_skip": 0}, "--data-skip: expected at least 1, got 0"),
    ({"server_target_size": 2}, "--server-target-size: expected at least 3 (--server-group-size), got 2"),
    ({"server_group_size": 2}, "--server-group-size: expected a whole number of at least 3, as in a pair each knows "),
    ({"server_group_size": 7}, "--total: expected at least 7 (--server-group-size), got 6"),
    ({"server_num_actors": 1}, "--server-num-actors: expected a whole number of at least 2, as one alone would see "),
    ({"server_num_actors": 3}, "--server-num-actors: expected fewer than group-size = 3, got 3"),
    ({"timeout": 0.9}, "--timeout: expected 1 to 1e+09 seconds, as what is lost on the way is sent again after "),
    ({"server_port": 0}, "--server-port: expected 1 to 65535, got 0"),
    ({"server_port": 65_536}, "--server-port: expected 1 to 65535, got 65536"),
    ({"benchmark_server_port": 0}, "--benchmark-server-port: expected 1 to 65535, got 0"),
    ({"client_start_port": 0}, "--client-start-port: expected 1 to 65535, got 0"),
    (
        {"client_start_port": 65_531},
        "--client-start-port: expected ports up to 65535, got 65531 to 65536 for 6 peers; ",
    ),
    ({"client_port_dif": 0}, "--client-port-dif: expected at least 1, got 0"),
    ({"client_port_dif": 11_908}, "--client-start-port: expected ports up to 65535, got 6000 to 65540 for 6 peers; "),
    ({"server_port": 6005}, "--server-port: expected none of the peers' ports, 6000 to 6005, got 6005"),
    ({"benchmark_server_port": 6000}, "--benchmark-server-port: expected none of the peers' ports, 6000 to 6005, got "),
    ({"benchmark_server_port": 5555}, "--benchmark-server-port: expected another port than --server-port, got 5555"),
]
RIGHT: list[dict[str, Any]] = [
    {"total": 3},
    {"total": 6, "server_target_size": 6},
    {"total": 7, "server_target_size": 6},
    {"epochs": 1},
    {"timeout": 1.0},
    {"server_group_size": 6, "server_num_actors": 5},
    {"server_port": 1, "benchmark_server_port": 65_535},
    {"client_start_port": 65_530},
    {"client_start_port": 1, "client_port_dif": 13_106},
    {"server_port": 6006, "benchmark_server_port": 5999},
    {"client_port_dif": 2, "server_port": 6001},
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_wrong_numbers(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        DemoSettings(**settings)


@pytest.mark.parametrize("settings", RIGHT)
def test_right_numbers(settings: dict[str, Any]) -> None:
    DemoSettings(**settings)


def test_all_take_part_by_default() -> None:
    assert DemoSettings(total=8).target_size == 8
    assert DemoSettings(total=8, server_target_size=6).target_size == 6


def test_ports_of_peers() -> None:
    settings = DemoSettings(total=3, client_start_port=7000, client_port_dif=10)
    assert settings.ports == {"peer-1": 7000, "peer-2": 7010, "peer-3": 7020}


@pytest.mark.parametrize("field", ["server_port", "benchmark_server_port", "client_start_port"])
def test_port_that_is_taken(field: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {field: port - 20 if field == "client_start_port" else port}
        settings = DemoSettings(**ports, client_port_dif=10)
        flag = "--" + field.replace("_", "-")
        with pytest.raises(
            UserError, match=f"^{flag}: cannot listen on port {port}: Address already in use; stop what"
        ):
            settings.check_free()


def test_everybody_gets_samples_of_their_own(tmp_path: Path) -> None:
    settings = DemoSettings(total=5, data_skip=3, epochs=7, seed=9, no_cuda=True)
    data = datasets.load("digits", tmp_path)
    jobs = settings.make_jobs(tmp_path / "keys")
    assert [(job.name, job.port) for job in jobs] == list(settings.ports.items())
    assert {(job.keys, job.epochs, job.seed, job.no_cuda, job.num_outputs) for job in jobs} == {
        (str(tmp_path / "keys"), 7, 9, True, 10)
    }
    assert [job.weight for job in jobs] == [96, 96, 96, 96, 95]
    for i, job in enumerate(jobs):
        for own, values in zip(job.train, (data.train.inputs, data.train.targets), strict=True):
            np.testing.assert_array_equal(own, values[::3][i::5].numpy())
        for own, values in zip(job.test, (data.test.inputs, data.test.targets), strict=True):
            np.testing.assert_array_equal(own, values[::3].numpy())


@pytest.mark.parametrize(("dataset", "skip"), [("digits", 1), ("mnist", 25), ("phishing", 25)])
def test_how_many_samples_are_used_by_default(dataset: str, skip: int) -> None:
    assert DemoSettings(dataset=dataset).skip == skip
    assert DemoSettings(dataset=dataset, data_skip=7).skip == 7


def test_too_few_samples(tmp_path: Path) -> None:
    assert [job.weight for job in DemoSettings(data_skip=287).make_jobs(tmp_path)] == [1] * 6
    with pytest.raises(UserError) as caught:
        DemoSettings(data_skip=288).make_jobs(tmp_path)
    assert str(caught.value) == (
        "--data-skip: expected at least a sample for each of 6 peers, got 5 of 1437 samples with 288; lower it, or "
        "--total"
    )


def test_unknown_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^unknown dataset 'nist', expected one of: "):
        DemoSettings(dataset="nist").make_jobs(tmp_path)


def test_dataset_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(UserError, match=r"^--data-directory: expected a folder, got the file "):
        DemoSettings(dataset="mnist", data_directory=str(tmp_path / "data")).make_jobs(tmp_path)
