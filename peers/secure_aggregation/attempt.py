"""One peer's part in one attempt of a round; no socket, clock or thread.

1. Members of a group tell each other the digest of what the server told them of it, CONFIRM.
2. Each member gives a share of its value to each actor of the group, SHARE or SEED.
3. An actor adds up the shares. What it has is its value at the next level: back to 1, until the root.
4. Root actors give each other their sums encrypted, SEALED. When all have all, and not before, the keys are opened:
   each gives its key to the server, READY, and the server all keys to all root actors, OPEN. If the server is gone,
   they promise each other to open, PREPARED, and when all have promised they give each other their keys, KEY.
5. The mean goes down the tree, RESULT.

Until the keys are opened nobody can know the sum, so that the attempt may be given up and the round be repeated without
somebody; afterwards it must not be, as the difference of two sums would show that one's model. When the server asks
whether it may be repeated, ABORT, nobody can ever have the keys of all others

- if anybody still `withholds` something without which no key is given to a peer, and never hands it out; or
- if two root actors have yet to give away their keys and never do, `freeze`: each lacks the other's, and all else both.
"""

import secrets
from collections.abc import Callable, Mapping

import numpy as np

from peers.secure_aggregation.assignment import Assignment
from peers.secure_aggregation.combining import Combination, combine_sums
from peers.secure_aggregation.layout import WORD_BYTES
from peers.secure_aggregation.messages import Header, Kind, Message, ProtocolError
from peers.secure_aggregation.profiles import AggregationProfile, Prepared, Share
from peers.secure_aggregation.shares import SEED_BYTES, encrypt, from_bytes, to_bytes
from peers.secure_aggregation.tree import LEAST_GROUP, Group

Send = Callable[..., None]


class _Sum:
    """The shares that an actor of a group has received, added up; or, for columns, side by side."""

    def __init__(self, group: Group, own_key: bytes, profile: AggregationProfile) -> None:
        self.profile = profile
        self.awaited = set(group.members)  # who has yet to give a share
        self.total: Prepared | None = None
        self.rows: dict[int, np.ndarray] = {}
        self.origins: dict[bytes, int] = {}
        if group.origins:
            column = group.actors.index(own_key)
            pairs = zip(group.members, group.origins, strict=True)
            self.origins = {member: number for member, (number, place) in pairs if place == column}
            self.awaited = set(self.origins)

    def add(self, sender: bytes, share: Share) -> None:
        self.awaited.remove(sender)
        if self.origins:
            self.rows[self.origins[sender]] = share.values
        else:
            self.total = self.profile.aggregate([share] if self.total is None else [self.total, share])

    def values(self) -> np.ndarray:
        """Return the sum (L,), or all rows one after another, in the order of their groups."""
        if self.origins:
            return np.concatenate([self.rows[number] for number in sorted(self.rows)])
        return self.total.values


class Attempt:
    """A peer's part in one attempt of a round.

    Args:
        own_key: public key of the peer.
        prepared: its model.
        combination: how means of groups are combined; None: by a sum over all.
        send: called with a receiver, a kind, and values or `body`, and the number of a `group`.
        tell_server: called with a kind, values and the number of a `group`.

    Attributes:
        packed: the result's bytes, once there is one.
        problem: why the opened sum gives no result, if that is so.
        released: whether the peer's own key has gone to other peers.
        helpers: who else may send the result.
    """

    def __init__(
        self,
        *,
        own_key: bytes,
        assignment: Assignment,
        profile: AggregationProfile,
        prepared: Prepared,
        combination: Combination | None,
        send: Send,
        tell_server: Send,
    ) -> None:
        self.own_key = own_key
        self.assignment = assignment
        self.profile = profile
        self.layout = prepared.layout
        self.combination = combination
        self.groups = {group.number: group for group in assignment.groups}
        self.packed: bytes | None = None
        self.problem: str | None = None
        self.released = False
        self.helpers: set[bytes] = set()
        self._send = send
        self._tell_server = tell_server
        self._values: dict[int, Prepared] = {0: prepared}
        self._confirmed: dict[int, set[bytes]] = {number: {own_key} for number in self.groups}
        self._handed_out: set[int] = set()  # levels
        self._undelivered: dict[int, set[tuple[Kind, bytes]]] = {}
        self._sums = {g.number: _Sum(g, own_key, profile) for g in assignment.groups if own_key in g.actors}
        top = assignment.groups[-1]
        self._root = top if top.is_root and own_key in top.actors else None
        self._others = frozenset(top.actors) - {own_key} if self._root else frozenset()
        self._key: bytes | None = None
        self._unsealed: set[bytes] = set()  # root actors without our sealed sum
        self._sealed: dict[bytes, np.ndarray] = {}
        self._keys: dict[bytes, bytes] = {}
        self._prepared: set[bytes] = set()
        self._is_ready = self._is_frozen = self._has_lost_server = False

    def start(self) -> None:
        """Tell the members of all own groups what the server said of them."""
        for group in self.groups.values():
            digest = self.assignment.digest(group)
            others = [member for member in group.members if member != self.own_key]
            self._undelivered[group.number] = {(Kind.CONFIRM, member) for member in others}
            for member in others:
                self._send(member, Kind.CONFIRM, digest, group=group.number)

    # What comes

    def check_awaited(self, sender: bytes, header: Header) -> None:
        """Raise ProtocolError for a message of this attempt that is not awaited, before its body has come."""
        if header.kind == Kind.RESULT:
            return self._check_result(sender, header)
        group = self.groups.get(header.group)
        if group is None:
            raise ProtocolError("unknown group")
        if sender not in group.members:
            raise ProtocolError("wrong sender")
        if header.kind == Kind.CONFIRM:
            if sender in self._confirmed[header.group]:
                raise ProtocolError("repeated")
            return None
        total = self._sums.get(header.group)
        if total is None:
            raise ProtocolError("wrong receiver")
        if header.kind in (Kind.SEED, Kind.SHARE):
            return self._check_share(sender, header, group, total)
        if group is not self._root or sender not in self._others:
            raise ProtocolError("wrong sender")
        if header.kind == Kind.SEALED:
            if sender in self._sealed:
                raise ProtocolError("repeated")
            if header.length != WORD_BYTES * self.layout.words * max(len(total.origins), 1):
                raise ProtocolError("wrong length")
        elif header.kind not in (Kind.PREPARED, Kind.KEY):
            raise ProtocolError("wrong kind")
        elif sender in (self._prepared if header.kind == Kind.PREPARED else self._keys):
            raise ProtocolError("repeated")
        return None

    def _check_share(self, sender: bytes, header: Header, group: Group, total: _Sum) -> None:
        if group.origins and (header.kind == Kind.SEED or sender not in total.origins):
            raise ProtocolError("wrong kind" if header.kind == Kind.SEED else "wrong sender")
        if sender not in total.awaited:
            raise ProtocolError("repeated")
        if header.kind == Kind.SHARE and header.length != WORD_BYTES * self.layout.words:
            raise ProtocolError("wrong length")

    def _check_result(self, sender: bytes, header: Header) -> None:
        top = self.assignment.groups[-1]
        providers = self._others if self._root else {top.provider(self.own_key)}
        if sender not in providers | self.helpers:
            raise ProtocolError("wrong sender")
        if header.length != self.layout.packed_bytes:
            raise ProtocolError("wrong length")

    def handle(self, sender: bytes, message: Message) -> None:
        """Act on an awaited message.

        Raises:
            ProtocolError: "different assignments": the server has told another member something else; "repeated": a
                second share, which began to come before the first had come as a whole.
        """
        kind, body = message.kind, message.body
        if kind == Kind.RESULT:
            self._finish(bytes(body))
        elif kind == Kind.CONFIRM:
            if body != [self.assignment.digest(self.groups[message.group])]:
                raise ProtocolError("different assignments")
            self._confirmed[message.group].add(sender)
        elif kind in (Kind.SEED, Kind.SHARE):
            if sender not in self._sums[message.group].awaited:
                raise ProtocolError("repeated")
            given = {"seed": body[0]} if kind == Kind.SEED else {"words": from_bytes(body)}
            self._sums[message.group].add(sender, Share(self.layout, **given))
        elif kind == Kind.SEALED:
            self._sealed[sender] = from_bytes(body)
        elif kind == Kind.PREPARED:
            self._prepared.add(sender)
        elif kind == Kind.KEY:
            self._prepared.add(sender)  # which was on its way, or is
            self._keys[sender] = body[0]
        self.advance()

    def delivered(self, receiver: bytes, message: Message) -> None:
        """Act on the news that a message has come."""
        if message.kind == Kind.SEALED:
            self._unsealed.discard(receiver)
        elif message.kind in (Kind.CONFIRM, Kind.SEED, Kind.SHARE):
            self._undelivered[message.group].discard((message.kind, receiver))
            self._tell_delivered(self.groups[message.group])
        self.advance()

    def open(self, keys: Mapping[bytes, bytes]) -> None:
        """Act on the keys of all root actors."""
        if self._root and set(keys) == set(self._root.actors) and self._is_ready:
            self._keys |= {actor: keys[actor] for actor in self._others}
            self.advance()

    def lose_server(self) -> None:
        """Go on without the server."""
        self._has_lost_server = True
        self.advance()

    def freeze(self) -> None:
        """Keep the own key from now on, unless it has been given away; take what comes all the same."""
        self._is_frozen = True

    # What follows

    def advance(self) -> None:
        """Do whatever can be done now."""
        for group in self.assignment.groups:
            level = group.level
            if level in self._values and self._confirmed[group.number] == set(group.members):
                self._hand_out(group, self._values.pop(level))
            total = self._sums.get(group.number)
            above = level + 1
            if total is None or total.awaited or above in self._values or above in self._handed_out:
                continue
            if group is not self._root:
                self._values[above] = total.total
        if self._root and self.packed is None and not self._sums[self._root.number].awaited:
            self._advance_root()

    def _hand_out(self, group: Group, value: Prepared) -> None:
        """Give shares of a value to the actors of a group."""
        self._handed_out.add(group.level)
        place = group.members.index(self.own_key)
        if group.origins:
            shares = [(group.actors[group.origins[place][1]], Share(value.layout, words=value.values))]
        else:
            first = group.actors.index(self.own_key) if self.own_key in group.actors else place % len(group.actors)
            actors = group.actors[first:] + group.actors[:first]  # who gets the vector, where the others are seeds
            shares = zip(actors, self.profile.create_shares_on_prepared_data(value, len(actors)), strict=True)
        for actor, share in shares:
            if actor == self.own_key:
                self._sums[group.number].add(actor, share)
                continue
            kind = Kind.SHARE if share.seed is None else Kind.SEED
            self._undelivered[group.number].add((kind, actor))
            if kind == Kind.SEED:
                self._send(actor, kind, share.seed, group=group.number)
            else:
                self._send(actor, kind, body=to_bytes(share.words), group=group.number)
        self._tell_delivered(group)

    def _tell_delivered(self, group: Group) -> None:
        """Tell the server when the others of a group need nothing more from this peer: from then on it may be lost."""
        if group.level in self._handed_out and not self._undelivered[group.number]:
            self._tell_server(Kind.DELIVERED, group=group.number)

    def _advance_root(self) -> None:
        root, total = self._root, self._sums[self._root.number]
        if self._key is None:
            self._key = secrets.token_bytes(SEED_BYTES)
            sealed = to_bytes(encrypt(self._key, total.values()))
            self._unsealed = set(self._others)
            for actor in self._others:
                self._send(actor, Kind.SEALED, body=sealed, group=root.number)
        if self._unsealed:
            return
        if not self._is_ready:
            self._is_ready = True
            self._tell_server(Kind.READY, self._key, group=root.number)
        if self._has_lost_server and self.own_key not in self._prepared:
            self._prepared.add(self.own_key)
            for actor in self._others:
                self._send(actor, Kind.PREPARED, group=root.number)
        if self._prepared == set(root.actors) and not self.released and not self._is_frozen:
            self.released = True
            for actor in self._others:
                self._send(actor, Kind.KEY, self._key, group=root.number)
        if self._others <= self._keys.keys() and self._others <= self._sealed.keys():
            values = total.values()
            for actor in self._others:
                values = values + encrypt(self._keys[actor], self._sealed[actor])
            try:
                packed = self._pack(values)
            except ValueError as error:
                self.problem = f"the sum of all models was opened, and there is no average: {error}"
            else:
                self._finish(packed)

    def _pack(self, values: np.ndarray) -> bytes:
        """Return the bytes of the mean, or of what the rule makes of means of groups."""
        rows = [Prepared(self.layout, row) for row in values.reshape(-1, self.layout.words)]
        n = self.assignment.n
        self.profile.check_sum(self.profile.aggregate(rows), n, n)
        if self.combination is None:
            data = self.profile.unprepare(rows[0])
        else:
            for row in rows:
                self.profile.check_sum(row, LEAST_GROUP, n)
            data = combine_sums(self.profile, rows, self.combination, seed=self.assignment.round)
        return self.profile.pack(data, self.layout)

    def _finish(self, packed: bytes) -> None:
        """Pass the result on to those members of own groups for whom that is our task."""
        self.packed = packed
        for group in reversed(self.assignment.groups):
            if self.own_key not in group.actors:
                continue
            for member in group.members:
                if member not in group.actors and group.provider(member) == self.own_key:
                    self._send(member, Kind.RESULT, body=packed, group=group.number)
        self._tell_server(Kind.DONE)

    # What the server wants to know

    def withholds(self) -> bool:
        """Return whether the keys can never be opened if this peer hands out nothing more."""
        if self._root is not None and self.own_key not in self._prepared:
            return True
        return any(group.level not in self._handed_out for group in self.assignment.groups)

    def waits_for(self) -> set[bytes]:
        """Return those whose messages, or acknowledgements, are the next that this peer waits for."""
        missing: set[bytes] = set()
        for number, group in self.groups.items():
            unconfirmed = set(group.members) - self._confirmed[number]
            if not unconfirmed and number in self._sums:
                missing |= self._sums[number].awaited
            missing |= unconfirmed | {receiver for _, receiver in self._undelivered[number]}
        missing |= self._unsealed
        if self._key is not None:
            missing |= self._others - self._sealed.keys()
        return missing - {self.own_key}
