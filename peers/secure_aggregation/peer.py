"""A peer: one round after another with one server; no socket, clock or thread."""

from collections.abc import Callable

from cryptography.exceptions import InvalidSignature

from peers.keys import Certificate, Identity
from peers.secure_aggregation.assignment import CONTEXT, Assignment, Contact, decode_assignment
from peers.secure_aggregation.attempt import Attempt
from peers.secure_aggregation.client import Client
from peers.secure_aggregation.messages import NO_ROUND, Header, Kind, Message, ProtocolError
from peers.secure_aggregation.profiles import Prepared
from peers.secure_aggregation.settings import Settings
from peers.secure_aggregation.tree import LEAST_GROUP
from peers.secure_aggregation.wish import Wish

FROM_SERVER = frozenset(
    {Kind.WELCOME, Kind.STATUS, Kind.REFUSE, Kind.ASSIGN, Kind.OPEN, Kind.ABORT, Kind.FAIL, Kind.EXPECT, Kind.SERVE}
)
MOST_EARLY = 4096
REMEMBERED_RESULTS = 2
REMEMBERED_ROUNDS = 64
LAST_ATTEMPT = (1 << 31) - 1
PATIENCE_ALONE, LONGEST_PATIENCE = 2, 10
"""After how many `timeout_s` without progress a peer leaves a round: without a server, and with one."""


class Peer(Client):
    """One peer.

    Args:
        identity: its own.
        server: who the server is.
        address: where other peers reach it.
        permits: whether somebody with that public key may take part. The server never may.
        min_peers: in rounds of fewer it does not take part.

    Attributes:
        contacts: of peers to whom messages may be due.
        signed_up_peers: how many wished at the same time, at most, and how many are wanted.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        server: Certificate,
        address: str,
        permits: Callable[[bytes], bool],
        min_peers: int = LEAST_GROUP,
    ) -> None:
        super().__init__(identity=identity, server=server, address=address)
        self.min_peers = min_peers
        self._permits = permits
        self.contacts: dict[bytes, Contact] = {}
        self.wish: Wish | None = None
        self.attempt: Attempt | None = None
        self.signed_up_peers: tuple[int, int] | None = None
        self._wishes = 0
        self._progress: tuple[int, float] = (0, 0.0)
        self._is_forgotten = False  # whether the server knows nothing of this peer's attempt
        self._early: dict[tuple[bytes, int], list[tuple[bytes, Message]]] = {}
        self._results: dict[bytes, bytes] = {}
        self._answered: set[tuple[bytes, bytes]] = set()  # rounds with results, and root actors who have asked for them
        self._given_up: dict[bytes, int] = {}  # rounds, and the last attempt in which this peer takes no part any more

    # What its owner wants

    def begin(self, prepared: Prepared, settings: Settings, now_s: float, wait_s: float) -> Wish:
        """Wish for the average of a model and those of others; a round must begin within `wait_s`.

        Args:
            settings: of the server, under which the model was prepared.
        """
        self.abandon(now_s)
        self._wishes += 1
        self.wish = Wish(self._wishes, prepared, settings, self.now_s + wait_s)
        self.signed_up_peers = None
        self._sign_up()
        return self.wish

    def abandon(self, now_s: float) -> None:
        """Wait for no average any more, and take no further part in its round."""
        self.set_clock(now_s)
        if self._is_waiting():
            self._give_up("given up by who had asked for it")

    def leave(self, now_s: float) -> None:
        self._fail("stopped before there was an average")
        super().leave(now_s)

    # Who may say what

    def check_session(self, sender: bytes, header: Header) -> None:
        super().check_session(sender, header)
        if sender in self.contacts and self.contacts[sender].session != header.session:
            raise ProtocolError("wrong session")

    def check_awaited(self, sender: bytes, header: Header) -> None:
        if sender == self.server.key:
            if header.kind not in FROM_SERVER:
                raise ProtocolError("wrong kind")
            return
        if header.kind in FROM_SERVER:
            raise ProtocolError("wrong sender")
        if header.kind == Kind.CONFIRM and self._is_early(header):
            told = self._early.get((header.round, header.attempt), ())
            if any((other, message.group) == (sender, header.group) for other, message in told):
                raise ProtocolError("repeated")
            return
        if header.round in self._results:
            is_question = header.kind == Kind.PREPARED and sender in self.contacts
            if not is_question or (header.round, sender) in self._answered:
                raise ProtocolError("repeated")
            return
        if self.attempt is None or self.attempt.assignment.round != header.round:
            # a result that this peer never takes must not keep its sender from sending anything else
            raise ProtocolError("repeated" if header.kind == Kind.RESULT else "wrong round")
        if self.attempt.assignment.attempt != header.attempt:
            raise ProtocolError("wrong attempt")
        self.attempt.check_awaited(sender, header)

    def _is_early(self, header: Header | Message) -> bool:
        """Return whether a message is of an attempt that this peer has yet to be told of."""
        if not self._is_waiting() or self._has_given_up(header.round, header.attempt):
            return False
        if sum(map(len, self._early.values())) >= MOST_EARLY:
            return False
        if self.attempt is None:
            return True
        assignment = self.attempt.assignment
        return header.round == assignment.round and header.attempt == assignment.attempt + 1

    # What comes

    def handle(self, sender: bytes, message: Message) -> None:
        if sender == self.server.key:
            getattr(self, f"_on_{message.kind.name.lower()}")(message)
        elif message.kind == Kind.CONFIRM and self._is_early(message):
            self._early.setdefault((message.round, message.attempt), []).append((sender, message))
        elif message.round in self._results:  # PREPARED, of a root actor that has yet to open the keys
            self._answered.add((message.round, sender))
            self._serve(sender, message)
        else:
            self._to_attempt(sender, message)
        self._after()

    def _to_attempt(self, sender: bytes, message: Message) -> None:
        try:
            self.attempt.handle(sender, message)
        except ProtocolError as error:
            if error.reason == "different assignments":
                self._give_up(
                    "the server told members of a group different things, so that models might have been exposed"
                )
            raise

    def delivered(self, receiver: bytes, message: Message) -> None:
        super().delivered(receiver, message)
        if receiver != self.server.key and self._is_current(message):
            self.attempt.delivered(receiver, message)
            self._after()

    def welcomed(self, *, is_known: bool) -> None:
        if self.refusal is not None:
            self._fail(self.refusal)
        elif self.attempt is None:
            self._sign_up()
        elif not is_known:
            self._is_forgotten = True
            self._progress = self.chunks_moved, self.now_s
            self.attempt.lose_server()

    def _on_status(self, message: Message) -> None:
        # the most: others whose patience ends at the same time have gone, and that is not why there was no round
        self.signed_up_peers = max(self.signed_up_peers or (0, 0), tuple(message.body))

    def _on_refuse(self, message: Message) -> None:
        self._fail(_printable(message.body[0]))

    def _on_assign(self, message: Message) -> None:
        data, signature = message.body
        try:
            self.server.verify(signature, CONTEXT + data)
        except InvalidSignature:
            raise ProtocolError("wrong signature") from None
        assignment = decode_assignment(data)
        if not self._is_waiting() or self._has_given_up(assignment.round, assignment.attempt):
            raise ProtocolError("not awaited")
        if self.key in assignment.contacts and assignment.contacts[self.key].session != self.session:
            raise ProtocolError("not awaited")  # an answer to a wish that was given up
        current = self.attempt.assignment if self.attempt else None
        if current and (current.round != assignment.round or current.attempt >= assignment.attempt):
            raise ProtocolError("wrong attempt")
        problem = self._problem(assignment)
        if problem:
            self._give_up(problem)
        else:
            self._begin(assignment)

    def _problem(self, assignment: Assignment) -> str | None:
        """Return why this peer will not follow an assignment."""
        try:
            assignment.check(self.key)
            self.settings.profile.check(assignment.n)
        except ValueError as error:
            return f"the server's assignment: {error}"
        if assignment.n < self.min_peers:
            return f"the server's assignment: expected at least {self.min_peers} peers (min_peers), got {assignment.n}"
        if self.server.key in assignment.contacts:
            return "the server put itself into this peer's group, to see its model or others'"
        strangers = [key.hex() for key in assignment.contacts if key != self.key and not self._permits(key)]
        if strangers:
            return (
                f"the server put a stranger into this peer's group, key {strangers[0]}, whose certificate is not here"
            )
        if assignment.layout_digest != self.wish.layout.digest or assignment.settings_digest != self.settings.digest:
            return "the server's assignment is for other models, or other settings"
        top = assignment.groups[-1]
        if top.is_root and bool(top.origins) != (self.settings.combination is not None):
            return "the server's assignment would show means of groups, or not, other than its settings say"
        return None

    def _begin(self, assignment: Assignment) -> None:
        self._drop_attempt(assignment.round, assignment.attempt)
        self.contacts = dict(assignment.contacts)
        if self.wish.began_s is None:
            self.wish.began_s = self.clock_s
        self._progress = self.chunks_moved, self.now_s
        self._is_forgotten = False
        fields = {"round": assignment.round, "attempt": assignment.attempt}
        self.attempt = Attempt(
            own_key=self.key,
            assignment=assignment,
            profile=self.settings.profile,
            prepared=self.wish.prepared,
            combination=self.settings.combination,
            send=lambda receiver, kind, *values, **more: self.send(receiver, kind, *values, **more, **fields),
            tell_server=lambda kind, *values, **more: self.send(self.server.key, kind, *values, **more, **fields),
        )
        self.attempt.start()
        where = assignment.round, assignment.attempt
        early = self._early.pop(where, [])
        # others may be ahead by an attempt: what comes through different sockets has no order
        self._early = {key: each for key, each in self._early.items() if key[0] == where[0] and key > where}
        for sender, message in early:
            group = self.attempt.groups.get(message.group)
            if group is not None and sender in group.members:
                self._to_attempt(sender, message)

    def _on_open(self, message: Message) -> None:
        if self._is_current(message):
            self.attempt.open(dict(message.body[0]))

    def _on_abort(self, message: Message) -> None:
        where = {"round": message.round, "attempt": message.attempt}
        if message.round in self._results:
            self.send(self.server.key, Kind.ABORTED, False, True, **where)
        elif self._is_current(message) and not self.attempt.withholds():
            self.attempt.freeze()
            self.send(self.server.key, Kind.ABORTED, False, self.attempt.released, **where)
        elif self._concerns(message) and not self._has_given_up(message.round, message.attempt):
            # or it was never told of the attempt, and now never will take part
            self._drop_attempt(message.round, message.attempt + 1)
            self.wish.deadline_s = max(self.wish.deadline_s, self.now_s + self.settings.timeout_s)
            self.send(self.server.key, Kind.ABORTED, True, False, **where)

    def _on_fail(self, message: Message) -> None:
        if self._concerns(message):
            self._remember(message.round, LAST_ATTEMPT)
            self._fail(_printable(message.body[0]))

    def _on_expect(self, message: Message) -> None:
        key, session, address = message.body[0]
        if self._is_current(message) and self._may_take_part(key):
            self.contacts.setdefault(key, Contact(session, address))
            self.attempt.helpers.add(key)

    def _on_serve(self, message: Message) -> None:
        key, session, address = message.body[0]
        if message.round in self._results and self._may_take_part(key):
            self.contacts.setdefault(key, Contact(session, address))
            self._serve(key, message)

    def _may_take_part(self, key: bytes) -> bool:
        return key != self.server.key and self._permits(key)

    def _serve(self, key: bytes, message: Message) -> None:
        """Send somebody the result of a message's round, unless it is under way."""
        under_way = ((each.kind, each.round) for each, _ in self.channel(key).undelivered())
        if (Kind.RESULT, message.round) not in under_way:
            self.send(key, Kind.RESULT, body=self._results[message.round], round=message.round, attempt=message.attempt)

    # What time brings

    def tick(self, now_s: float) -> None:
        super().tick(now_s)
        if self.attempt is not None:
            self._check_progress()
        elif self._is_waiting() and self.now_s >= self.wish.deadline_s:
            self._give_up(self._lateness())

    def waits_for(self) -> set[bytes]:
        return self.attempt.waits_for() if self.attempt else set()

    def _check_progress(self) -> None:
        """Go on without a server that is lost, for a limited time; one that is there ends what does not go on."""
        if self.chunks_moved != self._progress[0]:
            self._progress = self.chunks_moved, self.now_s
        if self.is_server_silent:
            self.attempt.lose_server()
            self._after()
        is_alone = self._is_forgotten or self.is_server_silent
        patience_s = (PATIENCE_ALONE if is_alone else LONGEST_PATIENCE) * self.settings.timeout_s
        if self.attempt is not None and self.now_s - self._progress[1] > patience_s:
            self._give_up(
                f"the server {'was lost' if is_alone else 'said nothing for too long'} in the middle of a round that "
                "cannot go on without it; whether the sum has been opened is unknown, so that the round is not repeated"
            )

    def _lateness(self) -> str:
        if self.is_server_silent:
            return "no answer from the server; is it running, and is this peer's certificate among its keys?"
        if self.signed_up_peers is None:
            return "the server did not begin a round in time"
        return "the server did not begin a round in time: {} of {} peers signed up".format(*self.signed_up_peers)

    # Inside

    def _sign_up(self) -> None:
        if self.settings is None or not self._is_waiting():
            return
        if self.refusal is not None:
            self._fail(self.refusal)
        elif self.wish.settings.digest != self.settings.digest:
            self._fail("the server has come back with other settings than those for which the model was prepared")
        else:
            self.send(self.server.key, Kind.SIGN_UP, self.wish.number, self.wish.layout.to_lists())

    def _is_waiting(self) -> bool:
        return self.wish is not None and not self.wish.is_over

    def _is_current(self, message: Message) -> bool:
        current = self.attempt.assignment if self.attempt else None
        return current is not None and (message.round, message.attempt) == (current.round, current.attempt)

    def _concerns(self, message: Message) -> bool:
        """Return whether a message is of the round in which this peer is, or of one of which it has yet to be told."""
        if not self._is_waiting() or self._has_given_up(message.round, LAST_ATTEMPT):
            return False
        return self.attempt is None or self.attempt.assignment.round == message.round

    def _has_given_up(self, round_id: bytes, attempt: int) -> bool:
        return attempt <= self._given_up.get(round_id, -1)

    def _remember(self, round_id: bytes, attempt: int) -> None:
        """Take no part any more in attempts of a round up to this one."""
        self._given_up[round_id] = max(attempt, self._given_up.pop(round_id, -1))
        while len(self._given_up) > REMEMBERED_ROUNDS:
            del self._given_up[next(iter(self._given_up))]

    def _after(self) -> None:
        """Note what has become of the attempt."""
        if self.attempt is None:
            return
        if self.attempt.problem is not None:
            self._give_up(self.attempt.problem)
        elif self.attempt.packed is not None:
            self.wish.n, self.wish.packed = self.attempt.assignment.n, self.attempt.packed
            self.wish.ended_s = self.clock_s
            self._keep(self.attempt.assignment.round, self.attempt.packed)
            self.attempt = None

    def _keep(self, round_id: bytes, packed: bytes) -> None:
        """Remember a result, for others who may need it, and take nothing more of its round."""
        self._results[round_id] = packed
        while len(self._results) > REMEMBERED_RESULTS:
            del self._results[next(iter(self._results))]
        self._answered = {each for each in self._answered if each[0] in self._results}
        self._remember(round_id, LAST_ATTEMPT)
        for incoming in self._incoming.values():
            incoming.forget(lambda header: header.round == round_id)

    def _fail(self, reason: str) -> None:
        """End the wish."""
        if self.attempt is not None:
            self._drop_attempt(self.attempt.assignment.round, LAST_ATTEMPT + 1)
        if self._is_waiting():
            self.wish.error, self.wish.ended_s = reason, self.clock_s

    def _give_up(self, reason: str) -> None:
        """End the wish, which the server thinks is on: for all others this is a new process from now on."""
        self._fail(reason)
        self.become_another()

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
        self._remember(round_id, attempt - 1)
        self.attempt = None


def _printable(text: str) -> str:
    """Return what others say as something that does nothing to a terminal."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
