"""Aggregation trees: who adds up whose shares.

At level 0 all peers are in groups of about `group_size`; each group has `num_actors` actors, drawn at random, who hold
the shares of the group's sum. Actors are the participants of the next level, and so on until one group is left, the
root. A level has `num_actors` / `group_size` times the participants of the level below, so there are O(log n) levels.

Where a rule is to see the means of groups (`combined`), there are two levels: the a-th actors of all groups send what
they hold to the a-th actor of the root, who keeps one column of shares, a row for each group, and learns nothing from
it alone.

Source: Vujasinovic, HyperAggregate, 2021, for the tree; columns are ours.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tools.errors import UserError

LEAST_GROUP, LEAST_ACTORS = 3, 2


@dataclass(frozen=True)
class Group:
    """A group at a level.

    Attributes:
        number: of the group, unique in its tree; level 0 comes first.
        members: peers who take part, each once.
        actors: those of them who hold the shares of the sum.
        origins: in the root of a combined tree, for each member the number of its group, and which of its actors it is;
            else empty.
    """

    number: int
    level: int
    is_root: bool
    members: tuple[bytes, ...]
    actors: tuple[bytes, ...]
    origins: tuple[tuple[int, int], ...] = ()

    def provider(self, member: bytes) -> bytes:
        """Return the actor who sends the result to a member that is no actor."""
        return self.actors[self.members.index(member) % len(self.actors)]


@dataclass(frozen=True)
class Tree:
    """The groups of a round, by number."""

    groups: tuple[Group, ...]

    @property
    def root(self) -> Group:
        """The last group."""
        return self.groups[-1]

    @property
    def peers(self) -> tuple[bytes, ...]:
        """Everybody, in the order of groups."""
        return tuple(peer for group in self.groups if group.level == 0 for peer in group.members)

    def of(self, peer: bytes) -> list[Group]:
        """Return a peer's own groups, from level 0 upwards."""
        return [group for group in self.groups if peer in group.members]

    def numbers(self, peer: bytes) -> set[int]:
        """Return the numbers of a peer's own groups."""
        return {group.number for group in self.of(peer)}


def check_sizes(group_size: int, num_actors: int) -> None:
    """Raise UserError for sizes with which no sum is hidden, or no tree gets smaller towards its root."""
    for name, value, least in (("group_size", group_size, LEAST_GROUP), ("num_actors", num_actors, LEAST_ACTORS)):
        if type(value) is not int or value < least:
            reason = "in a pair each knows the other's model" if name == "group_size" else "one alone would see models"
            raise UserError(f"{name}: expected a whole number of at least {least}, as {reason}, got {value!r}")
    if num_actors >= group_size:
        raise UserError(f"num_actors: expected fewer than group_size = {group_size}, got {num_actors}")


def draw_tree(
    peers: Sequence[bytes], group_size: int, num_actors: int, rng: random.Random, *, combined: bool = False
) -> Tree:
    """Return a random tree of peers.

    Groups have at least `group_size` members, unless there are fewer peers, and fewer than twice as many.

    Raises:
        ValueError: peers who cannot make a group: the same twice, or no more than actors.
    """
    if len(set(peers)) != len(peers) or len(peers) <= num_actors:
        raise ValueError(f"expected more than {num_actors} different peers, got {len(set(peers))} of {len(peers)}")
    groups: list[Group] = []
    participants, level = list(peers), 0
    while True:
        rng.shuffle(participants)
        count = max(len(participants) // group_size, 1)
        last = count == 1 and not combined
        below: list[tuple[bytes, tuple[int, int]]] = []
        for index in range(count):
            members = tuple(participants[index::count])
            actors = members[:num_actors]  # as good as any, as members are in random order
            below += [(actor, (len(groups), place)) for place, actor in enumerate(actors)]
            groups.append(Group(len(groups), level, last, members, actors))
        level += 1
        if last:
            return Tree(tuple(groups))
        if combined:
            columns = [[actor for actor, (_, place) in below if place == column] for column in range(num_actors)]
            actors = tuple(rng.choice(column) for column in columns)
            members, origins = zip(*below, strict=True)
            return Tree((*groups, Group(len(groups), level, True, members, actors, origins)))
        participants = [actor for actor, _ in below]
