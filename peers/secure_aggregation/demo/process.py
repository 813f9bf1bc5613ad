"""A process of the demo: its server, or a peer that trains.

Standard input stays open as long as the demo is there: whoever finds it closed ends at once. A peer is given its job
there, samples included, so that it touches no files but its keys. It says on standard output what it is doing, and on
standard error why it failed; its measurements go over the wire.
"""

import os
import struct
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgpack
import numpy as np

from peers.keys import read_certificate, read_identity
from peers.secure_aggregation.aggregator import PrivacyPreservingAggregator
from peers.secure_aggregation.demo.measurements import Measurement, Sender
from peers.secure_aggregation.wish import AggregationError
from tools.errors import UserError, one_line

HOST = "127.0.0.1"
SERVER_NAME, COLLECTOR_NAME = "server", "demo"
TRAINING, AGGREGATING = "training", "aggregating"
CONNECT_S = 120.0  # many processes that start at once take their time
WAIT_S = 1e6  # the demo sees when there is nothing left to wait for


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a peer is to do.

    Attributes:
        name: of its keys in the folder `keys`.
        train, test: inputs and targets.
    """

    name: str
    keys: str
    port: int
    server_port: int
    collector_port: int
    dataset: str
    num_outputs: int
    epochs: int
    seed: int
    no_cuda: bool
    train: Sequence[np.ndarray]
    test: Sequence[np.ndarray]

    @property
    def weight(self) -> int:
        """How many samples it trains on."""
        return len(self.train[0])

    def encode(self) -> bytes:
        """Return this as bytes, their number first."""
        data = msgpack.packb(vars(self), default=_from_array)
        return struct.pack(">Q", len(data)) + data


def read_job(stream: BinaryIO) -> Job:
    """Return the job that comes next."""
    (length,) = struct.unpack(">Q", stream.read(8))
    return Job(**msgpack.unpackb(stream.read(length), object_hook=_to_array, max_bin_len=length))


def main(argv: Sequence[str]) -> int:
    """Be a server, with the arguments of the server's command line, or a peer, and return the exit status."""
    role, *arguments = argv
    job = read_job(sys.stdin.buffer) if role == "peer" else None
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if job is None:
        from peers.__main__ import main as run

        return run([role, *arguments])
    try:
        run_peer(job)
    except (UserError, AggregationError) as error:
        print(one_line(error), file=sys.stderr)
        return 1
    return 0


def run_peer(job: Job) -> None:
    """Train, and aggregate after each epoch."""
    directory = Path(job.keys)
    identity, collector = read_identity(directory, job.name), read_certificate(directory, COLLECTOR_NAME)
    addresses = [f"tcp://{HOST}:{port}" for port in (job.port, job.server_port)]
    own = {"name": job.name, "server_name": SERVER_NAME, "wait_s": WAIT_S, "connect_s": CONNECT_S}

    import torch  # takes seconds, and all that may be wrong with keys has been told by now

    from peers.secure_aggregation.demo.training import Training

    torch.set_num_threads(1)
    training = Training(
        dataset=job.dataset,
        num_outputs=job.num_outputs,
        train=job.train,
        test=job.test,
        name=job.name,
        seed=job.seed,
        device="cuda" if torch.cuda.is_available() and not job.no_cuda else "cpu",
    )
    with (
        Sender(job.collector_port, identity, collector) as sender,
        PrivacyPreservingAggregator(*addresses, directory, **own) as aggregator,
    ):
        sent_bytes = 0
        for epoch in range(1, job.epochs + 1):
            _say(f"{TRAINING} {epoch}")
            began_s = time.perf_counter()
            training.epoch()
            training_s = time.perf_counter() - began_s
            before = training.accuracy()
            _say(f"{AGGREGATING} {epoch}")
            training.load(aggregator.aggregate(training.state(), job.weight))
            counts = aggregator.statistics
            measurement = Measurement(
                name=job.name,
                epoch=epoch,
                accuracy_before=before,
                accuracy_after=training.accuracy(),
                training_s=training_s,
                aggregation_s=aggregator.time_elapsed,
                sent_bytes=counts["sent bytes"] - sent_bytes,
            )
            sender.send(measurement)
            sent_bytes = counts["sent bytes"]
            print(f"epoch {epoch}:", ", ".join(f"{name} {count}" for name, count in counts.items()), file=sys.stderr)


def _say(state: str) -> None:
    print(state, flush=True)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _from_array(array: Any) -> dict[str, Any]:
    return {"dtype": array.dtype.str, "shape": array.shape, "data": array.tobytes()}


def _to_array(fields: dict[str, Any]) -> Any:
    if fields.keys() != {"dtype", "shape", "data"}:
        return fields
    return np.frombuffer(bytearray(fields["data"]), fields["dtype"]).reshape(fields["shape"])


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # torch would take half a second to take itself apart
