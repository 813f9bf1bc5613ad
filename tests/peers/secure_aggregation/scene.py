"""A peer alone on the stage: its server and the other peers say what a test wants."""

import random
from dataclasses import replace
from typing import Any

import numpy as np

from peers.secure_aggregation.assignment import CONTEXT, Assignment, Contact
from peers.secure_aggregation.messages import Kind
from peers.secure_aggregation.peer import Peer
from peers.secure_aggregation.profiles import AverageAdditiveSharingModelProfile
from peers.secure_aggregation.settings import Settings
from peers.secure_aggregation.tree import Group, draw_tree
from peers.secure_aggregation.wish import Wish
from tests.peers.secure_aggregation.simulated import identity
from tests.peers.secure_aggregation.voices import Stage, Voice

TIMEOUT_S = 10.0
ROUND, LATER_ROUND = b"r" * 32, b"q" * 32
PROFILE = AverageAdditiveSharingModelProfile(digits_to_keep=6, clip=1000, max_weight=5)
SETTINGS = Settings(PROFILE, None, TIMEOUT_S)
MODEL = PROFILE.prepare({"w": np.array([1.0, 2.0])})


class Scene:
    """A peer, a server and other peers, who say what the test wants."""

    def __init__(self, *, others: int = 5, settings: Settings = SETTINGS) -> None:
        self.server = Voice(identity("server"))
        self.others = [Voice(identity(f"other{i}")) for i in range(others)]
        self.own = identity("own")
        self.permitted = {self.own.key, self.server.key, *(other.key for other in self.others)}
        certificate = self.server.identity.certificate
        self.peer = Peer(
            identity=self.own, server=certificate, address="tcp://own:1", permits=lambda key: key in self.permitted
        )
        self.stage = Stage(self.peer, [self.server, *self.others])
        self.settings = settings

    def welcome(self) -> None:
        self.stage.now_s += 0.01
        self.peer.start(self.stage.now_s)
        self.stage.talk()
        self.say(Kind.WELCOME, self.settings.to_text())
        self.server.heard.clear()

    def wish(self, wait_s: float = 100.0) -> Wish:
        wish = self.peer.begin(MODEL, self.settings, self.stage.now_s, wait_s)
        self.stage.talk()
        self.server.heard.clear()
        return wish

    def say(self, kind: Kind, *values: Any, **where: Any) -> None:
        """Let the server say something."""
        self.stage.say(self.server, kind, *values, **where)

    def assignment(self, role: str = "leaf", *, attempt: int = 0, **changes: Any) -> Assignment:
        """Return an assignment in which the peer is a leaf, an actor of its group, or of the root too."""
        keys = [self.own.key, *(other.key for other in self.others)]
        for seed in range(100):
            tree = draw_tree(keys, 3, 2, random.Random(seed), combined=self.settings.combination is not None)
            groups = tuple(tree.of(self.own.key))
            is_actor, is_root = self.own.key in groups[0].actors, self.own.key in tree.root.actors
            if {"leaf": not is_actor, "actor": is_actor and not is_root, "root": is_root}[role]:
                break
        contacts = {other.key: Contact(other.session(self.own.key), "tcp://other:1") for other in self.others}
        contacts[self.own.key] = Contact(self.peer.session, "tcp://own:1")
        contacts = {key: contacts[key] for group in groups for key in group.members}
        digests = MODEL.layout.digest, self.settings.digest
        return replace(Assignment(ROUND, attempt, len(keys), *digests, groups, contacts), **changes)

    def assign(self, assignment: Assignment) -> Assignment:
        data = assignment.encode()
        self.say(Kind.ASSIGN, data, self.server.identity.sign(CONTEXT + data), round=assignment.round)
        return assignment

    def begin(self, role: str = "leaf", **changes: Any) -> Assignment:
        """Let the peer take part in a round."""
        self.welcome()
        self.wish()
        assignment = self.assign(self.assignment(role, **changes))
        assert self.peer.attempt is not None
        return assignment

    def voice(self, key: bytes) -> Voice:
        return self.stage.voices[key]

    def confirm(self, assignment: Assignment, group: Group, *, but: bytes = b"") -> None:
        """Let all others of a group say what they were told of it."""
        where = {"round": assignment.round, "attempt": assignment.attempt, "group": group.number}
        for member in group.members:
            if member not in (self.own.key, but):
                self.stage.say(self.voice(member), Kind.CONFIRM, assignment.digest(group), **where)

    def finish(self, assignment: Assignment, *, result: bytes = bytes(16)) -> bytes:
        """Give a leaf the result of its round, and return who did."""
        provider = assignment.groups[-1].provider(self.own.key)
        where = {"round": assignment.round, "attempt": assignment.attempt, "group": 0}
        self.stage.say(self.voice(provider), Kind.RESULT, body=result, **where)
        return provider
