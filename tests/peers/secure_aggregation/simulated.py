"""A server and peers in virtual time, over a network that may lose, delay, repeat and reorder whatever is sent.

Processes crash, sleep and come back, and links are cut. All that is sent is watched: whatever else happens, no round is
repeated once the keys of its sum may be known to anybody, and no seed is used twice.
"""

import hashlib
import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from peers.keys import Identity, _identity
from peers.secure_aggregation.assignment import Assignment, decode_assignment
from peers.secure_aggregation.combining import Combination
from peers.secure_aggregation.endpoint import Endpoint
from peers.secure_aggregation.messages import Header, Kind, decode_chunk
from peers.secure_aggregation.peer import Peer
from peers.secure_aggregation.profiles import AverageAdditiveSharingModelProfile
from peers.secure_aggregation.scheduler import Scheduler
from peers.secure_aggregation.settings import Settings
from peers.secure_aggregation.wish import Wish

DIGITS, CLIP, MOST_WEIGHT = 2, 1000, 9
SERVER = -1


def identity(name: str) -> Identity:
    """Return keys that follow from a name."""
    secret = hashlib.sha256(name.encode()).digest()
    return _identity(name, hashlib.sha256(secret).digest(), secret)


@dataclass
class Model:
    """A peer's model in fixed point, but for counters; `marks` shows whose models are in a sum."""

    weight: int
    marks: list[int]
    values: list[int]
    counters: list[int]

    def arrays(self) -> dict[str, np.ndarray]:
        scale = 10**DIGITS
        return {
            "marks": np.array(self.marks, dtype=np.float64) / scale,
            "values": np.array(self.values, dtype=np.float64) / scale,
            "counters": np.array(self.counters, dtype=np.int64),
        }


@dataclass
class Process:
    """An endpoint, and what has become of it."""

    number: int
    endpoint: Endpoint
    alive: bool = True
    asleep: bool = False
    held: list[tuple[bytes, list[bytes]]] = field(default_factory=list)


class Watch:
    """Sees all messages, and knows what an adversary with everybody's mail could know.

    Attributes:
        kinds: messages, by kind.
        assignments: for every round and attempt, the assignment of each member.
        opened: attempts of which somebody has, or will have, the keys of all root actors.
        given: root actors who have given their keys to another one, for each attempt.
        parts: attempts in which each model has taken part, in their order.
    """

    def __init__(self) -> None:
        self.kinds: Counter[Kind] = Counter()
        self.assignments: dict[bytes, dict[int, dict[bytes, Assignment]]] = defaultdict(lambda: defaultdict(dict))
        self.opened: set[tuple[bytes, int]] = set()
        self.given: dict[tuple[bytes, int, bytes], set[bytes]] = defaultdict(set)
        self.parts: dict[int, tuple[Wish, list[tuple[bytes, int]]]] = {}
        self.seeds: set[bytes] = set()

    def see(self, sender: bytes, receiver: bytes, kind: Kind, values: tuple[Any, ...], where: dict[str, Any]) -> None:
        self.kinds[kind] += 1
        if kind == Kind.ASSIGN:
            assignment = decode_assignment(values[0])
            self.assignments[assignment.round][assignment.attempt][receiver] = assignment
        elif kind == Kind.OPEN:
            self.opened.add((where["round"], where["attempt"]))
        elif kind == Kind.KEY:
            self.given[where["round"], where["attempt"], receiver].add(sender)
        elif kind == Kind.SEED:
            assert values[0] not in self.seeds, "a seed was used twice"
            self.seeds.add(values[0])

    def see_part(self, wish: Wish, attempt: tuple[bytes, int]) -> None:
        """Note that a model takes part in an attempt of a round."""
        attempts = self.parts.setdefault(id(wish), (wish, []))[1]
        if attempt not in attempts:
            attempts.append(attempt)

    def check(self) -> None:
        """Assert that nobody could ever know two different sums of one round."""
        for (round_id, attempt, receiver), givers in self.given.items():
            root = next(
                group
                for assignment in self.assignments[round_id][attempt].values()
                for group in assignment.groups
                if group.is_root
            )
            if givers | {receiver} >= set(root.actors):
                self.opened.add((round_id, attempt))
        for round_id, attempt in self.opened:
            assert attempt == max(self.assignments[round_id]), "a round was repeated after its sum had been opened"
        for _, attempts in self.parts.values():
            assert not self.opened & set(attempts[:-1]), "a model took part again after its sum had been opened"


class Simulation:
    """n peers, known by their numbers, and a server.

    Args:
        drop, duplicate: probabilities that a chunk is lost, or comes twice.
        delay_s: every chunk takes a time drawn from between these.
    """

    def __init__(
        self,
        n: int,
        *,
        seed: int = 0,
        group_size: int = 3,
        num_actors: int = 2,
        target_size: int | None = None,
        min_size: int | None = None,
        timeout_s: float = 10.0,
        combination: Combination | None = None,
        drop: float = 0.0,
        duplicate: float = 0.0,
        delay_s: tuple[float, float] = (0.01, 0.02),
        words: int = 3,
    ) -> None:
        self.rng = random.Random(seed)
        self.n = n
        self.profile = AverageAdditiveSharingModelProfile(DIGITS, CLIP, MOST_WEIGHT)
        self.settings = Settings(self.profile, combination, timeout_s)
        self.sizes = {
            "target_size": n if target_size is None else target_size,
            "group_size": group_size,
            "num_actors": num_actors,
            "min_size": group_size if min_size is None else min_size,
        }
        self.drop, self.duplicate, self.delay_s, self.words = drop, duplicate, delay_s, words
        self.now_s = 0.0
        self.tick_s = timeout_s / 50
        self.deliveries = 0
        self.at_delivery: dict[int, Callable[[], None]] = {}
        self.watch = Watch()
        self.cut: set[tuple[int, int]] = set()
        self.spoil: Callable[[int, int, Header], bool] | None = None
        self.models: dict[int, Model] = {}
        self.wishes: dict[int, Wish] = {}
        self._identities = {number: identity(f"p{number}" if number >= 0 else "server") for number in range(-1, n)}
        self._numbers = {each.key: number for number, each in self._identities.items()}
        self._processes: dict[int, Process] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._queued = 0
        self._next_tick_s = 0.0
        for number in range(-1, n):
            self.start(number)

    # Processes

    @property
    def server(self) -> Scheduler:
        return self._processes[SERVER].endpoint

    def peer(self, number: int) -> Peer:
        return self._processes[number].endpoint

    def key(self, number: int) -> bytes:
        return self._identities[number].key

    def number(self, key: bytes) -> int:
        return self._numbers[key]

    @property
    def alive(self) -> list[int]:
        """Peers that have not crashed."""
        return [number for number, process in sorted(self._processes.items()) if number >= 0 and process.alive]

    def start(self, number: int) -> None:
        """Begin a new process."""
        own = self._identities[number]
        if number == SERVER:
            endpoint: Endpoint = Scheduler(
                identity=own, settings=self.settings, rng=random.Random(self.rng.random()), **self.sizes
            )
        else:
            server = self._identities[SERVER].certificate
            address, permits = f"tcp://p{number}:1", self._numbers.__contains__
            endpoint = Peer(identity=own, server=server, address=address, permits=permits)
        self._processes[number] = Process(number, endpoint)
        send = endpoint.send

        def watched_send(receiver: bytes, kind: Kind, *values: Any, **more: Any) -> None:
            self.watch.see(own.key, receiver, kind, values, more)
            if kind == Kind.CONFIRM:
                self.watch.see_part(endpoint.wish, (more["round"], more["attempt"]))
            send(receiver, kind, *values, **more)

        endpoint.send = watched_send
        if number != SERVER:
            endpoint.start(self.now_s)
            self._flush(self._processes[number])

    def crash(self, number: int) -> None:
        """End a process; what it has sent is still under way."""
        self._processes[number].alive = False

    def sleep(self, number: int) -> None:
        """Pause a process; what comes meanwhile waits for it."""
        self._processes[number].asleep = True

    def wake(self, number: int) -> None:
        """Let a process go on, with what other peers have said before what the server has, as real ones do."""
        process = self._processes[number]
        process.asleep, held, process.held = False, process.held, []
        for sender, frames in sorted(held, key=lambda each: each[0] == self.key(SERVER)):
            process.endpoint.receive(sender, frames, self.now_s)
        self._flush(process)

    def isolate(self, one: int, others: Iterable[int]) -> None:
        """Cut the links between one and others, both ways."""
        self.cut |= {pair for other in others for pair in ((one, other), (other, one))}

    # Rounds

    def model(self, number: int) -> Model:
        """Return a new random model of a peer."""
        most = CLIP * 10**DIGITS
        return Model(
            self.rng.randint(1, MOST_WEIGHT),
            [10**DIGITS * (each == number) for each in range(self.n)],
            [self.rng.randint(-most, most) for _ in range(self.words)],
            [self.rng.randint(-1000, 1000) for _ in range(2)],
        )

    def wish(self, number: int, *, wait_s: float = 100.0, model: Model | None = None) -> Wish:
        """Let a peer ask for an average."""
        self.models[number] = self.model(number) if model is None else model
        prepared = self.profile.prepare(self.models[number].arrays(), self.models[number].weight)
        self.wishes[number] = self.peer(number).begin(prepared, self.settings, self.now_s, wait_s)
        self._flush(self._processes[number])
        return self.wishes[number]

    def round(
        self, peers: Iterable[int] | None = None, *, wait_s: float = 100.0, within_s: float = 1e4
    ) -> dict[int, Wish]:
        """Let peers ask for averages, and wait until none of those who live waits any more."""
        self.wishes = {}
        for number in self.alive if peers is None else peers:
            self.wish(number, wait_s=wait_s)
        self.finish(within_s)
        return self.wishes

    def finish(self, within_s: float = 1e4) -> None:
        """Go on until no peer that is there waits for an average."""

        def is_over() -> bool:
            return all(
                wish.is_over or not self._processes[number].alive or self._processes[number].asleep
                for number, wish in self.wishes.items()
            )

        assert self.run(within_s, is_over), f"still waiting after {within_s} s"

    def members(self, number: int) -> set[int]:
        """Return whose models are in the result of a peer, and check all of it against Python's integers."""
        wish = self.wishes[number]
        assert wish.error is None, wish.error
        result = self.profile.unpack(wish.packed, wish.layout, dict.fromkeys(("marks", "values", "counters")))
        members = {number for number, mark in enumerate(result["marks"]) if mark}
        models = [self.models[member] for member in sorted(members)]
        weight = sum(model.weight for model in models)
        for name, mean in result.items():
            columns = zip(*(getattr(model, name) for model in models), strict=True)
            sums = [sum(m.weight * value for m, value in zip(models, column, strict=True)) for column in columns]
            if name == "counters":
                assert mean.tolist() == [(2 * total + weight) // (2 * weight) for total in sums]  # halves up
            else:
                assert [round(float(value) * weight * 10**DIGITS) for value in mean] == sums
        return members

    def outcome(self, peers: Iterable[int] | None = None) -> set[int] | None:
        """Return whose models are in the one result that all of some peers have; None: all have an error."""
        numbers = [number for number in (self.alive if peers is None else peers) if number in self.wishes]
        wishes = [self.wishes[number] for number in numbers]
        assert wishes
        if all(wish.error is not None for wish in wishes):
            return None
        assert len({wish.packed for wish in wishes}) == 1, [wish.error for wish in wishes]
        return self.members(numbers[0])

    # Time

    def run(self, for_s: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; return whether what was waited for has happened."""
        end_s = self.now_s + for_s
        while not until():
            next_s = min(self._next_tick_s, self._queue[0][0] if self._queue else np.inf)
            if next_s > end_s:
                self.now_s = end_s
                return False
            self.now_s = next_s
            if self._queue and self._queue[0][0] <= self._next_tick_s:
                heapq.heappop(self._queue)[2]()
            else:
                self._next_tick_s += self.tick_s
                for process in list(self._processes.values()):
                    if process.alive and not process.asleep:
                        process.endpoint.tick(self.now_s)
                        self._flush(process)
        return True

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._queued += 1
        heapq.heappush(self._queue, (self.now_s + seconds, self._queued, action))

    def _deliver(self, process: Process, sender: bytes, frames: list[bytes]) -> None:
        self.deliveries += 1
        if self.deliveries in self.at_delivery:
            self.at_delivery.pop(self.deliveries)()
        if not process.alive:
            return
        if process.asleep:
            process.held.append((sender, frames))
            return
        process.endpoint.receive(sender, frames, self.now_s)
        self._flush(process)

    def _flush(self, process: Process) -> None:
        for receiver, parts in process.endpoint.outgoing(self.now_s):
            frames = [bytes(part) for part in parts]
            number = self._numbers[receiver]
            if self.spoil is None or not self.spoil(process.number, number, decode_chunk(frames)[0]):
                self.send(process.number, number, frames)

    def send(self, sender: int, receiver: int, frames: list[bytes]) -> None:
        """Put a chunk on its way, if the network is kind."""
        if (sender, receiver) in self.cut:
            return
        for _ in range(1 + (self.rng.random() < self.duplicate)):
            if self.rng.random() >= self.drop:
                process, key = self._processes[receiver], self._identities[sender].key
                self.after(self.rng.uniform(*self.delay_s), partial(self._deliver, process, key, frames))
