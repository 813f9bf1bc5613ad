import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from peers.keys import create_several
from peers.secure_aggregation.demo.process import Job, read_job

ROOT = Path(__file__).resolve().parent.parent.parent.parent.parent


@contextmanager
def start(*arguments: str) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-m", "peers.secure_aggregation.demo.process", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    generator = np.random.default_rng(1)
    inputs = [generator.random((count, 1, 8, 8), dtype=np.float32) for count in (5, 3)]
    return Job(
        name="peer-1",
        keys=str(tmp_path / "keys"),
        port=1,
        server_port=2,
        collector_port=3,
        dataset="digits",
        num_outputs=10,
        epochs=2,
        seed=1,
        no_cuda=True,
        train=[inputs[0], np.arange(5)],
        test=[inputs[1], np.arange(3)],
    )


def test_jobs_are_read_as_they_were_written(job: Job) -> None:
    data = job.encode()
    stream = io.BytesIO(data + b"more")
    read = read_job(stream)
    assert stream.read() == b"more"
    assert job.weight == read.weight == 5
    for part in ("train", "test"):
        for mine, theirs in zip(getattr(job, part), getattr(read, part), strict=True):
            np.testing.assert_array_equal(mine, theirs, strict=True)
            assert theirs.flags.writeable
    plain = [{k: v for k, v in vars(each).items() if k not in ("train", "test")} for each in (job, read)]
    assert plain[0] == plain[1]


def test_peer_says_in_one_line_why_it_fails(job: Job) -> None:
    with start("peer") as peer:
        peer.stdin.write(job.encode())
        peer.stdin.flush()
        assert peer.wait(60) == 1
        assert peer.stdout.read() == b""
        complaint = peer.stderr.read().decode()
    assert complaint == (
        f"keys: expected a folder of keys, got {job.keys}; "
        f"run: python3 -m peers keys create peer-1 --directory {job.keys}\n"
    )


def test_server_has_the_command_line_of_the_server() -> None:
    with start("server", "--port", "0", "--target-size", "3") as server:
        assert server.wait(60) == 2
        assert server.stderr.read().startswith(b"peers: --port: expected a whole number from 1 to 65535, got 0")


def test_processes_end_with_the_demo(tmp_path: Path) -> None:
    create_several(["server"], tmp_path / "keys")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    options = ["--port", port, "--host", "127.0.0.1", "--target-size", "3", "--keys", str(tmp_path / "keys")]
    with start("server", *options) as server:
        while b"permitted" not in server.stdout.readline():
            pass
        server.stdin.close()
        assert server.wait(60) == 1
