"""Messages between two peers over a wire that may lose, repeat, delay and reorder chunks; no socket, clock or thread.

Every chunk is acknowledged. A few are under way at a time, so that queues stay short, and only one until the other side
has answered. A chunk is sent again when later ones are acknowledged and it is not, or when nothing is: ever more rarely
then.

Messages are numbered within a session. Sessions of one process count up from a random number, so that what comes late
is known as such.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from peers.secure_aggregation.messages import (
    CHUNK_BYTES,
    Header,
    Kind,
    Message,
    ProtocolError,
    decode_body,
    encode_header,
    number_of_chunks,
)

WINDOW = 8
"""Chunks under way to one receiver."""
FIRST_PATIENCE_S, LONGEST_PATIENCE_S = 0.5, 4.0
"""After how long chunks are sent again: where acknowledgements are quick, and at most."""
SESSIONS = 1 << 32
"""Within so many, the sessions of a process are told from those of others."""
REMEMBERED = 1024
"""Messages of which a receiver knows whether they have come; older ones count as repeated."""


def is_past(session: int, present: int) -> bool:
    """Return whether a session is an earlier one of the process whose present session is given."""
    return 0 < present - session < SESSIONS


@dataclass
class _Transfer:
    message: Message
    header: Header
    body: memoryview
    next_chunk: int = 0
    acknowledged: set[int] = field(default_factory=set)
    sent_s: dict[int, float] = field(default_factory=dict)  # of chunks under way


class Outgoing:
    """What one peer sends to another, in order.

    Args:
        sender: public key.
        session: which numbers of messages belong together.
    """

    def __init__(self, sender: bytes, session: int) -> None:
        self.sender = sender
        self.session = session
        self._sequence = 0
        self._window = 1
        self._waiting: deque[_Transfer] = deque()
        self._under_way: dict[tuple[int, int], _Transfer] = {}
        self._patience_s = FIRST_PATIENCE_S
        self._heard_s = self._reached_s = -math.inf  # of the last acknowledgement, and when its chunk had been sent

    def __len__(self) -> int:
        """The number of messages not yet acknowledged as a whole."""
        return len(self._unfinished())

    def undelivered(self) -> list[tuple[Message, memoryview]]:
        """Return the messages not yet acknowledged as a whole, and their bodies."""
        return [(transfer.message, transfer.body) for _, transfer in sorted(self._unfinished().items())]

    def send(self, message: Message, body: bytes | memoryview) -> None:
        """Queue a message."""
        body = memoryview(body)
        header = Header(
            kind=message.kind,
            round=message.round,
            attempt=message.attempt,
            group=message.group,
            sender=self.sender,
            session=self.session,
            sequence=self._sequence,
            chunk=0,
            chunks=number_of_chunks(len(body)),
            length=len(body),
        )
        self._sequence += 1
        self._waiting.append(_Transfer(message, header, body))

    def frames(self, now_s: float) -> Iterator[list[Any]]:
        """Yield the chunks to be sent now."""
        if not self._under_way:
            self._heard_s = now_s
        is_silent = now_s - self._heard_s >= self._patience_s
        for (_, chunk), transfer in self._under_way.items():
            sent_s = transfer.sent_s[chunk]
            if now_s - sent_s >= self._patience_s and (is_silent or sent_s < self._reached_s):
                yield self._chunk(transfer, chunk, now_s)
        if is_silent:
            self._heard_s = now_s
            self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE_S)
        while self._waiting and len(self._under_way) < self._window:
            transfer = self._waiting[0]
            self._under_way[transfer.header.sequence, transfer.next_chunk] = transfer
            yield self._chunk(transfer, transfer.next_chunk, now_s)
            transfer.next_chunk += 1
            if transfer.next_chunk == transfer.header.chunks:
                self._waiting.popleft()

    def acknowledge(self, sequence: int, chunk: int, now_s: float) -> Message | None:
        """Note that a chunk has come; return its message if it is the last one.

        Raises:
            ProtocolError: "repeated": a chunk that is not under way.
        """
        transfer = self._under_way.pop((sequence, chunk), None)
        if transfer is None:
            raise ProtocolError("repeated")
        self._window = WINDOW
        sent_s = transfer.sent_s.pop(chunk)
        self._heard_s, self._reached_s = now_s, max(self._reached_s, sent_s)
        self._patience_s = min(max(FIRST_PATIENCE_S, 2 * (now_s - sent_s)), LONGEST_PATIENCE_S)
        transfer.acknowledged.add(chunk)
        return transfer.message if len(transfer.acknowledged) == transfer.header.chunks else None

    def forget(self, unwanted: Callable[[Message], bool]) -> None:
        """Send no more of some messages."""
        self._waiting = deque(transfer for transfer in self._waiting if not unwanted(transfer.message))
        self._under_way = {key: each for key, each in self._under_way.items() if not unwanted(each.message)}

    def _unfinished(self) -> dict[int, _Transfer]:
        return {transfer.header.sequence: transfer for transfer in (*self._waiting, *self._under_way.values())}

    def _chunk(self, transfer: _Transfer, chunk: int, now_s: float) -> list[Any]:
        transfer.sent_s[chunk] = now_s
        part = transfer.body[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]
        return [encode_header(transfer.header._replace(chunk=chunk)), part]


class Incoming:
    """What one peer receives from another in one session of the sender."""

    def __init__(self, session: int) -> None:
        self.session = session
        self._newest = -1
        self._complete: set[int] = set()
        self._partial: dict[int, tuple[Header, bytearray, set[int]]] = {}

    def receive(self, header: Header, part: memoryview, awaited: Callable[[Header], None]) -> Message | None:
        """Take a chunk; return its message if that is now whole.

        Args:
            awaited: raises ProtocolError for a message that nobody waits for; called before anything is allocated.

        Raises:
            ProtocolError: "repeated", which is to be acknowledged all the same; or what is not to be.
        """
        sequence = header.sequence
        if sequence in self._complete or (sequence <= self._newest - REMEMBERED and sequence not in self._partial):
            raise ProtocolError("repeated")
        common = header._replace(chunk=0)
        if sequence not in self._partial:
            awaited(header)
            if len(self._partial) >= WINDOW:
                raise ProtocolError("too many at once")
            if header.chunks == 1:
                return self._finish(header, part.tobytes())
            if any(first[:4] == common[:4] for first, _, _ in self._partial.values()):
                raise ProtocolError("too many at once")  # of one kind for one group
            self._partial[sequence] = common, bytearray(header.length), set()
        first, body, have = self._partial[sequence]
        if common != first:
            raise ProtocolError("contradictory")
        if header.chunk in have:
            raise ProtocolError("repeated")
        body[header.chunk * CHUNK_BYTES : header.chunk * CHUNK_BYTES + len(part)] = part
        have.add(header.chunk)
        if len(have) < header.chunks:
            return None
        del self._partial[sequence]
        return self._finish(header, body)

    def forget(self, unwanted: Callable[[Header], bool]) -> None:
        """Drop what has come of some messages."""
        self._partial = {key: each for key, each in self._partial.items() if not unwanted(each[0])}

    def _finish(self, header: Header, body: bytes | bytearray) -> Message:
        values = decode_body(header.kind, body)
        self._complete.add(header.sequence)
        self._newest = max(self._newest, header.sequence)
        self._complete = {each for each in self._complete if each > self._newest - REMEMBERED}
        return Message(header.kind, header.round, header.attempt, header.group, values)


def acknowledgement(header: Header, own_key: bytes) -> list[bytes]:
    """Return the frames that say that a chunk has come."""
    return [encode_header(header._replace(kind=Kind.ACKNOWLEDGE, sender=own_key, length=0)), b""]
