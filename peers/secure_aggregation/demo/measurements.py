"""What the demo's peers measure, and how it reaches the process that shows it: msgpack rows over CURVE."""

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import zmq
import zmq.auth.thread
from zmq.utils import z85

from peers.keys import Certificate, Identity
from peers.secure_aggregation.messages import NUMBER, WORD, ProtocolError, Row, Text, pack, unpack
from tools.errors import UserError

ZAP_DOMAIN = b"byzantium demo"
MOST_ROW_BYTES = 256
MOST_FRAME_BYTES = 4096  # also what a handshake is made of
LINGER_MS = 5_000


@dataclass(frozen=True)
class Measurement:
    """One epoch of one peer.

    Attributes:
        epoch: from 1.
        accuracy_before, accuracy_after: on the test samples, before and after the aggregation.
        aggregation_s: from the server's assignment to the result.
        sent_bytes: by the peer, since the measurement before.
    """

    name: str
    epoch: int
    accuracy_before: float
    accuracy_after: float
    training_s: float
    aggregation_s: float
    sent_bytes: int


class Real(NamedTuple):
    """A floating-point number from 0 to a bound."""

    most: float

    def check(self, value: Any) -> bool:
        return type(value) is float and 0 <= value <= self.most


ROW = Row((Text(64), NUMBER, Real(1), Real(1), Real(1e9), Real(1e9), WORD))


def encode(measurement: Measurement) -> bytes:
    """Return a measurement as a row."""
    return pack(list(astuple(measurement)))


def decode(data: bytes) -> Measurement:
    """Return the measurement that `encode` was given.

    Raises:
        ProtocolError: anything else.
    """
    return Measurement(*unpack(ROW, data, MOST_ROW_BYTES))


class Collector:
    """Receives the measurements of known peers; use as a context manager, which raises UserError if it cannot listen.

    Args:
        port: where to listen, on this machine only.
        identity: own keys.
        peers: who may send, by public key of 32 bytes, and under which name.

    Attributes:
        dropped: rows that were no measurement of their sender.
    """

    def __init__(self, port: int, identity: Identity, peers: Mapping[bytes, str]) -> None:
        self.port = port
        self.identity = identity
        self.peers = peers
        self.dropped = 0

    def __enter__(self) -> "Collector":
        self._context = zmq.Context()
        self._authenticator = zmq.auth.thread.ThreadAuthenticator(self._context)
        self._authenticator.start()  # before anything is bound
        try:
            self._authenticator.configure_curve_callback(ZAP_DOMAIN.decode(), _Permitted(self.peers))
            self.socket = _secured(self._context, zmq.PULL, self.identity)
            self.socket.curve_server = True
            self.socket.zap_domain = ZAP_DOMAIN
            self.socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            self.socket.bind(f"tcp://127.0.0.1:{self.port}")
        except BaseException as error:
            self.__exit__()
            if isinstance(error, zmq.ZMQError):
                raise UserError(f"port {self.port}: cannot listen there: {error.strerror}; choose another") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._authenticator.stop()
        self._context.destroy(linger=0)

    def receive(self, timeout_ms: int = 0) -> list[Measurement]:
        """Return what has come in, waiting for the first for a while."""
        found = []
        while self.socket.poll(timeout_ms if not found else 0):
            *more, frame = self.socket.recv_multipart(copy=False)
            try:
                measurement = decode(frame.bytes)
                if more or self.peers.get(z85.decode(frame.get("User-Id"))) != measurement.name:
                    raise ProtocolError("wrong sender")
                found.append(measurement)
            except ProtocolError:
                self.dropped += 1
        return found


class Sender:
    """Sends measurements to a collector; use as a context manager, which waits for a few seconds until all are sent."""

    def __init__(self, port: int, identity: Identity, collector: Certificate) -> None:
        self._context = zmq.Context()
        self._socket = _secured(self._context, zmq.PUSH, identity)
        self._socket.curve_serverkey = z85.encode(collector.key)
        self._socket.connect(f"tcp://127.0.0.1:{port}")

    def __enter__(self) -> "Sender":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=LINGER_MS)

    def send(self, measurement: Measurement) -> None:
        """Send a measurement, or drop it where nobody takes any."""
        with contextlib.suppress(zmq.Again):
            self._socket.send(encode(measurement), zmq.DONTWAIT)


class _Permitted:
    """Answers pyzmq's authenticator."""

    def __init__(self, keys: Collection[bytes]) -> None:
        self._keys = frozenset(keys)

    def callback(self, domain: str, key: bytes) -> bool:  # noqa: ARG002 -- pyzmq gives both
        return z85.decode(key) in self._keys


def _secured(context: zmq.Context, kind: int, identity: Identity) -> zmq.Socket:
    made = context.socket(kind)
    made.maxmsgsize = MOST_FRAME_BYTES
    made.curve_publickey = z85.encode(identity.key)
    made.curve_secretkey = z85.encode(identity.secret)
    return made
