"""What the server knows of a round; it sees no share and no model."""

from dataclasses import dataclass, field
from enum import Enum, auto

from peers.secure_aggregation.layout import Layout
from peers.secure_aggregation.tree import Tree


class State(Enum):
    """How far an attempt is."""

    RUNNING = auto()
    ABORTING = auto()  # waiting for word that its keys can never be opened
    OPENED = auto()  # or possibly: it is never repeated


@dataclass
class Round:
    """A round, and its present attempt.

    Attributes:
        wishes: numbers of the wishes of all who began the round.
        sessions: theirs.
        lost: members of this attempt that are gone.
        failed: those of them who have been told so.
        delivered: for each member, the groups in which nothing more is needed of it, but perhaps of its actors.
        keys: of root actors, so far.
        done: who has the result.
        withholding: who has said that it withholds something without which the keys are never opened.
        answered: who has said whether it does, and not given away its own key.
        served_s: when somebody was told to send the result to a member.
    """

    id: bytes
    layout: Layout
    members: list[bytes]
    wishes: dict[bytes, int]
    sessions: dict[bytes, int]
    tree: Tree
    attempt: int = 0
    state: State = State.RUNNING
    lost: set[bytes] = field(default_factory=set)
    failed: set[bytes] = field(default_factory=set)
    delivered: dict[bytes, set[int]] = field(default_factory=dict)
    keys: dict[bytes, bytes] = field(default_factory=dict)
    done: set[bytes] = field(default_factory=set)
    withholding: set[bytes] = field(default_factory=set)
    answered: set[bytes] = field(default_factory=set)
    served_s: dict[bytes, float] = field(default_factory=dict)
    progress: int = -1
    progress_s: float = 0.0
    opened_s: float = 0.0

    @property
    def live(self) -> list[bytes]:
        """Members that are not lost."""
        return [member for member in self.members if member not in self.lost]

    @property
    def can_never_be_opened(self) -> bool:
        """Whether the keys of root actors can never be opened, by those who have answered; see `attempt` for why."""
        return bool(self.withholding) or len(self.answered.intersection(self.tree.root.actors)) >= 2

    def has_done_its_duty(self, peer: bytes) -> bool:
        """Return whether the sum can be opened without a peer from now on, though it is not yet."""
        if peer in self.tree.root.actors:
            return False
        return self.tree.numbers(peer) == self.delivered.get(peer)
