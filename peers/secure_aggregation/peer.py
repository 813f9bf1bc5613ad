"""A peer: one round after another with one server; no socket, clock or thread."""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature

from peers.keys import Certificate, Identity
from peers.secure_aggregation.assignment import CONTEXT, Assignment, Contact, decode_assignment
from peers.secure_aggregation.attempt import Attempt
from peers.secure_aggregation.endpoint import Endpoint, new_session
from peers.secure_aggregation.layout import Layout
from peers.secure_aggregation.messages import MOST_CONTROL_BYTES, NO_ROUND, Header, Kind, Message, ProtocolError
from peers.secure_aggregation.profiles import Prepared
from peers.secure_aggregation.settings import Settings, read_settings
from tools.errors import UserError

FROM_SERVER = frozenset(
    {Kind.WELCOME, Kind.STATUS, Kind.REFUSE, Kind.ASSIGN, Kind.OPEN, Kind.ABORT, Kind.FAIL, Kind.EXPECT, Kind.SERVE}
)
MOST_EARLY = 4096
REMEMBERED_RESULTS = 2
HELLO_PAUSE_S = 0.5


class AggregationError(RuntimeError):
    """An aggregation that came to nothing."""


@dataclass
class Wish:
    """A model that waits to be averaged.

    Attributes:
        deadline_s: until when a round must have begun.
        packed: the average's bytes, once there is one.
        error: why there will be none.
    """

    number: int
    prepared: Prepared
    deadline_s: float
    signed_up: bool = False
    began_s: float | None = None
    ended_s: float | None = None
    packed: bytes | None = None
    error: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is a result, or will never be one."""
        return self.packed is not None or self.error is not None

    @property
    def layout(self) -> Layout:
        """Of the model."""
        return self.prepared.layout


class Peer(Endpoint):
    """One peer.

    Args:
        identity: its own.
        server: who the server is.
        address: where other peers reach it.
        permits: whether somebody with that public key may take part.

    Attributes:
        settings: the server's, once it has answered.
        refusal: why this peer cannot follow the server's settings.
        contacts: of peers to whom messages may be due.
    """

    def __init__(
        self, *, identity: Identity, server: Certificate, address: str, permits: Callable[[bytes], bool]
    ) -> None:
        super().__init__(identity.key)
        self.server = server
        self.address = address
        self.permits = permits
        self.session = new_session()
        self.settings: Settings | None = None
        self.refusal: str | None = None
        self.contacts: dict[bytes, Contact] = {}
        self.wish: Wish | None = None
        self.attempt: Attempt | None = None
        self.signed_up_peers: tuple[int, int] | None = None
        self._wishes = 0
        self._is_leaving = False
        self._hello_s = -HELLO_PAUSE_S
        self._heard_s = 0.0
        self._beat_s = 0.0
        self._beats_due = 0
        self._progress: tuple[int, float] = (0, 0.0)
        self._early: dict[tuple[bytes, int], list[tuple[bytes, Message]]] = {}
        self._server_sessions: list[int] = []
        self._results: dict[bytes, bytes] = {}
        self._given_up: tuple[bytes, int] | None = None

    # What its owner wants

    def start(self, now_s: float) -> None:
        """Say hello to the server."""
        self.now_s = self._heard_s = now_s
        self._hello()

    def begin(self, prepared: Prepared, now_s: float, wait_s: float) -> Wish:
        """Wish for the average of a model and those of others; a round must begin within `wait_s`."""
        self.now_s = now_s
        self._wishes += 1
        self.wish = Wish(self._wishes, prepared, now_s + wait_s)
        self._sign_up()
        return self.wish

    def leave(self, now_s: float) -> None:
        """Tell the server that this peer is gone."""
        self.now_s = now_s
        self._is_leaving = True
        self.send(self.server.key, Kind.BYE)

    # Who may say what

    def own_session(self, receiver: bytes) -> int:
        return new_session() if receiver == self.server.key else self.session

    def check_session(self, sender: bytes, header: Header) -> None:
        if sender == self.server.key:
            known = self._server_sessions[-1:] == [header.session]
            if not known and (header.kind != Kind.WELCOME or header.session in self._server_sessions):
                raise ProtocolError("wrong session")
            self._heard_s = self.now_s
        elif sender in self.contacts and self.contacts[sender].session != header.session:
            raise ProtocolError("wrong session")

    def check_awaited(self, sender: bytes, header: Header) -> None:
        if sender == self.server.key:
            if header.kind not in FROM_SERVER:
                raise ProtocolError("wrong kind")
            if header.length > MOST_CONTROL_BYTES:
                raise ProtocolError("too long")
            return
        if header.kind in FROM_SERVER:
            raise ProtocolError("wrong sender")
        if header.kind == Kind.CONFIRM and header.length <= 64 and self._is_early(header):
            return
        if header.round in self._results:
            if header.kind == Kind.PREPARED and sender in self.contacts:
                return
            raise ProtocolError("repeated")
        if self.attempt is None or self.attempt.assignment.round != header.round:
            raise ProtocolError("wrong round")
        if self.attempt.assignment.attempt != header.attempt and header.kind != Kind.RESULT:
            raise ProtocolError("wrong attempt")
        self.attempt.check_awaited(sender, header)

    def _is_early(self, header: Header | Message) -> bool:
        """Return whether a message is of an attempt that this peer has yet to be told of."""
        if self.wish is None or self.wish.is_over or (header.round, header.attempt) == self._given_up:
            return False
        if self.attempt is None:
            return sum(map(len, self._early.values())) < MOST_EARLY
        assignment = self.attempt.assignment
        return header.round == assignment.round and header.attempt == assignment.attempt + 1

    # What comes

    def handle(self, sender: bytes, message: Message) -> None:
        if sender == self.server.key:
            getattr(self, f"_on_{message.kind.name.lower()}")(message)
        elif message.kind == Kind.CONFIRM and self._is_early(message):
            self._early.setdefault((message.round, message.attempt), []).append((sender, message))
        elif message.round in self._results:  # PREPARED, of a root actor that has yet to open the keys
            self._serve(sender, message)
        elif self.attempt is not None:
            self._to_attempt(sender, message)
        self._after()

    def _to_attempt(self, sender: bytes, message: Message) -> None:
        try:
            self.attempt.handle(sender, message)
        except ProtocolError as error:
            if error.reason != "different assignments":
                raise
            self._fail("the server told members of a group different things, so that models might have been exposed")
            self.send(self.server.key, Kind.BYE)

    def who(self, sender: bytes) -> None:
        if sender == self.server.key and not self._is_leaving and self.now_s - self._hello_s >= HELLO_PAUSE_S:
            self._hello()

    def delivered(self, receiver: bytes, message: Message) -> None:
        if receiver == self.server.key:
            self._heard_s = self.now_s
            self._beats_due -= message.kind == Kind.BEAT
        elif self.attempt is not None and self._is_current(message):
            self.attempt.delivered(receiver, message)
            self._after()

    def _on_welcome(self, message: Message) -> None:
        renewed = bool(self._server_sessions)
        self._server_sessions.append(self._incoming[self.server.key].session)
        try:
            self.settings = read_settings(message.body[0])
        except UserError as error:
            self.refusal = str(error)
            if self.wish is not None and not self.wish.is_over:
                self._fail(self.refusal)
            return
        if renewed and self.attempt is not None:
            self.attempt.lose_server()  # if it is the same server it will say what is to be done
        elif self.wish is not None and not self.wish.is_over:
            self._sign_up()

    def _on_status(self, message: Message) -> None:
        self.signed_up_peers = tuple(message.body)

    def _on_refuse(self, message: Message) -> None:
        self._fail(message.body[0])

    def _on_assign(self, message: Message) -> None:
        data, signature = message.body
        try:
            self.server.verify(signature, CONTEXT + data)
        except InvalidSignature:
            raise ProtocolError("wrong signature") from None
        assignment = decode_assignment(data)
        if self.wish is None or self.wish.is_over or (assignment.round, assignment.attempt) == self._given_up:
            raise ProtocolError("not awaited")
        current = self.attempt.assignment if self.attempt else None
        if current and (current.round != assignment.round or current.attempt >= assignment.attempt):
            raise ProtocolError("wrong attempt")
        problem = self._problem(assignment)
        if problem:
            self._fail(problem)
            self.send(self.server.key, Kind.BYE)
            return
        self._begin(assignment)

    def _problem(self, assignment: Assignment) -> str | None:
        """Return why this peer will not follow an assignment."""
        try:
            assignment.check(self.key)
            self.settings.profile.check(assignment.n)
        except ValueError as error:
            return f"the server's assignment: {error}"
        strangers = [key.hex() for key in assignment.contacts if key != self.key and not self.permits(key)]
        if strangers:
            return (
                f"the server put a stranger into this peer's group, key {strangers[0]}, whose certificate is not here"
            )
        if assignment.layout_digest != self.wish.layout.digest or assignment.settings_digest != self.settings.digest:
            return "the server's assignment is for other models, or other settings"
        if bool(assignment.groups[-1].origins) and self.settings.combination is None:
            return "the server's assignment would show means of groups, which its settings do not allow"
        return None

    def _begin(self, assignment: Assignment) -> None:
        self._drop_attempt(assignment.round, assignment.attempt)
        self.contacts = dict(assignment.contacts)
        if self.wish.began_s is None:
            self.wish.began_s = self.now_s
        self._progress = self.moved, self.now_s
        where = {"round": assignment.round, "attempt": assignment.attempt}
        self.attempt = Attempt(
            own_key=self.key,
            assignment=assignment,
            profile=self.settings.profile,
            prepared=self.wish.prepared,
            combination=self.settings.combination,
            send=lambda receiver, kind, *values, **more: self.send(receiver, kind, *values, **more, **where),
            tell_server=lambda kind, *values, **more: self.send(self.server.key, kind, *values, **more, **where),
        )
        self.attempt.start()
        for sender, early in self._early.pop((assignment.round, assignment.attempt), []):
            if early.group in self.attempt.groups and sender in self.attempt.groups[early.group].members:
                self._to_attempt(sender, early)
            if self.attempt is None:
                break
        self._early.clear()

    def _on_open(self, message: Message) -> None:
        if self._is_current(message):
            self.attempt.open(dict(message.body[0]))

    def _on_abort(self, message: Message) -> None:
        if message.round in self._results:
            withholds, released = False, True
        elif self._is_current(message):
            withholds, released = self.attempt.withholds(), self.attempt.released
            if released:
                self.send(self.server.key, Kind.ABORTED, False, True, round=message.round, attempt=message.attempt)
                return
            self._drop_attempt(message.round, message.attempt + 1)
        elif self.attempt is None and self.wish is not None and not self.wish.is_over:
            withholds, released = True, False  # it was never told of the attempt, and now never will take part
            self._given_up = message.round, message.attempt
        else:
            return
        self.send(self.server.key, Kind.ABORTED, withholds, released, round=message.round, attempt=message.attempt)

    def _on_fail(self, message: Message) -> None:
        if self.attempt is None or self.attempt.assignment.round == message.round:
            self._fail(message.body[0])

    def _on_expect(self, message: Message) -> None:
        key, session, address = message.body[0]
        if self.attempt is not None and self.attempt.assignment.round == message.round and self.permits(key):
            self.contacts.setdefault(key, Contact(session, address))
            self.attempt.helpers.add(key)

    def _on_serve(self, message: Message) -> None:
        key, session, address = message.body[0]
        if message.round in self._results and self.permits(key):
            self.contacts.setdefault(key, Contact(session, address))
            self._serve(key, message)

    def _serve(self, key: bytes, message: Message) -> None:
        """Send somebody the result of a message's round."""
        self.send(key, Kind.RESULT, body=self._results[message.round], round=message.round, attempt=message.attempt)

    # What time brings

    def tick(self, now_s: float) -> None:
        super().tick(now_s)
        if self.settings is None:
            self._expire()
            return
        if now_s - self._beat_s >= self.settings.beat_s and self._beats_due == 0:
            self._beat_s, self._beats_due = now_s, 1
            waits_for = sorted(self.attempt.waits_for()) if self.attempt else []
            self.send(self.server.key, Kind.BEAT, self.moved, waits_for)
        lost = now_s - self._heard_s > self.settings.silence_s
        if self.attempt is not None:
            if self.moved != self._progress[0]:
                self._progress = self.moved, now_s
            if lost:
                self.attempt.lose_server()
                if now_s - self._progress[1] > self.settings.timeout_s:
                    self._fail(
                        "the server was lost in the middle of a round that cannot go on without it; whether the sum "
                        "has been opened is unknown, so that the round is not repeated"
                    )
            self._after()
        self._expire()

    def _expire(self) -> None:
        wish = self.wish
        if wish is None or wish.is_over or self.attempt is not None or self.now_s < wish.deadline_s:
            return
        if self.settings is None or self.now_s - self._heard_s > self.settings.silence_s:
            self._fail("no answer from the server; is it running, and is this peer's certificate among its keys?")
        elif self.signed_up_peers is None:
            self._fail("the server did not begin a round in time")
        else:
            self._fail(
                "the server did not begin a round in time: {} of {} peers signed up".format(*self.signed_up_peers)
            )

    # Inside

    def _hello(self) -> None:
        self._hello_s = self.now_s
        self._beats_due = 0
        self.disconnect_outgoing(self.server.key)
        self.send(self.server.key, Kind.HELLO, self.session, self.address)

    def disconnect_outgoing(self, other: bytes) -> None:
        """Begin a new session with somebody."""
        self._outgoing.pop(other, None)

    def _sign_up(self) -> None:
        if self.settings is not None:
            self.send(self.server.key, Kind.SIGN_UP, self.wish.number, self.wish.layout.to_lists())

    def _is_current(self, message: Message) -> bool:
        current = self.attempt.assignment if self.attempt else None
        return current is not None and (message.round, message.attempt) == (current.round, current.attempt)

    def _after(self) -> None:
        """Note a result."""
        if self.attempt is None or self.attempt.packed is None:
            return
        attempt, self.attempt = self.attempt, None
        self._results[attempt.assignment.round] = attempt.packed
        while len(self._results) > REMEMBERED_RESULTS:
            del self._results[next(iter(self._results))]
        self.wish.packed, self.wish.ended_s = attempt.packed, self.now_s

    def _fail(self, reason: str) -> None:
        if self.attempt is not None:
            self._drop_attempt(self.attempt.assignment.round, self.attempt.assignment.attempt + 1)
        if self.wish is not None and not self.wish.is_over:
            self.wish.error, self.wish.ended_s = reason, self.now_s

    def _drop_attempt(self, round_id: bytes, attempt: int) -> None:
        """Send and take nothing more of attempts before this one, but for results that others wait for."""

        def old(message: Message | Header) -> bool:
            if message.kind == Kind.RESULT and message.round in self._results:
                return False
            return message.round != NO_ROUND and (message.round != round_id or message.attempt < attempt)

        for channel in self._outgoing.values():
            channel.forget(old)
        for incoming in self._incoming.values():
            incoming.forget(old)
        if self.attempt is not None:
            self._given_up = self.attempt.assignment.round, self.attempt.assignment.attempt
        self.attempt = None
