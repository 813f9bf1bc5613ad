"""A peer's connection to its server: sessions, settings, signs of life; no socket, clock or thread."""

from collections.abc import Set

from peers.keys import Certificate, Identity
from peers.secure_aggregation.channel import is_past
from peers.secure_aggregation.endpoint import Endpoint
from peers.secure_aggregation.messages import Header, Kind, Message, ProtocolError
from peers.secure_aggregation.settings import Settings, read_settings
from tools.errors import UserError

NOT_REPEATED = frozenset({Kind.HELLO, Kind.BEAT, Kind.SIGN_UP})
"""What is not told again when a peer says hello again: it follows from the server's answer."""
HELLO_PAUSE_S, LONGEST_HELLO_PAUSE_S = 0.5, 5.0
LINGER_S = 5.0
"""For so long without any progress one that leaves goes on sending what others wait for."""


class Client(Endpoint):
    """One that has a server, and finds it again after either of them was away.

    Subclasses act on the server's answer, `welcomed`, and say for whom they wait, `waits_for`.

    Args:
        identity: its own.
        server: who the server is.
        address: where others reach it.

    Attributes:
        session: in which it talks to others than the server.
        settings: the server's, once it has answered.
        refusal: why the server's settings cannot be followed.
        chunks_moved: to and from others than the server.
    """

    def __init__(self, *, identity: Identity, server: Certificate, address: str) -> None:
        super().__init__(identity.key)
        self.server = server
        self.address = address
        self.session = next(self._sessions)
        self.settings: Settings | None = None
        self.refusal: str | None = None
        self.chunks_moved = 0
        self._is_leaving = self._has_left = False
        self._linger: tuple[int, float] = (0, 0.0)
        self._server_session: int | None = None
        self._is_greeted = self._awaits_welcome = self._awaits_beat = False
        self._hello_s = -HELLO_PAUSE_S
        self._heard_s = self._beat_s = 0.0  # of the server, and to it

    # For subclasses

    def welcomed(self, *, is_known: bool) -> None:
        """Act on the server's answer to a hello, or to what it did not know.

        Args:
            is_known: whether it has not forgotten what it was told before.
        """
        raise NotImplementedError

    def waits_for(self) -> Set[bytes]:
        """Return the others whose messages, or acknowledgements, are waited for."""
        raise NotImplementedError

    # What its owner wants

    def start(self, now_s: float) -> None:
        """Say hello to the server."""
        self.set_clock(now_s)
        self._heard_s = self.now_s
        self._hello()

    def leave(self, now_s: float) -> None:
        """Send what others wait for, while that gets on, then tell the server that this peer is gone."""
        self.set_clock(now_s)
        self._is_leaving = True
        self._linger = self.chunks_moved, self.now_s
        self._leave_if_idle()

    @property
    def is_gone(self) -> bool:
        """Whether one that leaves has nothing more to say, or nobody who hears it."""
        is_heard = not self._outgoing.get(self.server.key)
        return self._has_left and (is_heard or self.is_server_silent or self.now_s - self._linger[1] > LINGER_S)

    def become_another(self) -> None:
        """Be a new process for all others from now on."""
        if not self._has_left:
            self.session, self._server_session = next(self._sessions), None
            self._outgoing.clear()
            self._hello()

    @property
    def is_server_silent(self) -> bool:
        """Whether nothing has been heard of the server for too long."""
        return self.settings is None or self.now_s - self._heard_s > self.settings.silence_s

    # What comes

    def own_session(self, receiver: bytes) -> int:
        return next(self._sessions) if receiver == self.server.key else self.session

    def check_session(self, sender: bytes, header: Header) -> None:
        if sender == self.server.key:
            if header.session != self._server_session:
                self._check_server_session(header)
            self._heard_s = self.now_s

    def _check_server_session(self, header: Header) -> None:
        """Raise ProtocolError for a chunk that does not begin a new session with the server."""
        if self._server_session is not None and is_past(header.session, self._server_session):
            raise ProtocolError("wrong session")
        if header.kind != Kind.WELCOME or not self._awaits_welcome:
            self.who(self.server.key)  # so that both agree on a session again
            raise ProtocolError("wrong session")

    def who(self, sender: bytes) -> None:
        if sender != self.server.key or self._has_left or not self._is_greeted:
            return
        if self.now_s - self._hello_s >= HELLO_PAUSE_S:
            self._hello()

    def moved(self, other: bytes) -> None:
        self.chunks_moved += other != self.server.key

    def delivered(self, receiver: bytes, message: Message) -> None:
        if receiver == self.server.key:
            self._heard_s = self.now_s
            if message.kind == Kind.BEAT:
                self._awaits_beat = False
            elif message.kind == Kind.HELLO:
                self._is_greeted = True

    def _on_welcome(self, message: Message) -> None:
        session, before = self._incoming[self.server.key].session, self._server_session
        self._server_session, self._awaits_welcome = session, False
        try:
            self.settings, self.refusal = read_settings(message.body[0]), None
            self.longest_step_s = self.settings.beat_s
        except UserError as error:
            self.refusal = str(error)
        self.welcomed(is_known=session == before)

    # What time brings

    def tick(self, now_s: float) -> None:
        super().tick(now_s)
        if self._is_leaving and not self._has_left:
            self._leave_if_idle()
        if not self._has_left:
            self._give_sign_of_life()

    def _leave_if_idle(self) -> None:
        if self.chunks_moved != self._linger[0]:
            self._linger = self.chunks_moved, self.now_s
        is_idle = not any(len(channel) for key, channel in self._outgoing.items() if key != self.server.key)
        if is_idle or self.now_s - self._linger[1] > LINGER_S:
            self._has_left, self._linger = True, (self.chunks_moved, self.now_s)
            self.send(self.server.key, Kind.BYE)

    def _give_sign_of_life(self) -> None:
        """Tell the server what moves here, unless the last message of that kind is still under way."""
        if self.settings is None:
            if self.now_s - self._hello_s > LONGEST_HELLO_PAUSE_S:  # the server may have ended before it answered
                self._hello()
        elif self.now_s - self._beat_s >= self.settings.beat_s and not self._awaits_beat:
            self._beat_s, self._awaits_beat = self.now_s, True
            self.send(self.server.key, Kind.BEAT, self.chunks_moved, sorted(self.waits_for()))

    def _hello(self) -> None:
        """Begin a new session with the server, with all that it may not have heard."""
        self._hello_s = self.now_s
        self._is_greeted, self._awaits_welcome, self._awaits_beat = False, True, False
        before = self._outgoing.pop(self.server.key, None)
        self.send(self.server.key, Kind.HELLO, self.session, self.address)
        for message, body in before.undelivered() if before else ():
            if message.kind not in NOT_REPEATED:
                self.channel(self.server.key).send(message, body)
