import contextlib
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from zmq.utils import z85

from peers.keys import Identity, create_keys, read_identity
from peers.secure_aggregation import (
    AggregationError,
    AverageAdditiveSharingModelProfile,
    PrivacyPreservingAggregator,
    SchedulingServer,
)
from peers.secure_aggregation.messages import NO_ROUND, Header, Kind, encode_body, encode_header
from peers.secure_aggregation.node import endpoint_of, split_address
from tools.errors import UserError

PEERS = 4
DEADLINE_S = 30.0


def free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports


def wait_for(condition: Callable[[], Any]) -> None:
    """Look again and again, for a limited time: what is awaited happens in other threads."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.01)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys") / "keys"
    for name in ("server", *(f"peer-{number}" for number in range(PEERS))):
        create_keys(name, directory)
    return directory


@pytest.fixture
def server(keys: Path) -> Iterator[SchedulingServer]:
    (port,) = free_ports(1)
    profile = AverageAdditiveSharingModelProfile(6, max_weight=10)
    with SchedulingServer(port, PEERS, 3, 2, profile, keys=keys, host="127.0.0.1", timeout_s=5) as server:
        yield server


def aggregator(
    server: SchedulingServer, keys: Path, number: int, port: int, **more: Any
) -> PrivacyPreservingAggregator:
    address = f"tcp://127.0.0.1:{server.port}"
    more = {"name": f"peer-{number}", "wait_s": DEADLINE_S, "connect_s": DEADLINE_S} | more
    return PrivacyPreservingAggregator(f"tcp://127.0.0.1:{port}", address, keys, **more)


def together(tasks: list[Callable[[], Any]]) -> list[Any]:
    """Return what tasks return, each in a thread; or the error that one raised."""
    results: list[Any] = [None] * len(tasks)

    def run(index: int) -> None:
        try:
            results[index] = tasks[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
    return results


def model(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {"w": rng.standard_normal((3, 5)).astype(np.float32), "b": rng.standard_normal(2), "n": np.array(number)}


def test_real_sockets_average_with_weights_again_and_again(server: SchedulingServer, keys: Path) -> None:
    ports = free_ports(PEERS)

    def work(number: int) -> list[dict[str, np.ndarray]]:
        with aggregator(server, keys, number, ports[number]) as peer:
            assert peer.time_elapsed is None
            assert peer.num_peers is None
            means = [peer.aggregate(model(number)), peer.aggregate(model(number), weight=number + 1)]
            assert peer.time_elapsed > 0
            assert peer.num_peers == PEERS
            assert peer.statistics["sent bytes"] > 0
            return means

    rounds = zip(*together([lambda i=i: work(i) for i in range(PEERS)]), strict=True)
    for weights, means in zip(([1] * PEERS, [1, 2, 3, 4]), rounds, strict=True):
        for name in ("w", "b"):
            expected = sum(w * model(i)[name].astype(np.float64) for i, w in enumerate(weights)) / sum(weights)
            assert means[0][name] == pytest.approx(expected, abs=1.1e-6)
            assert all(mean[name].tobytes() == means[0][name].tobytes() for mean in means)
        assert [mean["n"] for mean in means] == [2] * PEERS  # 1.5 and 2.0
    assert server.statistics["rounds"] == 2


@contextlib.contextmanager
def connected(port: int, server_key: bytes, identity: Identity | None) -> Iterator[zmq.Socket]:
    context = zmq.Context()
    intruder = context.socket(zmq.DEALER)
    intruder.linger = 0
    if identity is not None:
        intruder.curve_serverkey = z85.encode(server_key)
        intruder.curve_publickey, intruder.curve_secretkey = z85.encode(identity.key), z85.encode(identity.secret)
    intruder.connect(f"tcp://127.0.0.1:{port}")
    try:
        yield intruder
    finally:
        context.destroy(linger=0)


def hello(identity: Identity, session: int = 5) -> list[bytes]:
    body = encode_body(Kind.HELLO, [7, "tcp://127.0.0.1:9"])
    header = Header(Kind.HELLO, NO_ROUND, 0, 0, identity.key, session, 0, 0, 1, len(body))
    return [encode_header(header), body]


@pytest.mark.parametrize("name", ["stranger", "peer-0"])
def test_outsiders_never_get_a_byte_through(server: SchedulingServer, keys: Path, tmp_path: Path, name: str) -> None:
    """Somebody without a permitted key; and one who calls himself by a permitted name, which says nothing."""
    intruding = create_keys(name, tmp_path / "own")
    with connected(server.port, read_identity(keys, "server").key, intruding) as intruder:
        intruder.send_multipart(hello(intruding))
        wait_for(lambda: server.statistics["refused"])
        assert server.scheduler.received_bytes == 0
        assert not server.scheduler.known
        assert not intruder.poll(0)


def test_a_permitted_public_key_is_of_no_use_without_its_secret(
    server: SchedulingServer, keys: Path, tmp_path: Path
) -> None:
    own, victim = create_keys("own", tmp_path / "own"), read_identity(keys, "peer-0")
    pretended = Identity(victim.certificate, own.secret)
    with connected(server.port, read_identity(keys, "server").key, pretended) as intruder:
        monitor = intruder.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        intruder.send_multipart(hello(victim))
        assert not monitor.poll(1_000)
        assert server.scheduler.received_bytes == 0


def test_an_outsider_without_encryption(server: SchedulingServer, keys: Path) -> None:
    with connected(server.port, b"", None) as intruder:
        intruder.send_multipart(hello(read_identity(keys, "peer-0")))
        assert not intruder.poll(500)
        assert server.scheduler.received_bytes == 0


def test_raw_bytes_without_end_are_cut_off(server: SchedulingServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.settimeout(DEADLINE_S)
        sent = 0
        with contextlib.suppress(OSError):  # broken pipe or reset, as the system likes
            while sent < 1 << 31:
                sent += raw.send(bytes(1 << 20))
    assert sent < 1 << 26  # what the system's buffers take
    assert server.scheduler.received_bytes == 0


def test_a_permitted_peer_cannot_send_more_than_a_chunk(server: SchedulingServer, keys: Path) -> None:
    peer = read_identity(keys, "peer-1")
    with connected(server.port, read_identity(keys, "server").key, peer) as intruder:
        intruder.send_multipart(hello(peer))
        wait_for(lambda: server.scheduler.known)
        before = server.scheduler.received_bytes
        monitor = intruder.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        intruder.send_multipart(
            [encode_header(Header(Kind.BEAT, NO_ROUND, 0, 0, peer.key, 5, 1, 0, 3, 3 << 20)), bytes(3 << 20)]
        )
        assert monitor.poll(DEADLINE_S * 1000)
        assert server.scheduler.received_bytes == before


def test_what_is_said_twice_or_in_another_s_name_is_dropped_and_counted(server: SchedulingServer, keys: Path) -> None:
    peer, other = read_identity(keys, "peer-1"), read_identity(keys, "peer-2")
    with connected(server.port, read_identity(keys, "server").key, peer) as replaying:
        for frames in (
            hello(peer),
            hello(peer),
            hello(other),
            [b"\x00", b""],
            [b"one"],
            hello(peer, session=6),
            hello(peer),
        ):
            replaying.send_multipart(frames)
        wait_for(lambda: server.statistics.get("dropped: wrong session"))
        dropped = {
            key.removeprefix("dropped: "): n for key, n in server.statistics.items() if key.startswith("dropped")
        }
        assert dropped == {
            "repeated": 1,
            "wrong sender": 1,
            "wrong schema": 1,
            "wrong number of frames": 1,
            "wrong session": 1,  # that of an earlier hello
        }


def test_strangers_do_not_reach_peers_either(server: SchedulingServer, keys: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with aggregator(server, keys, 0, port) as peer:
        intruding = create_keys("stranger", tmp_path / "own")
        with connected(port, read_identity(keys, "peer-0").key, intruding) as intruder:
            intruder.send_multipart(hello(intruding))
            wait_for(lambda: peer.statistics["refused"])


def test_a_certificate_that_comes_later_is_seen(
    server: SchedulingServer, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peers.secure_aggregation.node.REVIVAL_S", 0.3)
    own, (port,) = tmp_path / "own", free_ports(1)
    create_keys("late", own)
    shutil.copy(keys / "server.key", own)
    peer = aggregator(server, own, 0, port, name="late")

    def permit() -> None:
        wait_for(lambda: server.statistics["refused"])
        shutil.copy(own / "late.key", keys)

    try:
        assert together([peer.start, permit]) == [None, None]
    finally:
        (keys / "late.key").unlink(missing_ok=True)
        peer.stop()


def test_peers_come_back_to_a_server_that_was_away(keys: Path) -> None:
    port, *ports = free_ports(PEERS + 1)
    profile = AverageAdditiveSharingModelProfile(6)

    def serve() -> SchedulingServer:
        server = SchedulingServer(port, PEERS, 3, 2, profile, keys=keys, host="127.0.0.1", timeout_s=3)
        server.start()
        return server

    first = serve()
    peers = [aggregator(first, keys, number, ports[number]) for number in range(PEERS)]
    assert together([peer.start for peer in peers]) == [None] * PEERS
    first.stop()
    second = None

    def restart() -> None:
        nonlocal second
        threading.Event().wait(0.5)
        second = serve()

    means = together([*(lambda i=i: peers[i].aggregate(model(i)) for i in range(PEERS)), restart])[:-1]
    assert [mean["n"] for mean in means] == [2] * PEERS
    together([peer.stop for peer in peers])
    second.stop()


def test_too_few_peers(server: SchedulingServer, keys: Path) -> None:
    (port,) = free_ports(1)
    with (
        aggregator(server, keys, 0, port, wait_s=1.5) as peer,
        pytest.raises(AggregationError, match="did not begin a round in time: 1 of 4 peers signed up"),
    ):
        peer.aggregate(model(0))


def test_a_model_unlike_the_others_is_refused_by_name(server: SchedulingServer, keys: Path) -> None:
    ports = free_ports(PEERS)
    odd = model(0) | {"w": np.zeros((3, 4), dtype=np.float32)}

    def work(number: int) -> Any:
        with aggregator(server, keys, number, ports[number], wait_s=5) as peer:
            return peer.aggregate(odd if number == 0 else model(number))

    first, *others = together([lambda i=i: work(i) for i in range(PEERS)])
    assert str(first) == "entry 'w': the group agreed on float32 (3, 5), got float32 (3, 4)"
    assert {str(error).split(": ")[-1] for error in others} == {"3 of 4 peers signed up"}


def test_too_few_for_one_of_the_peers(server: SchedulingServer, keys: Path) -> None:
    ports = free_ports(PEERS)

    def work(number: int) -> Any:
        with aggregator(server, keys, number, ports[number], min_peers=3 if number else PEERS + 1) as peer:
            return peer.aggregate(model(number))

    first, *others = together([lambda i=i: work(i) for i in range(PEERS)])
    assert str(first) == "the server's assignment: expected at least 5 peers (min_peers), got 4"
    expected = sum(model(i)["b"] for i in range(1, PEERS)) / 3
    assert all(mean["b"] == pytest.approx(expected, abs=1.1e-6) for mean in others)
    for wrong in (2, 3.0):
        with pytest.raises(UserError, match="min_peers: expected a whole number of at least 3, got"):
            aggregator(server, keys, 0, ports[0], min_peers=wrong)


def test_stopping_ends_the_wait_of_another_thread(server: SchedulingServer, keys: Path) -> None:
    for port in free_ports(5):
        with aggregator(server, keys, 0, port) as peer:
            stopper = threading.Timer(0.2, peer.stop)
            stopper.start()
            with pytest.raises(AggregationError, match="stopped before there was an average"):
                peer.aggregate(model(0))
            stopper.join()


def test_whatever_ends_the_thread_ends_the_wait(
    server: SchedulingServer, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    with aggregator(server, keys, 0, port) as peer:

        def fail(now_s: float) -> None:
            raise MemoryError("for a test")

        monkeypatch.setattr(peer._node._thread, "is_alive", lambda: True)  # as it is while it says that it ends
        threading.Timer(0.2, lambda: peer._node.do(fail)).start()
        began_s = time.monotonic()
        with pytest.raises(MemoryError, match="for a test"):
            peer._node.wait(lambda: False, DEADLINE_S)
        assert time.monotonic() - began_s < DEADLINE_S  # it was woken, and did not just give up


def test_whoever_interrupts_an_aggregation_takes_no_further_part(server: SchedulingServer, keys: Path) -> None:
    (port,) = free_ports(1)
    with aggregator(server, keys, 0, port) as peer:
        wait = peer._node.wait

        def wait_and_raise(over: Callable[[], bool], timeout_s: float | None = None) -> bool:
            wait(lambda: peer._peer.wish is not None)
            raise KeyboardInterrupt

        peer._node.wait = wait_and_raise
        with pytest.raises(KeyboardInterrupt):
            peer.aggregate(model(0))
        wait_for(lambda: peer._peer.wish.error == "given up by who had asked for it")


def test_who_interrupts_an_aggregation_can_ask_again(server: SchedulingServer, keys: Path) -> None:
    ports = free_ports(PEERS)
    begun = threading.Event()

    class Interrupted(BaseException):
        pass

    def interrupted(peer: PrivacyPreservingAggregator) -> None:
        wait = peer._node.wait

        def wait_and_raise(over: Callable[[], bool], timeout_s: float | None = None) -> bool:
            wait(lambda: peer._peer.attempt is not None)
            raise Interrupted  # as a signal may, in the middle of a round

        peer._node.wait = wait_and_raise
        with pytest.raises(Interrupted):
            peer.aggregate(model(0))
        peer._node.wait = wait

    def work(number: int) -> list[int | None]:
        counts = []
        with aggregator(server, keys, number, ports[number]) as peer:
            if number == 0:
                interrupted(peer)
                begun.set()
            for _ in range(1 if number == 0 else 2):
                peer.aggregate(model(number))
                counts.append(peer.num_peers)
                begun.wait(DEADLINE_S)
        return counts

    first, *others = together([lambda i=i: work(i) for i in range(PEERS)])
    assert first == [PEERS]
    assert others in ([[3, PEERS]] * 3, [[PEERS, PEERS]] * 3)


def test_a_server_that_is_not_started(keys: Path) -> None:
    (port,) = free_ports(1)
    server = SchedulingServer(port, PEERS, 3, 2, AverageAdditiveSharingModelProfile(6), keys=keys, host="127.0.0.1")
    assert server.statistics == {}
    with pytest.raises(UserError, match="expected a started server"):
        server.wait(1.0)
    server.stop()


def test_no_server(keys: Path) -> None:
    port, nobody = free_ports(2)
    peer = PrivacyPreservingAggregator(
        f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{nobody}", keys, name="peer-0", connect_s=0.5
    )
    with pytest.raises(AggregationError, match=r"no answer from the server for 0\.5 s; is it running"):
        peer.start()
    with pytest.raises(UserError, match="expected a started aggregator"):
        peer.aggregate(model(0))


def test_a_port_that_is_taken(server: SchedulingServer, keys: Path) -> None:
    again = SchedulingServer(
        server.port, PEERS, 3, 2, AverageAdditiveSharingModelProfile(6), keys=keys, host="127.0.0.1"
    )
    with pytest.raises(UserError, match=f"{server.port}: the port is taken; stop what uses it, or choose another"):
        again.start()
    taken = aggregator(server, keys, 0, server.port)
    with pytest.raises(UserError, match="the port is taken"):
        taken.start()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:5555", "tcp://127.0.0.1", "udp://a:1", "tcp://:5", "tcp://h:0", "tcp://h:99999", "ipc:///tmp/x", ""],
)
def test_addresses(address: str, keys: Path) -> None:
    with pytest.raises(UserError, match="address: expected tcp://host:port, got"):
        split_address(address)
    with pytest.raises(UserError, match="address: expected tcp://host:port, got"):
        PrivacyPreservingAggregator("tcp://127.0.0.1:6000", address, keys, name="peer-0")


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "[::]"])
def test_addresses_by_which_nobody_is_reached(host: str, keys: Path) -> None:
    here, everywhere = "tcp://127.0.0.1:6000", f"tcp://{host}:6000"
    with pytest.raises(UserError, match="expected the one by which others reach this peer; listen is"):
        PrivacyPreservingAggregator(everywhere, here, keys, name="peer-0")
    with pytest.raises(UserError, match=r"address: expected the server.s, got .*, which stands"):
        PrivacyPreservingAggregator(here, everywhere, keys, name="peer-0")
    PrivacyPreservingAggregator(here, here, keys, name="peer-0", listen=everywhere)


def test_names_of_interfaces() -> None:
    assert split_address("tcp://[::1]:80") == ("::1", 80)
    assert endpoint_of("*", 5) == endpoint_of("0.0.0.0", 5) == "tcp://*:5"
    assert endpoint_of("localhost", 5) in ("tcp://127.0.0.1:5", "tcp://[::1]:5")
    assert endpoint_of("::1", 5) == "tcp://[::1]:5"
    for name in ("no-such-host.invalid", "a..b"):
        with pytest.raises(UserError, match=f"cannot find {re.escape(name)}: .*; give an address of this machine"):
            endpoint_of(name, 5)
