"""A server alone in its hall: peers say what a test wants."""

import random
from typing import Any

from peers.secure_aggregation.assignment import Assignment, decode_assignment
from peers.secure_aggregation.combining import Combination
from peers.secure_aggregation.messages import Kind
from peers.secure_aggregation.profiles import AverageAdditiveSharingModelProfile
from peers.secure_aggregation.scheduler import Scheduler
from peers.secure_aggregation.settings import Settings
from tests.peers.secure_aggregation.simulated import identity
from tests.peers.secure_aggregation.voices import Stage, Voice

TIMEOUT_S = 10.0
SILENCE_S = 0.6 * TIMEOUT_S
PROFILE = AverageAdditiveSharingModelProfile(digits_to_keep=2)
LAYOUT = [["w", "float64", [2]]]
OTHER_LAYOUT = [["w", "float32", [3]]]


class Hall:
    """A server, and peers who say what the test wants; those in `lively` give signs of life."""

    def __init__(self, n: int = 6, *, combination: Combination | None = None, **sizes: int) -> None:
        sizes = {"target_size": n, "group_size": 3, "num_actors": 2, "min_size": 3} | sizes
        self.settings = Settings(PROFILE, combination, TIMEOUT_S)
        self.identity = identity("server")
        self.server = Scheduler(identity=self.identity, settings=self.settings, rng=random.Random(1), **sizes)
        self.peers = [Voice(identity(f"p{number}")) for number in range(n)]
        self.stage = Stage(self.server, self.peers)
        self.lively = list(self.peers)
        self.waits: dict[Voice, list[bytes]] = {}
        self.moved: dict[Voice, int] = {}
        self.wishes = 0

    def say(self, voice: Voice, kind: Kind, *values: Any, **where: Any) -> None:
        self.stage.say(voice, kind, *values, **where)

    def hello(self, *voices: Voice, session: int | None = None) -> None:
        for voice in voices or self.peers:
            own = 1000 + self.peers.index(voice) if session is None else session
            self.say(voice, Kind.HELLO, own, f"tcp://p{self.peers.index(voice)}:1")

    def sign_up(self, *voices: Voice, layout: list[Any] = LAYOUT, number: int | None = None) -> None:
        self.wishes += 1
        for voice in voices or self.peers:
            self.say(voice, Kind.SIGN_UP, self.wishes if number is None else number, layout)

    def begin(self) -> None:
        """Let all peers sign up, and be told."""
        self.hello()
        self.sign_up()
        assert self.server.round is not None

    def wait(self, seconds: float) -> None:
        """Let time pass, in which the lively tell that they live, what has moved and for whom they wait."""
        for _ in range(round(2 * seconds)):
            for voice in self.lively:
                self.say(voice, Kind.BEAT, self.moved.get(voice, 0), self.waits.get(voice, []))
            self.stage.wait(0.5)

    def answer(self, voice: Voice, kind: Kind, *values: Any, group: int = 0) -> None:
        """Let a peer say something about the present attempt."""
        current = self.server.round
        self.say(voice, kind, *values, round=current.id, attempt=current.attempt, group=group)

    def do_duty(self, voice: Voice) -> None:
        for group in self.server.round.tree.of(voice.key):
            self.answer(voice, Kind.DELIVERED, group=group.number)

    def voice(self, key: bytes) -> Voice:
        return self.stage.voices[key]

    @property
    def root(self) -> list[Voice]:
        return [self.voice(key) for key in self.server.round.tree.root.actors]

    @property
    def others(self) -> list[Voice]:
        return [peer for peer in self.peers if peer.key not in self.server.round.tree.root.actors]

    def leaf(self) -> Voice:
        tree = self.server.round.tree
        return next(peer for peer in self.peers if peer.key not in tree.of(peer.key)[0].actors)

    def told(self, voice: Voice) -> list[Assignment]:
        return [decode_assignment(message.body[0]) for message in voice.of(Kind.ASSIGN)]

    def errors(self, voice: Voice) -> list[str]:
        return [message.body[0] for message in voice.of(Kind.FAIL)]

    def open(self) -> None:
        for number, actor in enumerate(self.root):
            self.answer(actor, Kind.READY, bytes([number]) * 32)

    def lose(self, *voices: Voice) -> None:
        for voice in voices:
            self.lively.remove(voice)
            self.say(voice, Kind.BYE)
