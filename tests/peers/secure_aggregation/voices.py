"""Endpoints that say what a test tells them to, and talk to a real one without delay or loss."""

from collections.abc import Iterable
from typing import Any

from peers.keys import Identity
from peers.secure_aggregation.endpoint import Endpoint
from peers.secure_aggregation.messages import (
    TENSORS,
    Header,
    Kind,
    Message,
    ProtocolError,
    encode_body,
    encode_header,
    number_of_chunks,
)


class Voice(Endpoint):
    """Takes whatever comes, and remembers it.

    Attributes:
        heard: messages that have come, with their senders.
        refuses: kinds of messages that are neither taken nor acknowledged.
        asked_who: how often somebody said that this voice was unknown.
    """

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity.key)
        self.identity = identity
        self.heard: list[tuple[bytes, Message]] = []
        self.refuses: set[Kind] = set()
        self.asked_who = 0

    def check_awaited(self, sender: bytes, header: Header) -> None:
        if header.kind in self.refuses:
            raise ProtocolError("refused")

    def handle(self, sender: bytes, message: Message) -> None:
        self.heard.append((sender, message))

    def who(self, sender: bytes) -> None:
        self.asked_who += 1

    def renew(self, other: bytes) -> None:
        """Talk in a new session from now on."""
        self._outgoing.pop(other, None)

    def session(self, other: bytes) -> int:
        """Return the session in which this voice talks."""
        return self.channel(other).session

    def of(self, kind: Kind) -> list[Message]:
        """Return the messages of a kind that have come."""
        return [message for _, message in self.heard if message.kind == kind]

    def take(self, kind: Kind) -> Message:
        """Return the only message of a kind that has come, and forget what has."""
        (message,) = self.of(kind)
        self.heard.clear()
        return message


class Stage:
    """A real endpoint among voices, and a clock.

    Args:
        ticks: how often a second the endpoint is told the time.
    """

    def __init__(self, actor: Endpoint, voices: Iterable[Voice], ticks: float = 10.0) -> None:
        self.actor = actor
        self.voices = {voice.key: voice for voice in voices}
        self.now_s = 0.0
        self.step_s = 1 / ticks
        self.mute: set[bytes] = set()
        """Voices whose messages, and acknowledgements, are lost."""

    def talk(self) -> None:
        """Exchange messages until nobody has anything to say."""
        talking = True
        while talking:
            talking = False
            for receiver, frames in self.actor.outgoing(self.now_s):
                talking = True
                self.voices[receiver].receive(self.actor.key, [bytes(part) for part in frames], self.now_s)
            for voice in self.voices.values():
                for _, frames in voice.outgoing(self.now_s):
                    if voice.key not in self.mute:
                        talking = True
                        self.actor.receive(voice.key, [bytes(part) for part in frames], self.now_s)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / self.step_s)):
            self.now_s += self.step_s
            self.actor.tick(self.now_s)
            self.talk()

    def say(self, voice: Voice, kind: Kind, *values: Any, **where: Any) -> None:
        """Let a voice say something, and all talk about it."""
        voice.send(self.actor.key, kind, *values, **where)
        self.talk()

    def whisper(
        self, sender: bytes, kind: Kind, /, *values: Any, body: bytes | None = None, **header: Any
    ) -> str | None:
        """Hand the endpoint a single chunk with a header of its own; return why it was dropped, if it was."""
        body = body if kind in TENSORS else encode_body(kind, values)
        fields = {"round": bytes(32), "attempt": 0, "group": 0, "sender": sender, "session": 0, "sequence": 0}
        fields |= {"chunk": 0, "chunks": number_of_chunks(len(body)), "length": len(body)} | header
        before = self.actor.dropped.copy()
        self.actor.receive(sender, [encode_header(Header(kind=kind, **fields)), body], self.now_s)
        reasons = list((self.actor.dropped - before).elements())
        assert len(reasons) <= 1
        return reasons[0] if reasons else None
