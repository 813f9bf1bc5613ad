"""The server's part: who takes part in a round, and what becomes of it when somebody is lost.

The server sees no share and no model. It draws trees, and it decides between two things when somebody is lost: while
the keys of root actors are not opened, an attempt can be given up and the round be repeated without that peer, with
fresh shares; once they are, it is completed, or fails, but never repeated. Here is no socket, clock or thread.
"""

import random
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any

from peers.keys import Identity
from peers.secure_aggregation.assignment import CONTEXT, Assignment, Contact
from peers.secure_aggregation.blame import culprits
from peers.secure_aggregation.host import Host
from peers.secure_aggregation.layout import Layout
from peers.secure_aggregation.messages import ROUND_BYTES, Kind, Message
from peers.secure_aggregation.round import Round, State
from peers.secure_aggregation.settings import Settings
from peers.secure_aggregation.tree import Tree, draw_tree

STATUS_PAUSE_S = 1.0
LATE = "this peer was silent for too long, and the round went on without it"


class Scheduler(Host):
    """The server.

    Args:
        identity: its own.
        target_size: how many peers a round begins with.
        min_size: how few it may go on with.
        rng: draws trees.

    Attributes:
        rounds: completed ones.
        repeats: attempts that were given up.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        settings: Settings,
        target_size: int,
        group_size: int,
        num_actors: int,
        min_size: int,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(identity, settings)
        self.target_size, self.min_size = target_size, min_size
        self.group_size, self.num_actors = group_size, num_actors
        self.rng = rng or random.SystemRandom()
        self.round: Round | None = None
        self.rounds = self.repeats = 0
        self._told_s = 0.0
        self._told = 0
        self._has_begun = False

    # What comes

    def greeted(self, peer: bytes) -> None:
        """Tell a member that was lost what has become of its round."""
        current = self.round
        if current is None or peer in current.live or current.sessions.get(peer) != self.known[peer].session:
            return
        if peer in current.lost - current.failed and current.state is not State.ABORTING:
            current.lost.discard(peer)  # its duty is done, and the result can still be sent to it
        else:
            self._fail([peer], LATE)

    def _on_sign_up(self, sender: bytes, message: Message) -> None:
        number, lists = message.body
        known = self.known[sender]
        current = self.round
        begun = (current.sessions.get(sender), current.wishes.get(sender)) if current is not None else None
        if begun == (known.session, number):
            if sender not in current.live:
                self._fail([sender], LATE)
            return
        if number <= known.wish:
            return  # a wish that is over, told again
        known.wish = number
        if current is not None and sender in current.live:
            current.done.add(sender)  # nobody signs up again without the result
            self._opened()
        try:
            known.layout = Layout.from_lists(lists)
        except ValueError as error:
            self.tell(sender, Kind.REFUSE, str(error)[:1000])
            return
        known.signed_up_s = self.news_s = self.now_s
        self._close_round()
        self._start_round()

    def _on_delivered(self, sender: bytes, message: Message) -> None:
        if self._is_current(sender, message) and message.group in self.round.tree.numbers(sender):
            self.round.delivered.setdefault(sender, set()).add(message.group)

    def _on_ready(self, sender: bytes, message: Message) -> None:
        current = self.round
        if not self._is_current(sender, message) or sender not in current.tree.root.actors:
            return
        current.keys[sender] = message.body[0]
        if current.state is State.RUNNING and set(current.keys) == set(current.tree.root.actors):
            self._opened()
            keys = [[actor, current.keys[actor]] for actor in current.tree.root.actors]
            for actor in current.tree.root.actors:
                if actor not in current.lost:
                    self.send(actor, Kind.OPEN, keys, round=current.id, attempt=current.attempt)

    def _on_done(self, sender: bytes, message: Message) -> None:
        current = self.round
        if current is None or message.round != current.id or sender not in current.members:
            return
        current.done.add(sender)
        self._opened()
        self._close_round()
        self._start_round()

    def _on_aborted(self, sender: bytes, message: Message) -> None:
        current = self.round
        if not self._is_current(sender, message) or current.state is not State.ABORTING:
            return
        withholds, released = message.body
        if released:
            self._opened()
            return
        current.answered.add(sender)
        if withholds:
            current.withholding.add(sender)
        self._repeat_if_safe()

    # What time brings

    def tick(self, now_s: float) -> None:
        super().tick(now_s)
        self._tell_status()
        if self.round is not None:
            self._note_progress()
            if self.round.state is State.OPENED:
                self._redistribute()
            else:
                self._check_progress()
            self._close_round()
        self._start_round()

    def _tell_status(self) -> None:
        """Tell those who wait how many do, when that has changed."""
        waiting = self._waiting()
        if len(waiting) != self._told and self.now_s - self._told_s > STATUS_PAUSE_S:
            self._told, self._told_s = len(waiting), self.now_s
            for peer in waiting:
                self.tell(peer, Kind.STATUS, len(waiting), self.target_size)

    def _note_progress(self) -> None:
        current = self.round
        progress = sum(self.known[member].moved for member in current.live)
        if progress != current.progress:
            current.progress, current.progress_s = progress, self.now_s

    def _check_progress(self) -> None:
        """Give up an attempt in which nothing has moved for too long."""
        current = self.round
        if self.now_s - current.progress_s <= self.settings.silence_s:
            return
        current.progress_s = self.now_s
        if current.state is State.ABORTING:
            self._opened()  # nobody can say that the keys are safe
        else:
            self.lose(
                self._blamed(), "others waited for this peer in vain, or for its key, and the round went on without it"
            )

    def _blamed(self) -> list[bytes]:
        """Return those because of whom an attempt does not go on."""
        live = set(self.round.live)
        waits = {member: live.intersection(self.known[member].waits_for) for member in live}
        return culprits(waits) or [actor for actor in self.round.tree.root.actors if actor not in self.round.keys]

    def _redistribute(self) -> None:
        """See to it that members whose actors are gone get the result from somebody else."""
        current = self.round
        helpers = [peer for peer in current.live if peer in current.done]
        waiting = [peer for peer in current.live if peer not in current.done]
        still_since_s = max(current.opened_s, current.progress_s)
        if self.now_s - still_since_s > self.settings.timeout_s:
            self._fail(
                waiting,
                "the round may have been opened, but its result did not come through from those who may have it; it is "
                "not repeated, as the difference of two sums could show a model",
            )
            current.lost |= set(waiting)
            return
        for peer in waiting if helpers else ():
            top = current.tree.of(peer)[-1]
            provider = top.provider(peer) if peer not in top.actors else None
            since_s = max(current.served_s.get(peer, still_since_s), still_since_s)
            is_alone = provider in current.lost and peer not in current.served_s
            if is_alone or self.now_s - since_s > self.settings.timeout_s / 4:
                helper = helpers[len(current.served_s) % len(helpers)]
                current.served_s[peer] = self.now_s
                where = {"round": current.id, "attempt": current.attempt}
                self.send(peer, Kind.EXPECT, self._contact(helper), **where)
                self.send(helper, Kind.SERVE, self._contact(peer), **where)

    # Rounds

    def _waiting(self) -> list[bytes]:
        """Return who has signed up, first come first."""
        waiting = [peer for peer, known in self.known.items() if known.layout is not None]
        return sorted(waiting, key=lambda peer: self.known[peer].signed_up_s)

    def _start_round(self) -> None:
        if self.round is not None:
            return
        waiting = self._waiting()
        if len(waiting) >= self.target_size:
            chosen = self._agreeing(waiting)
            if len(chosen) >= self.target_size:
                self._begin_round(chosen[: self.target_size])
        elif self._is_rest(waiting):
            chosen = self._agreeing(waiting)
            if len(chosen) >= self.min_size:
                self._begin_round(chosen)

    def _is_rest(self, waiting: Sequence[bytes]) -> bool:
        """Return whether those who wait are enough, and all that are left of earlier rounds.

        Others may be about to come back, and are waited for once: for `timeout_s` without anybody new.
        """
        if not self._has_begun or not self.min_size <= len(waiting) == len(self.known):
            return False
        came_s = self.now_s - self.news_s
        return came_s > self.settings.timeout_s or all(self.known[peer].was_left for peer in waiting)

    def _agreeing(self, waiting: Sequence[bytes]) -> list[bytes]:
        """Return those with the most common kind of model, and refuse the others."""
        layouts = Counter(self.known[peer].layout for peer in waiting)
        agreed, _ = layouts.most_common(1)[0]
        for peer in waiting:
            if self.known[peer].layout != agreed:
                difference = agreed.difference(self.known[peer].layout)
                self.tell(peer, Kind.REFUSE, difference[:1000])
                self.known[peer].layout = None
        return [peer for peer in waiting if self.known[peer].layout == agreed]

    def _begin_round(self, members: list[bytes]) -> None:
        self._has_begun = True
        self._outgoing = {peer: channel for peer, channel in self._outgoing.items() if peer in self.known}
        layout = self.known[members[0]].layout
        wishes = {member: self.known[member].wish for member in members}
        sessions = {member: self.known[member].session for member in members}
        self.round = Round(secrets.token_bytes(ROUND_BYTES), layout, members, wishes, sessions, self._draw(members))
        for member in members:
            self.known[member].layout = None
            self.known[member].was_left = len(members) < self.target_size
        self._assign()

    def _draw(self, members: Sequence[bytes]) -> Tree:
        combined = self.settings.combination is not None
        return draw_tree(members, self.group_size, self.num_actors, self.rng, combined=combined)

    def _assign(self) -> None:
        current = self.round
        current.progress, current.progress_s = -1, self.now_s
        for member in current.members:
            groups = tuple(current.tree.of(member))
            keys = {key for group in groups for key in group.members}
            assignment = Assignment(
                round=current.id,
                attempt=current.attempt,
                n=len(current.members),
                layout_digest=current.layout.digest,
                settings_digest=self.settings.digest,
                groups=groups,
                contacts={key: Contact(self.known[key].session, self.known[key].address) for key in keys},
            )
            data = assignment.encode()
            self.send(member, Kind.ASSIGN, data, self.identity.sign(CONTEXT + data), round=current.id)

    def lose(self, peers: Sequence[bytes], reason: str | None = None) -> None:
        """Go on without some peers, and tell them why if they still listen."""
        for peer in peers:
            if reason is None:
                self._outgoing.pop(peer, None)
            else:
                self._fail([peer], reason)
            self.known.pop(peer, None)
        current = self.round
        if current is None or not (lost := [p for p in peers if p in current.members and p not in current.lost]):
            return
        current.lost |= set(lost)
        if current.state is State.RUNNING and not all(map(current.has_done_its_duty, lost)):
            current.state = State.ABORTING
            self._tell_abort()
        elif current.state is State.ABORTING:
            self._repeat_if_safe()
        self._close_round()

    def _tell_abort(self) -> None:
        current = self.round
        current.progress_s = self.now_s
        for member in current.live:
            self.send(member, Kind.ABORT, sorted(current.lost), round=current.id, attempt=current.attempt)

    def _repeat_if_safe(self) -> None:
        """Repeat the round with those who are left, if it is certain that the keys can never be opened."""
        current = self.round
        if not current.live:
            self.round = None
        elif current.can_never_be_opened:
            self._repeat()
        elif set(current.live) <= current.answered:
            self._opened()

    def _repeat(self) -> None:
        current, self.repeats = self.round, self.repeats + 1
        members = current.live
        problem = self._too_few(len(members), len(current.members))
        if problem:
            self._fail(members, problem)
            self.round = None
            return
        tree, attempt = self._draw(members), current.attempt + 1
        self.round = Round(current.id, current.layout, members, current.wishes, current.sessions, tree, attempt)
        self._assign()

    def _too_few(self, left: int, before: int) -> str | None:
        if left < self.min_size:
            return f"{left} of {before} peers are left, fewer than min_size = {self.min_size}"
        if self.settings.combination is not None:
            try:
                self.settings.combination.check(max(left // self.group_size, 1))
            except ValueError as error:
                return f"{left} of {before} peers are left: {error}"
        return None

    def _opened(self) -> None:
        if self.round.state is not State.OPENED:
            self.round.state, self.round.opened_s = State.OPENED, self.now_s

    def _close_round(self) -> None:
        """End a round in which nobody waits for anything any more."""
        current = self.round
        if current is not None and (not current.live or set(current.live) <= current.done):
            self.rounds += bool(current.done)
            self.round = None

    def _fail(self, peers: Sequence[bytes], reason: str) -> None:
        current = self.round
        for peer in peers:
            current.failed.add(peer)
            self.tell(peer, Kind.FAIL, reason[:1000], round=current.id, attempt=current.attempt)

    def _contact(self, peer: bytes) -> list[Any]:
        known = self.known[peer]
        return [peer, known.session, known.address]

    def _is_current(self, sender: bytes, message: Message) -> bool:
        current = self.round
        return (
            current is not None
            and (message.round, message.attempt) == (current.id, current.attempt)
            and sender in current.members
        )
