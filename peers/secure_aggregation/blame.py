"""Whose fault it is that an attempt does not go on, judged by who waits for whom."""

from collections import Counter
from collections.abc import Mapping


def culprits(waits: Mapping[bytes, set[bytes]]) -> list[bytes]:
    """Return those because of whom nobody goes on, given for everybody those for whose messages they wait.

    Whoever waits for somebody who waits in turn is not to blame. At the ends of such chains are peers who wait for
    nobody, and rings of peers who wait for each other, as two do who cannot reach each other: of a ring it is the one
    for whom most of the ring wait.
    """
    reached = {peer: _reached(waits, peer) for peer in waits}
    ends = {
        frozenset(reached[peer] | {peer})
        for peer in set().union(*waits.values())
        if all(peer in reached[other] for other in reached[peer])
    }
    found = []
    for end in ends:
        counts = Counter(peer for other in end for peer in waits[other])
        found.append(max(sorted(end), key=lambda peer, counts=counts: counts[peer]))
    return sorted(found)


def _reached(waits: Mapping[bytes, set[bytes]], peer: bytes) -> set[bytes]:
    """Return for whom a peer waits, directly or through others."""
    reached: set[bytes] = set()
    to_visit = list(waits[peer])
    while to_visit:
        other = to_visit.pop()
        if other not in reached:
            reached.add(other)
            to_visit += waits[other]
    return reached
