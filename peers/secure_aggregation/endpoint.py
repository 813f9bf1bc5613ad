"""What server and peers have in common: channels to others, and drops that are counted; no socket, clock or thread."""

import itertools
import math
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any

from peers.secure_aggregation.channel import Incoming, Outgoing, acknowledgement
from peers.secure_aggregation.messages import (
    NO_ROUND,
    TENSORS,
    Header,
    Kind,
    Message,
    ProtocolError,
    decode_chunk,
    encode_body,
    encode_header,
)


class Endpoint:
    """One end of many channels.

    Subclasses say what is awaited, `check_awaited`, and act on messages that have come, `handle`, or have been
    acknowledged, `delivered`.

    Attributes:
        key: own public key.
        now_s: own time, in which a pause of the whole process, however long, takes `longest_step_s`: whoever has slept
            must not blame others for its own silence.
        dropped: what came and was of no use, by reason.
        sent_bytes, received_bytes: of all chunks, what was sent twice included.
    """

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.now_s = 0.0
        self.longest_step_s = math.inf
        self.dropped: Counter[str] = Counter()
        self.sent_bytes = self.received_bytes = 0
        self._outgoing: dict[bytes, Outgoing] = {}
        self._incoming: dict[bytes, Incoming] = {}
        self._replies: list[tuple[bytes, list[Any]]] = []
        self._clock_s: float | None = None
        self._sessions = itertools.count(secrets.randbits(62))

    @property
    def clock_s(self) -> float | None:
        """The time that was last given, pauses included."""
        return self._clock_s

    # For subclasses

    def check_session(self, sender: bytes, header: Header) -> None:
        """Raise ProtocolError for a chunk that is not of the sender's present session."""

    def check_awaited(self, sender: bytes, header: Header) -> None:
        """Raise ProtocolError for a message that is not awaited from that sender, or not of that length."""
        raise NotImplementedError

    def handle(self, sender: bytes, message: Message) -> None:
        """Act on a whole message."""
        raise NotImplementedError

    def delivered(self, receiver: bytes, message: Message) -> None:
        """Act on the news that a message has come as a whole."""

    def who(self, sender: bytes) -> None:
        """Act on being unknown to somebody."""

    def moved(self, other: bytes) -> None:
        """Note that a chunk of use has gone to somebody, or come."""

    def tick(self, now_s: float) -> None:
        """Act on the time."""
        self.set_clock(now_s)

    def set_clock(self, now_s: float) -> None:
        """Go on with own time."""
        if self._clock_s is not None:
            self.now_s += min(max(now_s - self._clock_s, 0.0), self.longest_step_s)
        self._clock_s = now_s

    # For the transport

    def receive(self, sender: bytes, frames: Sequence[Any], now_s: float) -> None:
        """Take a chunk from somebody whose key has been proven."""
        self.set_clock(now_s)
        try:
            self._receive(sender, frames)
        except ProtocolError as error:
            self.dropped[error.reason] += 1

    def outgoing(self, now_s: float) -> list[tuple[bytes, list[Any]]]:
        """Return the chunks to be sent now, with the keys of their receivers."""
        self.set_clock(now_s)
        sending, self._replies = self._replies, []
        for receiver, channel in self._outgoing.items():
            sending += [(receiver, frames) for frames in channel.frames(self.now_s)]
        self.sent_bytes += sum(len(part) for _, frames in sending for part in frames)
        return sending

    def unsent(self) -> int:
        """Return how many messages have not been acknowledged."""
        return sum(map(len, self._outgoing.values()))

    # Inside

    def send(
        self,
        receiver: bytes,
        kind: Kind,
        *values: Any,
        body: bytes | memoryview | None = None,
        round: bytes = NO_ROUND,
        attempt: int = 0,
        group: int = 0,
    ) -> None:
        """Queue a message of these values, or of a tensor's bytes."""
        message = Message(kind, round, attempt, group, None)
        self.channel(receiver).send(message, encode_body(kind, values) if kind not in TENSORS else body)

    def channel(self, receiver: bytes) -> Outgoing:
        """Return the channel to somebody."""
        if receiver not in self._outgoing:
            self._outgoing[receiver] = Outgoing(self.key, self.own_session(receiver))
        return self._outgoing[receiver]

    def own_session(self, receiver: bytes) -> int:  # noqa: ARG002 -- subclasses tell receivers apart
        """Return the session in which to send to somebody."""
        return next(self._sessions)

    def reply_who(self, receiver: bytes) -> None:
        """Tell somebody that they are unknown."""
        header = Header(Kind.WHO, NO_ROUND, 0, 0, self.key, 0, 0, 0, 0, 0)
        self._replies.append((receiver, [encode_header(header), b""]))

    def _receive(self, sender: bytes, frames: Sequence[Any]) -> None:
        header, part = decode_chunk(frames)
        self.received_bytes += sum(len(frame) for frame in frames)
        if header.sender != sender:
            raise ProtocolError("wrong sender")
        if header.kind == Kind.ACKNOWLEDGE:
            channel = self._outgoing.get(sender)
            if channel is None or channel.session != header.session:
                raise ProtocolError("wrong session")
            message = channel.acknowledge(header.sequence, header.chunk, self.now_s)
            self.moved(sender)
            if message is not None:
                self.delivered(sender, message)
            return
        if header.kind == Kind.WHO:
            self.who(sender)
            return
        self.check_session(sender, header)
        incoming = self._incoming.get(sender)
        if incoming is None or incoming.session != header.session:
            incoming = self._incoming[sender] = Incoming(header.session)
        try:
            message = incoming.receive(header, part, lambda awaited: self.check_awaited(sender, awaited))
        except ProtocolError as error:
            if error.reason == "repeated":
                self._replies.append((sender, acknowledgement(header, self.key)))
            raise
        self.moved(sender)
        self._replies.append((sender, acknowledgement(header, self.key)))
        if message is not None:
            self.handle(sender, message)
