import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from zmq.utils import z85

from peers.__main__ import main
from peers.keys import create_several, read_certificates
from peers.secure_aggregation import PrivacyPreservingAggregator

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def run(capsys: pytest.CaptureFixture, *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    return status, *capsys.readouterr()


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "peers", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )


def test_keys_are_made_and_listed(capsys: pytest.CaptureFixture, folder: Path) -> None:
    assert run(capsys, "keys", "create", "server", "bob") == (
        0,
        "server: keep keys/server.key_secret to yourself; copy keys/server.key to all who may talk to server\n"
        "bob: keep keys/bob.key_secret to yourself; copy keys/bob.key to all who may talk to bob\n",
        "",
    )
    (folder / "keys" / "bob.key_secret").unlink()
    names = {each.name: z85.encode(each.key).decode() for each in read_certificates(folder / "keys").values()}
    assert run(capsys, "keys", "list") == (
        0,
        f"bob     {names['bob']}\nserver  {names['server']}  secret keys are here\n",
        "",
    )


def test_keys_in_another_folder(capsys: pytest.CaptureFixture, folder: Path) -> None:
    status, out, _ = run(capsys, "keys", "create", "alice", "--directory", "a/b")
    assert (status, out.split(";")[0]) == (0, "alice: keep a/b/alice.key_secret to yourself")
    assert (folder / "a" / "b" / "alice.key").is_file()
    (folder / "empty").mkdir()
    assert run(capsys, "keys", "list", "--directory", "empty") == (0, "no certificates in empty\n", "")


COMBINE = ["server", "--target-size", "30", "--combine"]
ERRORS = {
    "": "the following arguments are required: COMMAND; python3 -m peers --help lists all flags",
    "serve": "argument COMMAND: invalid choice: 'serve'",
    "keys create": "the following arguments are required: NAME; python3 -m peers keys create --help lists all flags",
    "keys create alice": "keys: expected no keys/alice.key_secret yet, got one; choose another name, or move it away",
    "keys create bob.key": "keys: expected a name of letters, digits",
    "keys list --directory nowhere": "keys: cannot look into nowhere: No such file or directory; name a ",
    "server": "the following arguments are required: --target-size; python3 -m peers server --help lists all flags",
    "server --target 6": "the following arguments are required: --target-size",
    "server --target-size 2": "--target-size: expected a whole number of at least --group-size = 3, got 2",
    "server --target-size 6 --group-size 2": "--group-size: expected a whole number of at least 3, as in a pair",
    "server --target-size 6 --num-actors 1": "--num-actors: expected a whole number of at least 2, as one alone",
    "server --target-size 6 --num-actors 3": "--num-actors: expected fewer than --group-size = 3, got 3",
    "server --target-size 6 --min-size 2": "--min-size: expected 3 (--group-size) to 6 (--target-size), got 2",
    "server --target-size 6 --min-size 7": "--min-size: expected 3 (--group-size) to 6 (--target-size), got 7",
    "server --target-size 6 --timeout 0": "--timeout: expected 1 to 1e+09 seconds, as what is lost ",
    "server --target-size 6 --port 65536": "--port: expected a whole number from 1 to 65535, got 65536",
    "server --target-size 6 --port five": "argument --port: invalid int value: 'five'",
    "server --target-size 6 --digits 19": "--digits: expected a whole number from 0 to 18, got 19",
    "server --target-size 6 --clip nan": "--clip: expected a ",
    "server --target-size 6 --max-weight 0": "--max-weight: expected a whole number ",
    "server --target-size 6 --profile jax": "argument --profile: invalid choice: 'jax'",
    "server --target-size 6 --digits 12 --clip 1e8": "expected n · --max-weight · --clip · 10^digits below 2^63",
    "server --target-size 6 --combine krumm": "--combine: unknown aggregation rule 'krumm', expected one of: ",
    "server --target-size 6 --combine krum": "--combine: for 2 groups: krum: expected ",
    "server --target-size 6 --combine-f 1": "--combine-f: expected --combine as well",
    "server --target-size 6 --combine-args m:1": "--combine-args: expected --combine as well",
    "server --target-size 30 --combine krum --combine-args m": "--combine-args: expected key:value pairs such as",
    "server --target-size 30 --combine krum --combine-args k:1": "--combine: krum has no argument 'k', expected: m",
    "server --target-size 6 --keys nowhere": "keys: expected a folder of keys, got nowhere; run: python3 -m peers keys "
    "create server --directory nowhere",
    "server --target-size 6 --keys clip": "keys: expected a folder of keys, got clip; run: ",
    "server --target-size 6": "keys: expected the secret keys of server in keys, got none; run: python3 -m peers keys "
    "create server --directory keys",
    "demo --total": "argument --total: expected one argument; python3 -m peers demo --help lists all flags",
    "demo --total 0": "--total: expected at least 1, got 0",
}


@pytest.mark.parametrize(("command", "message"), ERRORS.items(), ids=ERRORS)
def test_errors_are_one_line_with_status_2(command: str, message: str, capsys: pytest.CaptureFixture) -> None:
    create_several(["alice"], Path("keys"))
    status, out, err = run(capsys, *command.split())
    assert (status, out) == (2, "")
    assert err.startswith(f"peers: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("permissions", [0o701, 0o704])
def test_folder_of_keys_that_is_open_to_others(permissions: int, capsys: pytest.CaptureFixture, folder: Path) -> None:
    create_several(["server"], folder / "keys")
    (folder / "keys").chmod(permissions)
    status, _, err = run(capsys, "server", "--target-size", "6")
    assert (status, err) == (2, "peers: keys: expected keys to be closed to others; run: chmod 700 keys\n")


def test_port_that_is_taken(capsys: pytest.CaptureFixture, folder: Path) -> None:
    create_several(["server"], folder / "keys")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, out, err = run(capsys, "server", "--target-size", "6", "--host", "127.0.0.1", "--port", port)
    assert (status, out) == (2, "")
    assert err == f"peers: tcp://127.0.0.1:{port}: the port is taken; stop what uses it, or choose another\n"


def test_host_that_nobody_knows(capsys: pytest.CaptureFixture, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    create_several(["server"], folder / "keys")
    status, _, err = run(capsys, "server", "--target-size", "6", "--host", "nowhere")
    assert status == 2
    assert err.startswith("peers: --host: cannot find nowhere: Name or service not known; ")


@pytest.mark.parametrize("command", [[], ["keys"], ["keys", "create"], ["keys", "list"], ["server"], ["demo"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {' '.join(['python3 -m peers', *command])} ")


def test_server_as_a_process(folder: Path, port: int) -> None:
    create_several(["server", *"abc"], folder / "keys")
    settings = ["--host", "127.0.0.1", "--profile", "numpy", "--digits", "3", "--max-weight", "2"]
    server = start("server", "--port", str(port), "--target-size", "3", *settings)
    means: dict[str, np.ndarray] = {}

    def take_part(name: str, weight: int) -> None:
        own, there = (f"tcp://127.0.0.1:{number}" for number in (free[name], port))
        with PrivacyPreservingAggregator(own, there, "keys", name=name, wait_s=60) as aggregator:
            means[name] = aggregator.aggregate({"x": np.full(2, float(weight))}, weight)["x"]

    probes = {name: socket.create_server(("127.0.0.1", 0)) for name in "abc"}
    free = {name: probe.getsockname()[1] for name, probe in probes.items()}
    for probe in probes.values():
        probe.close()
    try:
        introduction = [server.stdout.readline()]
        while "permitted" not in introduction[-1]:
            introduction.append(server.stdout.readline())
        weights = {"a": 1, "b": 2, "c": 2}
        threads = [threading.Thread(target=take_part, args=each) for each in weights.items()]
        for thread in threads:
            thread.start()
        for line in server.stdout:
            if "round 1 complete" in line:
                break
        for thread in threads:
            thread.join()
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=60)
    finally:
        server.kill()
    words = " ".join(re.sub("[├└│─]", "", line).strip() for line in introduction)
    assert f"host 127.0.0.1 port {port} " in words
    assert "target-size 3 group-size 3 num-actors 2 min-size 3 timeout 30.0 models profile numpy digits 3 " in words
    assert words.endswith("permitted 3: a, b, c")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  round 1 complete\n", line)
    assert {name: mean.tolist() for name, mean in means.items()} == {name: [1.8, 1.8] for name in "abc"}
    assert server.returncode == 130
    assert err == "peers: interrupted, rounds complete: 1; peers wait for the server's return\n"


def test_server_ends_when_it_is_told_to(folder: Path, port: int) -> None:
    create_several(["me"], folder / "keys")
    server = start("server", "--name", "me", "--port", str(port), "--target-size", "3", "--host", "127.0.0.1")
    try:
        for line in server.stdout:
            if "permitted" in line:
                break
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=60)
    finally:
        server.kill()
    assert server.returncode == 143
    nobody, interrupted = err.splitlines()
    assert nobody == "peers: nobody may connect yet: copy the certificates of peers, NAME.key, to keys"
    assert interrupted == "peers: interrupted, rounds complete: 0; peers wait for the server's return"
