"""What a server tells a peer of a round: the peer's own groups, signed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peers.secure_aggregation.messages import ASSIGNMENT, ProtocolError, pack, unpack
from peers.secure_aggregation.tree import LEAST_ACTORS, LEAST_GROUP, Group

CONTEXT = b"byzantium assignment 1\0"
"""What signed bytes begin with, so that no signature can be taken for one of something else."""


@dataclass(frozen=True)
class Contact:
    """Where a peer is, and in which session it talks to other peers."""

    session: int
    address: str


@dataclass(frozen=True)
class Assignment:
    """A peer's part in an attempt of a round.

    Attributes:
        n: peers in all.
        layout_digest: of the models.
        settings_digest: of the server's settings.
        groups: the peer's own, from level 0 upwards.
        contacts: of all members of these groups.
    """

    round: bytes
    attempt: int
    n: int
    layout_digest: bytes
    settings_digest: bytes
    groups: tuple[Group, ...]
    contacts: Mapping[bytes, Contact]

    def encode(self) -> bytes:
        """Return what is signed, but for its context."""
        rows = [_row(group, self.contacts) for group in self.groups]
        return pack([self.round, self.attempt, self.n, self.layout_digest, self.settings_digest, rows])

    def digest(self, group: Group) -> bytes:
        """Return what all members of a group must agree on, as SHA-256."""
        common = [self.round, self.attempt, self.n, self.layout_digest, self.settings_digest]
        return hashlib.sha256(CONTEXT + pack([*common, _row(group, self.contacts)])).digest()

    def check(self, own_key: bytes) -> None:
        """Raise ProtocolError for groups that do not hide their members' models, or are no part of a tree."""
        if not self.groups:
            raise ProtocolError("no groups")
        for level, group in enumerate(self.groups):
            members, actors = set(group.members), set(group.actors)
            if (
                group.level != level
                or (level > 0 and group.number <= self.groups[level - 1].number)
                or own_key not in members
                or (level > 0 and own_key not in self.groups[level - 1].actors)
                or len(members) != len(group.members)
                or len(actors) != len(group.actors)
                or len(actors) < LEAST_ACTORS
                or (level == 0 and len(members) < LEAST_GROUP)
            ):
                raise ProtocolError("impossible group")
        if self.n < len(self.contacts):
            raise ProtocolError("impossible group")
        last = self.groups[-1]
        if self.groups[0].is_root and self.n != len(self.groups[0].members):
            raise ProtocolError("impossible group")
        if own_key in last.actors and not last.is_root:
            raise ProtocolError("impossible group")
        if any(group.is_root for group in self.groups[:-1]) or any(group.origins for group in self.groups[:-1]):
            raise ProtocolError("impossible group")
        if last.origins:
            self._check_columns(own_key, last)

    def _check_columns(self, own_key: bytes, root: Group) -> None:
        places = dict(zip(root.members, root.origins, strict=True))
        columns = len(root.actors)
        own = self.groups[0]
        if (
            len(self.groups) != 2
            or self.n < LEAST_GROUP * len({number for number, _ in root.origins})
            or not root.is_root
            or len(set(root.origins)) != len(root.origins)
            or {place for _, place in root.origins} != set(range(columns))
            or len(root.origins) != columns * len({number for number, _ in root.origins})
            or any(places[actor][1] != column for column, actor in enumerate(root.actors))
            or places[own_key] != (own.number, own.actors.index(own_key))
        ):
            raise ProtocolError("impossible group")


def decode_assignment(data: bytes) -> Assignment:
    """Return the assignment that `encode` made these bytes of.

    Raises:
        ProtocolError: there is none.
    """
    round_id, attempt, n, layout_digest, settings_digest, rows = unpack(ASSIGNMENT, data)
    contacts: dict[bytes, Contact] = {}
    groups = []
    for number, level, is_root, peers, actors, origins in rows:
        for key, session, address in peers:
            if contacts.setdefault(key, Contact(session, address)) != Contact(session, address):
                raise ProtocolError("impossible group")
        members = tuple(key for key, _, _ in peers)
        if any(actor >= len(members) for actor in actors) or (origins and len(origins) != len(members)):
            raise ProtocolError("impossible group")
        places = tuple((group, place) for group, place in origins)
        groups.append(Group(number, level, is_root, members, tuple(members[actor] for actor in actors), places))
    return Assignment(round_id, attempt, n, layout_digest, settings_digest, tuple(groups), contacts)


def _row(group: Group, contacts: Mapping[bytes, Contact]) -> list[Any]:
    peers = [[key, contacts[key].session, contacts[key].address] for key in group.members]
    actors = [group.members.index(actor) for actor in group.actors]
    return [group.number, group.level, group.is_root, peers, actors, [list(origin) for origin in group.origins]]
