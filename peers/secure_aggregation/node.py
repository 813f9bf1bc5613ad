"""Sockets, clock and thread around an endpoint, which decides everything else.

Every socket is encrypted and authenticated by CURVE, and a ZAP handler that is there before anything is bound lets
through only those whose certificate is in the folder of keys. What is sent is in chunks of limited size, and no queue
grows without a limit.
"""

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import zmq
import zmq.auth.thread
from zmq.utils import z85

from peers.keys import Identity, read_certificates
from peers.secure_aggregation.endpoint import Endpoint
from peers.secure_aggregation.messages import CHUNK_BYTES, MOST_HEADER_BYTES
from tools.errors import UserError

ALL_INTERFACES = ("*", "0.0.0.0", "::")
ZAP_DOMAIN = b"byzantium"
MOST_MESSAGE_BYTES = CHUNK_BYTES + MOST_HEADER_BYTES
HIGH_WATER_MARK = 64
PATIENCE_MS = 50
AT_A_TIME = 64
REVIVAL_S = 5.0
"""After so long without a word from a server the connection is made anew; ZeroMQ leaves one that was refused alone."""
CLOSING_MS = 500
KEYS_PAUSE_S = 1.0


class Permits:
    """Who may talk to this process: whoever has a certificate in a folder, which may change while it runs.

    Attributes:
        refused: connections of others.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.refused = 0
        self._keys = frozenset(read_certificates(directory))
        self._read_s = time.monotonic()

    def __call__(self, key: bytes) -> bool:
        """Return whether somebody with this public key, 32 bytes, may."""
        if key not in self._keys and time.monotonic() - self._read_s > KEYS_PAUSE_S:
            self._read_s = time.monotonic()
            with contextlib.suppress(UserError):  # a certificate that is being copied
                self._keys = frozenset(read_certificates(self.directory))
        return key in self._keys

    def callback(self, domain: str, key: bytes) -> bool:  # noqa: ARG002 -- pyzmq gives both
        """Answer pyzmq's authenticator."""
        permitted = self(z85.decode(key))
        self.refused += not permitted
        return permitted


def split_address(address: str, hint: str | None = None) -> tuple[str, int]:
    """Return host and port of "tcp://host:port".

    Args:
        hint: which address is expected, where one that stands for all interfaces will not do.

    Raises:
        UserError: anything else.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme != "tcp" or parts.path or parts.query or parts.username:
        raise UserError(f"address: expected tcp://host:port, got {address!r}")
    if hint is not None and host in ALL_INTERFACES:
        raise UserError(f"address: expected {hint}, got {address!r}, which stands for all interfaces")
    return host, port


def endpoint_of(host: str, port: int) -> str:
    """Return what ZeroMQ calls an interface of this machine; names are looked up."""
    if host in ALL_INTERFACES[:2]:
        return f"tcp://*:{port}"
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"address: cannot find {host}: {reason}; give an address of this machine") from error
    return f"tcp://[{place[0]}]:{port}" if family == socket.AF_INET6 else f"tcp://{place[0]}:{port}"


class Node:
    """An endpoint at work in a thread of its own.

    Args:
        endpoint: decides what to send.
        identity: whose keys.
        bound_to: where to listen, as ZeroMQ puts it.
        servers: where to connect to whom, at once and for good.
        contacts: where others are to whom messages may be due, by key.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        identity: Identity,
        permits: Permits,
        bound_to: str,
        servers: Mapping[bytes, str] | None = None,
        contacts: Callable[[], Mapping[bytes, str]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self.identity = identity
        self.permits = permits
        self.bound_to = bound_to
        self.failure: BaseException | None = None
        self._servers = dict(servers or {})
        self._contacts = contacts
        self._clock = clock
        self._dealers: dict[bytes, zmq.Socket] = {}
        self._heard_s: dict[bytes, float] = {}
        self._jobs: deque[Callable[[float], None]] = deque()
        self._is_over: Callable[[], bool] = lambda: False
        self._has_ended = False
        self._thread = threading.Thread(target=self._work, name="secure aggregation", daemon=True)
        self._changed = threading.Condition()

    def start(self) -> None:
        """Bind, then work.

        Raises:
            UserError: the port is taken, or the interface is none of this machine.
        """
        if not zmq.has("curve"):
            raise UserError("pyzmq: expected a build with CURVE, got one without; install pyzmq's own wheel")
        self._context = zmq.Context()
        self._authenticator = zmq.auth.thread.ThreadAuthenticator(self._context)
        try:
            self._authenticator.start()
            self._authenticator.configure_curve_callback(domain=ZAP_DOMAIN.decode(), credentials_provider=self.permits)
            self._router = self._secured(zmq.ROUTER)
            self._router.curve_server = True
            self._router.zap_domain = ZAP_DOMAIN
            self._router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            self._router.router_mandatory = True
            self._router.router_handover = False
            self._bind()
            self._wake, self._woken = (self._context.socket(zmq.PAIR) for _ in range(2))
            self._woken.bind("inproc://wake")
            self._wake.connect("inproc://wake")
        except BaseException:
            self._authenticator.stop()
            self._context.destroy(linger=0)
            raise
        self._thread.start()

    def _bind(self) -> None:
        try:
            self._router.bind(self.bound_to)
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE:
                raise UserError(f"{self.bound_to}: the port is taken; stop what uses it, or choose another") from error
            raise UserError(
                f"{self.bound_to}: cannot listen there: {error.strerror}; give an address of this machine"
            ) from error

    def do(self, job: Callable[[float], None]) -> None:
        """Call something with the time, between messages, in the node's thread."""
        self._jobs.append(job)
        with self._changed, contextlib.suppress(zmq.ZMQError):
            self._wake.send(b"", zmq.DONTWAIT)

    def wait(self, over: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until something is so, or the node has ended; return whether it is so.

        Raises:
            BaseException: what ended the node's thread.
        """
        with self._changed:
            self._changed.wait_for(lambda: over() or self._has_ended, timeout_s)
        if self.failure is not None:
            raise self.failure
        return over()

    def stop(self, over: Callable[[], bool] = lambda: True) -> None:
        """Go on until something is so, asked in the node's thread, and end."""
        self._is_over = over
        self.do(lambda _: None)
        self._thread.join()

    # In the thread

    def _work(self) -> None:
        try:
            self._loop()
        except BaseException as error:
            self.failure = error
        finally:
            with self._changed:
                for each in (self._router, self._wake, self._woken, *self._dealers.values()):
                    each.close(linger=CLOSING_MS)
                self._authenticator.stop()
                self._context.term()
                self._has_ended = True
                self._changed.notify_all()

    def _loop(self) -> None:
        poller = zmq.Poller()
        for each in (self._router, self._woken):
            poller.register(each, zmq.POLLIN)
        routes: dict[bytes, bytes] = {}
        dealers = self._dealers
        for key, address in self._servers.items():
            dealers[key] = self._connected(key, address, poller)
        while not self._is_over():
            ready = dict(poller.poll(PATIENCE_MS))
            if self._woken in ready:
                with contextlib.suppress(zmq.Again):
                    while True:
                        self._woken.recv(zmq.DONTWAIT)
            if self._router in ready:
                self._drain_router(routes)
            for key, dealer in dealers.items():
                if dealer in ready:
                    self._drain(key, dealer)
            while self._jobs:
                self._jobs.popleft()(self._clock())
            self.endpoint.tick(self._clock())
            self._reconnect(dealers, poller)
            for key, frames in self.endpoint.outgoing(self._clock()):
                self._send(key, frames, dealers, routes)
            with self._changed:
                self._changed.notify_all()

    def _drain_router(self, routes: dict[bytes, bytes]) -> None:
        for _ in range(AT_A_TIME):
            try:
                frames = self._router.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            key = z85.decode(frames[0].get("User-Id").encode())
            routes[key] = frames[0].bytes
            self.endpoint.receive(key, [frame.buffer for frame in frames[1:]], self._clock())

    def _drain(self, key: bytes, dealer: zmq.Socket) -> None:
        for _ in range(AT_A_TIME):
            try:
                frames = dealer.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            self._heard_s[key] = self._clock()
            self.endpoint.receive(key, [frame.buffer for frame in frames], self._clock())

    def _reconnect(self, dealers: dict[bytes, zmq.Socket], poller: zmq.Poller) -> None:
        """Connect to those to whom messages may be due, and to nobody else."""
        wanted = {**self._contacts(), **self._servers}
        wanted.pop(self.identity.key, None)
        now_s = self._clock()
        silent = {key for key in self._servers if now_s - self._heard_s.setdefault(key, now_s) > REVIVAL_S}
        for key in (dealers.keys() - wanted.keys()) | silent:
            self._heard_s.pop(key, None)
            poller.unregister(dealers[key])
            dealers.pop(key).close(linger=CLOSING_MS)
        for key in wanted.keys() - dealers.keys():
            dealers[key] = self._connected(key, wanted[key], poller)

    def _send(
        self, key: bytes, frames: list[Any], dealers: Mapping[bytes, zmq.Socket], routes: Mapping[bytes, bytes]
    ) -> None:
        """Send a chunk, or drop it where that is impossible now: it will be sent again."""
        with contextlib.suppress(zmq.Again, zmq.ZMQError):
            if key in dealers:
                dealers[key].send_multipart(frames, zmq.DONTWAIT)
            elif key in routes:
                self._router.send_multipart([routes[key], *frames], zmq.DONTWAIT)

    def _connected(self, key: bytes, address: str, poller: zmq.Poller) -> zmq.Socket:
        dealer = self._secured(zmq.DEALER)
        dealer.curve_serverkey = z85.encode(key)
        with contextlib.suppress(UserError, zmq.ZMQError):  # others say where they are: never anything but tcp
            dealer.connect("tcp://{}:{}".format(*split_address(address)))
        poller.register(dealer, zmq.POLLIN)
        return dealer

    def _secured(self, kind: int) -> zmq.Socket:
        made = self._context.socket(kind)
        made.linger = 0
        made.maxmsgsize = MOST_MESSAGE_BYTES
        made.sndhwm = made.rcvhwm = HIGH_WATER_MARK
        made.heartbeat_ivl, made.heartbeat_timeout, made.heartbeat_ttl = 2_000, 10_000, 20_000
        made.reconnect_ivl, made.reconnect_ivl_max = 100, 1_000
        made.handshake_ivl = 10_000
        made.ipv6 = True
        made.curve_publickey = z85.encode(self.identity.key)
        made.curve_secretkey = z85.encode(self.identity.secret)
        return made
