import dataclasses
import math
import socket
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
import zmq

from peers.keys import Identity, create_several
from peers.secure_aggregation.demo.measurements import Collector, Measurement, Sender, decode, encode
from peers.secure_aggregation.messages import ProtocolError
from tools.errors import UserError

MEASUREMENT = Measurement("peer-1", 3, 0.25, 0.5, 1.5, 0.125, 4_000)
PATIENCE_MS = 10_000


@pytest.fixture
def identities(tmp_path: Path) -> list[Identity]:
    return create_several(["demo", "peer-1", "peer-2", "stranger"], tmp_path / "keys")


@pytest.fixture
def collector(identities: list[Identity]) -> Iterator[Collector]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Collector(port, identities[0], {each.key: each.certificate.name for each in identities[1:3]}) as collector:
        yield collector


def test_bytes_of_a_row() -> None:
    data = encode(MEASUREMENT)
    assert data.hex(" ") == (
        "97 a6 70 65 65 72 2d 31 03 cb 3f d0 00 00 00 00 00 00 cb 3f e0 00 00 00 00 00 00 "
        "cb 3f f8 00 00 00 00 00 00 cb 3f c0 00 00 00 00 00 00 cd 0f a0"
    )
    assert decode(data) == MEASUREMENT


@pytest.mark.parametrize(
    ("field", "bounds"),
    {
        "accuracy_before": (0.0, 1.0),
        "accuracy_after": (0.0, 1.0),
        "training_s": (0.0, 1e9),
        "aggregation_s": (0.0, 1e9),
        "sent_bytes": (0, 2**63 - 1),
        "epoch": (0, 2**31 - 1),
    }.items(),
)
def test_bounds(field: str, bounds: tuple[float, float]) -> None:
    for bound in bounds:
        good = dataclasses.replace(MEASUREMENT, **{field: bound})
        assert decode(encode(good)) == good
    if isinstance(bounds[0], float):
        beyond = [-1e-300, math.nextafter(bounds[1], math.inf), math.nan, math.inf, 1, True, None, "1"]
    else:
        beyond = [-1, bounds[1] + 1, 1.0, True, None, "1"]
    for bad in beyond:
        with pytest.raises(ProtocolError, match="wrong schema"):
            decode(encode(dataclasses.replace(MEASUREMENT, **{field: bad})))


def test_no_rows() -> None:
    row = list(dataclasses.astuple(MEASUREMENT))
    for value in (row[:-1], [*row, 1], {}, 1, [["peer-1"], *row[1:]], ["x" * 65, *row[1:]]):
        with pytest.raises(ProtocolError, match="wrong schema"):
            decode(msgpack.packb(value))
    for data in (b"", b"\xc1", encode(MEASUREMENT)[:-1], encode(MEASUREMENT) + b"\0", bytes(257)):
        with pytest.raises(ProtocolError):
            decode(data)


def test_measurements_reach_the_collector(identities: list[Identity], collector: Collector) -> None:
    for peer in identities[1:3]:
        sent = [dataclasses.replace(MEASUREMENT, name=peer.certificate.name, epoch=epoch) for epoch in (1, 2, 3)]
        with Sender(collector.port, peer, identities[0].certificate) as sender:
            for measurement in sent:
                sender.send(measurement)
        received: list[Measurement] = []
        while len(received) < 3:
            received += collector.receive(PATIENCE_MS)
        assert received == sent
    assert collector.receive() == []
    assert collector.dropped == 0


def test_nobody_sends_under_the_name_of_another(identities: list[Identity], collector: Collector) -> None:
    with Sender(collector.port, identities[2], identities[0].certificate) as sender:
        sender.send(MEASUREMENT)
        sender.send(dataclasses.replace(MEASUREMENT, name="peer-3"))
        sender.send(dataclasses.replace(MEASUREMENT, name="peer-2"))
    while not (received := collector.receive(PATIENCE_MS)):
        pass
    assert [measurement.name for measurement in received] == ["peer-2"]
    assert collector.dropped == 2


def test_strangers_are_not_heard(identities: list[Identity], collector: Collector) -> None:
    stranger = Sender(collector.port, identities[3], identities[0].certificate)
    refusals = stranger._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    stranger.send(MEASUREMENT)
    assert refusals.poll(PATIENCE_MS)
    assert collector.receive() == []
    assert collector.dropped == 0
    stranger._socket.disable_monitor()
    stranger._context.destroy(linger=0)


def test_frames_that_are_no_rows(identities: list[Identity], collector: Collector) -> None:
    with Sender(collector.port, identities[1], identities[0].certificate) as sender:
        sender._socket.send(b"")
        sender._socket.send_multipart([b"more", encode(MEASUREMENT)])
        sender.send(MEASUREMENT)
    while not (received := collector.receive(PATIENCE_MS)):
        pass
    assert received == [MEASUREMENT]
    assert collector.dropped == 2


def test_port_that_is_taken(identities: list[Identity], collector: Collector) -> None:
    message = f"^port {collector.port}: cannot listen there: Address already in use.*; choose another$"
    with pytest.raises(UserError, match=message), Collector(collector.port, identities[0], {}):
        pass
