"""Locks on the runs of a result directory, by files with owner and heartbeat.

They work between machines that share the directory, which locks held by open files need not. A lock is stale, and may
be taken over, when its owner is gone from this machine, or has not touched it for a minute.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.results import unwritable

FOLDER = ".locks"
STALE_AFTER_S = 60.0
BEAT_EVERY_S = 5.0


class Locks:
    """The locks that this process holds in a result directory; use as a context manager, which gives them up.

    Args:
        directory: the folder of all runs; it exists.

    Raises:
        UnwritableError: locks cannot be made there.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(directory, error) from error
        self._owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
        self._owner["token"] = secrets.token_hex(8)
        self._held: set[str] = set()

    def __enter__(self) -> "Locks":
        return self

    def __exit__(self, *exception: object) -> None:
        for name in list(self._held):
            self.release(name)

    def acquire(self, name: str) -> str | None:
        """Take the lock on a run; return who holds it, in words, if that is somebody else."""
        path = self._path(name)
        with self._alone() as now:
            owner = _read(path)
            if owner is not None and owner["token"] != self._owner["token"] and not _is_stale(path, owner, now):
                return f"{owner['host']}, process {owner['pid']}"
            unfinished = path.with_name(f".{path.name}.{self._owner['token']}")
            try:
                unfinished.write_text(json.dumps(self._owner), encoding="utf-8")
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
        self._held.add(name)
        return None

    def beat(self) -> None:
        """Show that this process is alive."""
        for name in self._held:
            with contextlib.suppress(OSError):  # a full disk, or somebody removed it; nothing hangs on one beat
                os.utime(self._path(name))

    def release(self, name: str) -> None:
        """Give up the lock on a run, unless somebody took it over meanwhile."""
        self._held.discard(name)
        path = self._path(name)
        with self._alone():
            owner = _read(path)
            if owner is not None and owner["token"] == self._owner["token"]:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[float]:
        """Keep other processes from changing locks while inside; gives the time by the folder's own clock, in s."""
        with (self._folder / "guard").open("a", encoding="utf-8") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            os.utime(guard.fileno())
            yield os.fstat(guard.fileno()).st_mtime


def _read(path: Path) -> dict[str, Any] | None:
    """Return the owner in a lock file; None if there is no such file, or nothing sensible in it."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) and {"host", "pid", "started", "token"} <= owner.keys() else None


def _is_stale(path: Path, owner: dict[str, Any], now: float) -> bool:
    if owner["host"] == socket.gethostname() and _started(owner["pid"]) != owner["started"]:
        return True
    return now - path.stat().st_mtime > STALE_AFTER_S


def _started(pid: int) -> str | None:
    """Return when a process of this machine started, which tells it from a later one of the same number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]  # one that is dead but not yet buried counts as gone
