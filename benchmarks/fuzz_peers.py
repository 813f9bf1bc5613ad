"""Malformed frames for secure aggregation: `python3 benchmarks/fuzz_peers.py --frames 1000000`.

A server and twelve peers go from round to round in virtual time, without sockets. Ever changing ones among them are
villains, who between what they should send also send what is wrong: noise, chunks cut short or spliced, with bits
changed, sent again or in another's name, headers with other fields, and bodies that satisfy their schema and make no
sense, assignments of the server with a valid signature included. All of it is authenticated: outsiders, who have no
permitted key, get no byte through.

Whatever a process that receives them does but drop and count, or act as the protocol says, is a crash. Prints what has
been dropped and why, frames per second, and the memory of this process meanwhile. Exit status 1 after a crash, or if
memory grows after the first fifth by more than MOST_GROWTH_MB.
"""

import argparse
import json
import random
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import msgpack
import numpy as np

from peers.keys import Identity, create_keys
from peers.secure_aggregation import channel, messages
from peers.secure_aggregation.assignment import CONTEXT
from peers.secure_aggregation.combining import Combination
from peers.secure_aggregation.endpoint import Endpoint
from peers.secure_aggregation.messages import (
    ASSIGNMENT,
    BODIES,
    TENSORS,
    UNACKNOWLEDGED,
    Bytes,
    Flag,
    Header,
    Kind,
    Listing,
    ProtocolError,
    Row,
    Text,
    Whole,
)
from peers.secure_aggregation.peer import Peer
from peers.secure_aggregation.profiles import AverageAdditiveSharingModelProfile
from peers.secure_aggregation.scheduler import Scheduler
from peers.secure_aggregation.settings import Settings
from tools.program import exit_status

PEERS, TARGET = 12, 9
CHUNK_BYTES = 1024
"""In place of 1 MiB, so that small models take several chunks."""
STEP_S, TIMEOUT_S, WAIT_S = 0.05, 3.0, 20.0
RECENT = 100
"""Chunks of which others are made: all of the present sessions, most of the present round."""
LONGEST_PHASE = 100
"""Steps with the same villains."""
MOST_GROWTH_MB = 24
MOST_LINES = 24
ADDRESSES = ("tcp://127.0.0.1:1", "", "inproc://wake", "ipc:///tmp/x", "tcp://[::1]:70000", "x" * 256, "tcp://a:1;b:2")
TEXTS = ("", "x" * 1024, "\0", "{}", "[" * 1000, "\U0001f600" * 256, *ADDRESSES)

Chunk = tuple[bytes, bytes, list[bytes]]
"""Sender, receiver, frames."""


@dataclass
class Report:
    """What came of it.

    Attributes:
        frames: malformed ones, by how they were made.
        undecoded: of these, what `decode_chunk` said of those that it did not take.
        dropped: what endpoints counted, honest repetitions included.
        outcomes: of what peers wished for: an average, or why there is none.
        crashes: exceptions that got out of an endpoint, by type and place.
        memory_mb: of the process, at equal distances.
        receiving_s: time in which endpoints received malformed frames.
        seconds: all of the time, with that in which frames were made and honest ones went round.
    """

    frames: Counter[str] = field(default_factory=Counter)
    undecoded: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    memory_mb: list[float] = field(default_factory=list)
    rounds: int = 0
    repeats: int = 0
    receiving_s: float = 0.0
    seconds: float = 0.0


class World:
    """A server and peers, of which any may be told anything.

    Args:
        combined: whether means of groups meet a rule.
    """

    def __init__(self, identities: list[Identity], report: Report, rng: random.Random, *, combined: bool) -> None:
        self.server, *self.peers = identities
        self.report, self.rng = report, rng
        self.keys = [identity.key for identity in identities]
        self.profile = AverageAdditiveSharingModelProfile(3)
        self.settings = Settings(self.profile, Combination("median", 1) if combined else None, TIMEOUT_S)
        self.now_s = 0.0
        self.recent: deque[tuple[Header, Chunk]] = deque(maxlen=RECENT)
        self.assigned: deque[tuple[Header, Chunk]] = deque(maxlen=PEERS)
        self.villains: set[bytes] = set()
        self.per_chunk = 0
        self._until_s = 0.0
        self.endpoints: dict[bytes, Endpoint] = {}
        for key in self.keys:
            self.start(key)

    def start(self, key: bytes) -> None:
        """Begin a new process."""
        self.retire(key)
        if key == self.server.key:
            sizes = {"target_size": TARGET, "group_size": 3, "num_actors": 2, "min_size": 3}
            self.endpoints[key] = Scheduler(identity=self.server, settings=self.settings, **sizes)
            return
        identity = self.peers[self.keys.index(key) - 1]
        peer = Peer(
            identity=identity, server=self.server.certificate, address=ADDRESSES[0], permits=self.keys.__contains__
        )
        self.endpoints[key] = peer
        peer.start(self.now_s)

    def retire(self, key: bytes) -> None:
        """Count what an endpoint has counted."""
        endpoint = self.endpoints.pop(key, None)
        if endpoint is not None:
            self.report.dropped.update(endpoint.dropped)
        if isinstance(endpoint, Scheduler):
            self.report.rounds += endpoint.rounds
            self.report.repeats += endpoint.repeats

    def step(self) -> Iterator[Chunk]:
        """Let time pass, and yield every chunk that is sent, before it is delivered."""
        self.now_s += STEP_S
        sent: list[Chunk] = []
        for key in self.keys:
            self.guarded(key, lambda endpoint: endpoint.tick(self.now_s))
            self.guarded(key, self.wish)
            for receiver, frames in self.guarded(key, lambda endpoint: endpoint.outgoing(self.now_s)) or ():
                sent.append((key, receiver, [bytes(frame) for frame in frames]))
        if self.now_s > self._until_s:
            self.change_villains()
        for chunk in sent:
            if chunk[0] in self.villains:
                header, _ = messages.decode_chunk(chunk[2])
                of_kind = self.assigned if header.kind == Kind.ASSIGN and header.chunks == 1 else self.recent
                of_kind.append((header, chunk))
            yield chunk
            self.deliver(*chunk)

    def change_villains(self) -> None:
        """Let villains begin anew, as others can no longer follow them, and draw others, sometimes none."""
        for key in self.villains:
            self.start(key)
        self.recent.clear()
        self.assigned.clear()
        count = self.rng.choice((0, 1, 1, 2, 3))
        self.villains = set(self.rng.sample(self.keys[1:], count))
        if self.rng.random() < 0.2:
            self.villains.add(self.server.key)
        self.per_chunk = self.rng.choice((1, 2, 5))
        self._until_s = self.now_s + STEP_S * self.rng.randint(1, LONGEST_PHASE)

    def wish(self, endpoint: Endpoint) -> None:
        """Ask for an average whenever there is none to wait for."""
        if not isinstance(endpoint, Peer) or endpoint.settings is None or endpoint.refusal is not None:
            return
        if endpoint.wish is not None and endpoint.wish.is_over:
            self.report.outcomes[(endpoint.wish.error or "an average")[:80]] += 1
        if endpoint.wish is None or endpoint.wish.is_over:
            model = {"w": np.full((20, 20), self.rng.uniform(-1, 1), np.float32), "n": np.int64(self.rng.randrange(9))}
            endpoint.begin(self.profile.prepare(model), endpoint.settings, self.now_s, WAIT_S)

    def deliver(self, sender: bytes, receiver: bytes, frames: list[bytes]) -> None:
        """Give a chunk to its receiver."""
        self.guarded(receiver, lambda endpoint: endpoint.receive(sender, frames, self.now_s))

    def guarded(self, key: bytes, do: Callable[[Endpoint], Any]) -> Any:
        """Let an endpoint do something; if it crashes, count that, and begin a new process."""
        try:
            return do(self.endpoints[key])
        except Exception as error:  # whatever it is, it would have ended a process
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error} in {Path(place.filename).name}:{place.lineno} {place.name}"
            if what not in self.report.crashes:
                traceback.print_exc()
            self.report.crashes[what] += 1
            self.start(key)
            return None


class Attacker:
    """Makes chunks that are wrong out of chunks that were right."""

    def __init__(self, world: World) -> None:
        self.world, self.rng = world, world.rng
        self.ways: dict[str, Callable[[], list[Chunk]]] = {
            "noise": self.noise,
            "bits": self.bits,
            "cut": self.cut,
            "spliced": self.spliced,
            "again": self.again,
            "other sender": self.other_sender,
            "other field": self.other_field,
            "other body": self.other_body,
            "other kind": self.other_kind,
            "lie of the server": self.lie,
        }

    def chunks(self) -> tuple[str, list[Chunk]]:
        """Return chunks, and how they were made."""
        way = self.rng.choice(list(self.ways))
        return way, self.ways[way]()

    def pick(self) -> Chunk:
        """Return a chunk that a villain has sent."""
        return self.pick_with_header()[1]

    def pick_with_header(self) -> tuple[Header, Chunk]:
        header, (sender, receiver, frames) = self.rng.choice(self.world.recent)
        return header, (sender, receiver, list(frames))

    def noise(self) -> list[Chunk]:
        sender, receiver, frames = self.pick()
        sizes = self.rng.choices((0, 1, 90, 256, 257, 600), k=self.rng.choice((0, 1, 2, 2, 2, 3)))
        frames = [self.rng.randbytes(size) for size in sizes]
        if frames and self.rng.random() < 0.5:
            frames[0] = self.rng.choice(b"\x9b\xdc\xdd\x91\x80\xc6\xdb").to_bytes() + frames[0]
        return [(sender, receiver, frames)]

    def bits(self) -> list[Chunk]:
        sender, receiver, frames = self.pick()
        place = self.rng.randrange(2)
        changed = bytearray(frames[place])
        for _ in range(self.rng.choice((1, 1, 2, 8)) if changed else 0):
            changed[self.rng.randrange(len(changed))] ^= 1 << self.rng.randrange(8)
        frames[place] = bytes(changed)
        return [(sender, receiver, frames)]

    def cut(self) -> list[Chunk]:
        sender, receiver, frames = self.pick()
        place = self.rng.randrange(2)
        longer = frames[place] + self.rng.randbytes(self.rng.randrange(1, 9))
        shorter = frames[place][: self.rng.randrange(len(frames[place]) + 1)]
        frames[place] = self.rng.choice((longer, shorter))
        return [(sender, receiver, self.rng.choice((frames, frames[:1], [*frames, b""])))]

    def spliced(self) -> list[Chunk]:
        (sender, receiver, one), (_, _, two) = self.pick(), self.pick()
        place = self.rng.randrange(2)
        at = self.rng.randrange(len(one[place]) + 1)
        one[place] = self.rng.choice((two[place], one[place][:at] + two[place][at:]))
        return [(sender, receiver, one)]

    def again(self) -> list[Chunk]:
        return [self.pick()] * self.rng.randint(1, 3)

    def other_sender(self) -> list[Chunk]:
        header, (_, receiver, frames) = self.pick_with_header()
        sender = self.rng.choice([key for key in self.world.keys if key != receiver])
        if self.rng.random() < 0.5:
            frames[0] = messages.encode_header(header._replace(sender=sender))
        return [(sender, receiver, frames)]

    def other_field(self) -> list[Chunk]:
        header, (sender, receiver, frames) = self.pick_with_header()
        fields = [messages.VERSION, *header]
        place = self.rng.randrange(len(fields))
        likely = [self.any_of(messages.HEADER.fields[place]) for _ in range(3)]
        fields[place] = self.rng.choice([-1, (1 << 64) - 1, True, None, 1.0, "", [], *likely, *likely])
        return [(sender, receiver, [messages.pack(fields), frames[1]])]

    def other_body(self) -> list[Chunk]:
        header, (sender, receiver, _) = self.pick_with_header()
        return self.message(sender, receiver, header)

    def other_kind(self) -> list[Chunk]:
        header, (sender, receiver, _) = self.pick_with_header()
        rare = {Kind.HELLO, Kind.BYE}  # as these make all that follows part of no session
        kinds = sorted(set(Kind) - UNACKNOWLEDGED - (rare if self.rng.random() < 0.9 else set()))
        return self.message(sender, receiver, header._replace(kind=self.rng.choice(kinds)))

    def lie(self) -> list[Chunk]:
        """Return an assignment that differs from a real one, signed by the server all the same."""
        if not self.world.assigned:
            return self.noise()
        header, (sender, receiver, frames) = self.rng.choice(self.world.assigned)
        assignment = msgpack.unpackb(messages.unpack(BODIES[Kind.ASSIGN], frames[1])[0])
        assignment[1] += self.rng.choice((0, 1))  # the next attempt
        wrong = self.changed(assignment, ASSIGNMENT)
        body = messages.pack(wrong if ASSIGNMENT.check(wrong) else self.any_of(ASSIGNMENT))
        signature = self.world.server.sign(CONTEXT + body)
        return self.message(sender, receiver, header, messages.encode_body(Kind.ASSIGN, [body, signature]))

    def message(self, sender: bytes, receiver: bytes, header: Header, body: bytes | None = None) -> list[Chunk]:
        """Return a whole message, in its chunks, that continues the session of a chunk."""
        if header.kind in UNACKNOWLEDGED:
            return [(sender, receiver, [messages.encode_header(self.renumbered(header, 0)), b""])]
        if body is None and header.kind in TENSORS:
            size = self.rng.choice((header.length // 8 * 8, 402 * 8, 1608, 8, 0, header.length + 8))
            body = self.rng.randbytes(size)
        elif body is None:
            body = messages.encode_body(header.kind, self.any_of(BODIES[header.kind]))
        header = self.renumbered(header, len(body))
        parts = []
        for chunk in range(header.chunks):
            part = body[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]
            parts.append((sender, receiver, [messages.encode_header(header._replace(chunk=chunk)), part]))
        if self.rng.random() < 0.3:
            self.rng.shuffle(parts)
        return parts[: self.rng.choice((len(parts), len(parts), 1))]

    def renumbered(self, header: Header, length: int) -> Header:
        chunks = messages.number_of_chunks(length)
        sequence = header.sequence + self.rng.choice((0, 1, 1, 2, 3, 100))
        return header._replace(sequence=sequence, chunk=0, chunks=chunks, length=length)

    def any_of(self, schema: Any) -> Any:
        """Return a random value of a schema, made of what is in use where that may be."""
        rng = self.rng
        match schema:
            case Bytes(32, True):
                return rng.choice((*self.world.keys, self.pick_with_header()[0].round, bytes(32), rng.randbytes(32)))
            case Bytes(length, exact):
                return rng.randbytes(length if exact else rng.randrange(200))
            case Text(most):
                return rng.choice((*TEXTS, self.world.settings.to_text(), self.text_of_settings()))[:most]
            case Whole(below):
                session = self.pick_with_header()[0].session
                return rng.choice((0, 1, 2, 3, rng.randrange(100), session, rng.randrange(below), below - 1)) % below
            case Flag():
                return rng.random() < 0.5
            case Listing(of, most):
                return [self.any_of(of) for _ in range(min(rng.choice((0, 1, 1, 2, 3, 9)), most))]
            case Row(fields):
                return [self.any_of(each) for each in fields]

    def text_of_settings(self) -> str:
        """Return settings with one value changed."""
        settings = json.loads(self.world.settings.to_text())
        place = self.rng.choice([settings, settings["arguments"]])
        values = (None, True, -1, 0, 1, 19, 1e300, 10**400, float("nan"), "average-torch", [], {}, ["krum", 1, {}])
        place[self.rng.choice([*place, "other"])] = self.rng.choice(values)
        return json.dumps(settings)

    def changed(self, value: list[Any], schema: Row) -> list[Any]:
        """Return a value of a schema with one thing in it changed, deep inside more often than not."""
        place = self.rng.randrange(len(value))
        inner, of = value[place], schema.fields[place] if isinstance(schema, Row) else schema.of
        if isinstance(inner, list) and inner and self.rng.random() < 0.9:
            if self.rng.random() < 0.2:
                new = self.rng.choice((inner[:-1], inner + inner[-1:], inner[::-1]))
            else:
                new = self.changed(inner, of)
        else:
            new = self.any_of(of)
        return [*value[:place], new, *value[place + 1 :]]


def fuzz(frames: int, *, seed: int = 1, log: Callable[[str], None] | None = None) -> Report:
    """Feed so many malformed frames to servers and peers, half of them where means of groups meet a rule."""
    report, rng = Report(), random.Random(seed)
    begin_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, small_chunks():
        identities = [create_keys(name, Path(folder, "keys")) for name in ("server", *(f"p{i}" for i in range(PEERS)))]
        worlds = [World(identities, report, rng, combined=combined) for combined in (False, True)]
        attackers = [Attacker(world) for world in worlds]
        while report.frames.total() < frames:
            for world, attacker in zip(worlds, attackers, strict=True):
                for sender, _, _ in world.step():
                    if world.recent and sender in world.villains:
                        attack(world, attacker, report)
            while report.frames.total() >= frames * len(report.memory_mb) / 20:
                report.memory_mb.append(memory_mb())
                if log:
                    log(
                        f"{report.frames.total():>9} frames, {report.memory_mb[-1]:.1f} MB, {world.now_s:.0f} virtual s"
                    )
        for world in worlds:
            for key in world.keys:
                world.retire(key)
    report.seconds = time.perf_counter() - begin_s
    return report


def attack(world: World, attacker: Attacker, report: Report) -> None:
    """Deliver some malformed chunks."""
    for _ in range(world.rng.randint(0, 2 * world.per_chunk)):
        way, chunks = attacker.chunks()
        for sender, receiver, parts in chunks:
            report.frames[way] += 1
            try:
                messages.decode_chunk(parts)
            except ProtocolError as error:
                report.undecoded[error.reason] += 1
            begin_s = time.perf_counter()
            world.deliver(sender, receiver, parts)
            report.receiving_s += time.perf_counter() - begin_s


@contextmanager
def small_chunks() -> Iterator[None]:
    """Let chunks be small while this lasts."""
    with (
        mock.patch.object(messages, "CHUNK_BYTES", CHUNK_BYTES),
        mock.patch.object(channel, "CHUNK_BYTES", CHUNK_BYTES),
    ):
        yield


def memory_mb() -> float:
    """Return the memory that this process has in use, as Linux counts it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main(argv: list[str] | None = None) -> int:
    """Fuzz, and print what came of it; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    report = fuzz(arguments.frames, seed=arguments.seed, log=lambda line: print(line, flush=True))
    count = report.frames.total()
    growth = report.memory_mb[-1] - report.memory_mb[4]
    print(f"\n{count} malformed frames in {report.seconds:.0f} s")
    print(f"received in {report.receiving_s:.0f} s of these: {count / report.receiving_s:.0f} frames a second")
    print(f"rounds completed meanwhile: {report.rounds}, attempts given up and repeated: {report.repeats}")
    counters = {"made by": report.frames, "not decoded": report.undecoded, "dropped": report.dropped}
    for title, counter in {**counters, "wishes ended with": report.outcomes}.items():
        print(f"\n{title}:")
        for what, number in counter.most_common(MOST_LINES):
            print(f"{number:>9} {what!r}")
    print(f"\nmemory: {report.memory_mb[4]:.1f} MB after a fifth, {growth:+.1f} MB until the end")
    print(f"crashes: {report.crashes.total()}")
    for what, number in report.crashes.most_common():
        print(f"{number:>9} {what}")
    return 1 if report.crashes or growth > MOST_GROWTH_MB else 0


if __name__ == "__main__":
    sys.exit(exit_status("benchmarks/fuzz_peers.py", main))
