"""The server as a program: it says what happens, until a signal ends it."""

import time
from collections.abc import Callable, Mapping
from typing import NoReturn

from peers.secure_aggregation.server import SchedulingServer
from tools.console import Console
from tools.interruption import Interrupted, Interruption

LOOK_EVERY_S = 0.2
NUISANCES_EVERY_S = 10.0
"""Outsiders choose how often there is news of them, and must not fill a log with it."""
EVENTS = ("rounds", "repeats", "peers")


def serve(server: SchedulingServer, console: Console, introduce: Callable[[Console], None]) -> NoReturn:
    """Run a server, one line per event, until a signal comes.

    Args:
        introduce: says what the server does, once it listens.

    Raises:
        UserError: the server cannot be started.
        Interrupted: always, at the end.
    """
    with Interruption() as interruption, server:
        introduce(console)
        seen: Mapping[str, int] = {}
        told: Mapping[str, int] = {}
        told_s = time.monotonic()
        while interruption.signal is None:
            server.wait(LOOK_EVERY_S)
            now, now_s = server.statistics, time.monotonic()
            lines = events(seen, now)
            if now_s - told_s >= NUISANCES_EVERY_S:
                lines += nuisances(told, now)
                told, told_s = now, now_s
            for line in lines:
                console.say(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}")
            seen = now
    rounds = server.statistics["rounds"]
    raise Interrupted(
        interruption.signal, f"interrupted, rounds complete: {rounds}; peers wait for the server's return"
    )


def events(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """Return what has happened between two looks at a server's statistics."""
    rounds, repeats, peers = (before.get(name, 0) for name in EVENTS)
    lines = [f"peers present: {now['peers']}"] if now["peers"] != peers else []
    lines += [f"attempts given up: {count}" for count in range(repeats + 1, now["repeats"] + 1)]
    return lines + [f"round {count} complete" for count in range(rounds + 1, now["rounds"] + 1)]


def nuisances(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """Return counts of what was refused or dropped that have grown."""
    grown = [f"{name} {count}" for name, count in now.items() if name not in EVENTS and count > before.get(name, 0)]
    return [", ".join(grown)] if grown else []
