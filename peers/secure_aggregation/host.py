"""The server's knowledge of who is there; no socket, clock or thread."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peers.keys import Identity
from peers.secure_aggregation.channel import is_past
from peers.secure_aggregation.endpoint import Endpoint
from peers.secure_aggregation.layout import Layout
from peers.secure_aggregation.messages import Header, Kind, Message, ProtocolError
from peers.secure_aggregation.settings import Settings

TO_SERVER = frozenset(
    {Kind.HELLO, Kind.SIGN_UP, Kind.DELIVERED, Kind.READY, Kind.DONE, Kind.BEAT, Kind.ABORTED, Kind.BYE}
)
WHO_PAUSE_S = 0.2


@dataclass
class Known:
    """A peer that the server knows.

    Attributes:
        session: in which it talks to other peers; a new one is a new process.
        channel: in which it talks to the server.
        layout: of the model that it wants to have averaged; None: it does not.
        was_left: whether it has been in a round of all that were left.
    """

    session: int
    channel: int
    address: str
    heard_s: float
    wish: int = 0
    layout: Layout | None = None
    signed_up_s: float = 0.0
    was_left: bool = False
    moved: int = 0
    waits_for: tuple[bytes, ...] = ()


class Host(Endpoint):
    """One that others say hello to, and that notices when they are gone.

    Subclasses act on who has come, `greeted`, and on who is gone, `lose`.

    Args:
        identity: its own.
        settings: told to everybody.

    Attributes:
        known: who is there.
        news_s: when somebody new has come, or has signed up.
    """

    def __init__(self, identity: Identity, settings: Settings) -> None:
        super().__init__(identity.key)
        self.identity = identity
        self.settings = settings
        self.longest_step_s = settings.beat_s
        self.known: dict[bytes, Known] = {}
        self.news_s = 0.0
        self._who_s: dict[bytes, float] = {}

    # For subclasses

    def greeted(self, peer: bytes) -> None:
        """Act on a hello of somebody, new or not."""
        raise NotImplementedError

    def lose(self, peers: Sequence[bytes]) -> None:
        """Go on without some peers, and know them no more."""
        raise NotImplementedError

    def tell(self, peer: bytes, kind: Kind, *values: Any, **where: Any) -> None:
        """Say what takes the place of all that was said of that kind and has not been heard."""
        self.channel(peer).forget(lambda message: message.kind == kind)
        self.send(peer, kind, *values, **where)

    # What comes

    def check_session(self, sender: bytes, header: Header) -> None:
        if header.kind not in TO_SERVER:
            raise ProtocolError("wrong kind")
        known = self.known.get(sender)
        if known is not None and is_past(header.session, known.channel):
            raise ProtocolError("wrong session")
        if header.kind == Kind.HELLO:
            return
        if known is None or known.channel != header.session:
            if self.now_s - self._who_s.get(sender, -WHO_PAUSE_S) >= WHO_PAUSE_S:
                self._who_s[sender] = self.now_s
                self.reply_who(sender)
            raise ProtocolError("unknown peer")
        known.heard_s = self.now_s

    def check_awaited(self, sender: bytes, header: Header) -> None:
        """Await everything: what `check_session` lets through is what a server may be told."""

    def delivered(self, receiver: bytes, message: Message) -> None:  # noqa: ARG002 -- any sign of life will do
        if receiver in self.known:
            self.known[receiver].heard_s = self.now_s

    def handle(self, sender: bytes, message: Message) -> None:
        getattr(self, f"_on_{message.kind.name.lower()}")(sender, message)

    def _on_hello(self, sender: bytes, message: Message) -> None:
        session, address = message.body
        channel = self._incoming[sender].session
        before = self.known.get(sender)
        if before is not None and before.session != session:
            self.lose([sender])  # a new process
            before = None
        if before is None:
            self._outgoing.pop(sender, None)  # so that the peer sees that it had been forgotten
            self.known[sender] = Known(session, channel, address, self.now_s)
            self.news_s = self.now_s
        else:
            before.channel, before.address, before.heard_s = channel, address, self.now_s
        self.tell(sender, Kind.WELCOME, self.settings.to_text())
        self.greeted(sender)

    def _on_beat(self, sender: bytes, message: Message) -> None:
        moved, waits_for = message.body
        self.known[sender].moved, self.known[sender].waits_for = moved, tuple(waits_for)

    def _on_bye(self, sender: bytes, message: Message) -> None:  # noqa: ARG002 -- all handlers take it
        self.lose([sender])

    # What time brings

    def tick(self, now_s: float) -> None:
        super().tick(now_s)
        silent = [peer for peer, known in self.known.items() if self.now_s - known.heard_s > self.settings.silence_s]
        if silent:
            self.lose(silent)
