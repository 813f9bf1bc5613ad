"""Messages between two peers over a wire that may lose, repeat, delay and reorder chunks; no socket, clock or thread.

Every chunk is acknowledged. A few are under way at a time, so that queues stay short, and what is not acknowledged is
sent again, ever more rarely.
"""

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
"""After how long without any acknowledgement chunks are sent again: at first, and at last."""
REMEMBERED = 1024
"""Messages of which a receiver knows whether they have come; older ones count as repeated."""


@dataclass
class _Transfer:
    message: Message
    header: Header
    body: memoryview
    next_chunk: int = 0
    acknowledged: set[int] = field(default_factory=set)


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
        self._waiting: deque[_Transfer] = deque()
        self._under_way: dict[tuple[int, int], _Transfer] = {}
        self._patience_s = FIRST_PATIENCE_S
        self._heard_s: float | None = None

    def __len__(self) -> int:
        """The number of messages not yet acknowledged as a whole."""
        return len({id(transfer) for transfer in (*self._waiting, *self._under_way.values())})

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
        elif now_s - self._heard_s >= self._patience_s:
            self._heard_s = now_s
            self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE_S)
            for (_, chunk), transfer in list(self._under_way.items()):
                yield self._chunk(transfer, chunk)
        while self._waiting and len(self._under_way) < WINDOW:
            transfer = self._waiting[0]
            self._under_way[transfer.header.sequence, transfer.next_chunk] = transfer
            yield self._chunk(transfer, transfer.next_chunk)
            transfer.next_chunk += 1
            if transfer.next_chunk == transfer.header.chunks:
                self._waiting.popleft()

    def acknowledge(self, sequence: int, chunk: int, now_s: float) -> Message | None:
        """Note that a chunk has come; return its message if it is the last one."""
        transfer = self._under_way.pop((sequence, chunk), None)
        if transfer is None:
            return None
        self._heard_s, self._patience_s = now_s, FIRST_PATIENCE_S
        transfer.acknowledged.add(chunk)
        return transfer.message if len(transfer.acknowledged) == transfer.header.chunks else None

    def forget(self, unwanted: Callable[[Message], bool]) -> None:
        """Send no more of some messages."""
        self._waiting = deque(transfer for transfer in self._waiting if not unwanted(transfer.message))
        self._under_way = {key: each for key, each in self._under_way.items() if not unwanted(each.message)}

    def _chunk(self, transfer: _Transfer, chunk: int) -> list[Any]:
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
        if sequence in self._complete or sequence <= self._newest - REMEMBERED:
            raise ProtocolError("repeated")
        common = header._replace(chunk=0)
        if sequence not in self._partial:
            awaited(header)
            if len(self._partial) >= WINDOW:
                raise ProtocolError("too many at once")
            if header.chunks == 1:
                return self._finish(header, part.tobytes())
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
