"""The folder of one run: written as `<name>.pending`, renamed to `<name>` when the run is complete.

The rename is the only mark of completeness. What is in the way is moved aside, to `<name>.0`, `<name>.1` …, never
overwritten; two runs never write to one folder.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from tools.console import make_tree, render
from tools.errors import UserError


class BusyFolderError(UserError):
    """Another run is writing to the folder."""


class UnwritableError(UserError):
    """The folder cannot be written to: other runs beside it would fail as well."""


def unwritable(folder: Path, error: OSError) -> UnwritableError:
    """Return what to say of an error in writing to a folder."""
    what = f"cannot write to {folder}: {error.strerror or error}"
    return UnwritableError(f"--result-directory: {what}; make room, or name another folder")


def sibling(folder: Path, suffix: str) -> Path:
    """Return the folder of the same name with a suffix, e.g. ".pending"."""
    return folder.with_name(folder.name + suffix)


def move_aside(folder: Path) -> Path:
    """Rename a folder to the first free name of `<name>.0`, `<name>.1` …, and return that."""
    number = 0
    while (target := sibling(folder, f".{number}")).exists():
        number += 1
    return folder.rename(target)


class ResultDirectory:
    """The result folder of a run under way; use as a context manager.

    On leaving, a folder that is not finished stays `.pending` (an interruption) and can be continued.

    Args:
        folder: where the results will be once complete.
        continued: the folder a checkpoint was loaded from, and the step it holds; when it is this run's own folder its
            rows from that step on are cut off, and new ones appended.

    Raises:
        BusyFolderError: another run is writing to it.
        UnwritableError: it cannot be written to.
    """

    def __init__(self, folder: Path, continued: tuple[Path, int] | None = None) -> None:
        self.folder = folder
        self.pending = sibling(folder, ".pending")
        source = continued[0].resolve() if continued else None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if source != self.pending.resolve() and self.pending.exists():
                held = _lock(self.pending)
                move_aside(self.pending)
                os.close(held)
            if source == folder.resolve():
                shutil.copytree(folder, self.pending)
            self.pending.mkdir(exist_ok=True)
            self._lock = _lock(self.pending)
            if source in (folder.resolve(), self.pending.resolve()):
                for name in ("study", "eval"):
                    _cut(self.pending / name, continued[1])
            self._earlier = _read_timing(self.pending / "timing")
            self.out_log = self._append("stdout.log")
            self.err_log = self._append("stderr.log")
        except OSError as error:
            raise unwritable(self.pending, error) from error
        self._files: dict[str, TextIO] = {}
        self.finished = False

    def __enter__(self) -> "ResultDirectory":
        return self

    def __exit__(self, *exception: Any) -> None:
        if not self.finished:
            self._close()

    def _append(self, name: str) -> TextIO:
        return (self.pending / name).open("a", encoding="utf-8")

    def _close(self) -> None:
        for file in (*self._files.values(), self.out_log, self.err_log):
            with contextlib.suppress(OSError):  # a full disk, which the write before has reported
                file.close()
        os.close(self._lock)

    def write_config(self, title: str, groups: dict[str, dict[str, Any]], fields: dict[str, Any]) -> None:
        """Write `config`, for people, and `config.json`, for programs."""
        (self.pending / "config").write_text(render(make_tree(title, groups)) + "\n", encoding="utf-8")
        (self.pending / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")

    def write_study(self, columns: tuple[str, ...], rows: Iterable[tuple[float, ...]]) -> None:
        """Append rows to `study`, each of a step and a number of points, then measurements."""
        self._write("study", columns, (_format(*row[:2], floats=row[2:]) for row in rows))

    def write_evaluation(self, step: int, columns: tuple[str, ...], values: tuple[float, ...]) -> None:
        """Append a row to `eval`, whose columns after the step are these."""
        self._write("eval", ("Step number", *columns), [_format(step, floats=values)])

    def _write(self, name: str, columns: tuple[str, ...], lines: Iterable[str]) -> None:
        if name not in self._files:
            file = self._files[name] = self._append(name)
            if file.tell() == 0:
                file.write("# " + "\t".join(columns) + "\n")
        self._files[name].writelines(lines)
        self._files[name].flush()

    def write_timing(self, seconds: dict[str, float]) -> None:
        """Write `timing`, the seconds by phase, those of the part of the run before a checkpoint included."""
        phases = {**dict.fromkeys(self._earlier, 0.0), **seconds}
        lines = [f"{phase}\t{self._earlier.get(phase, 0.0) + spent:.6f}\n" for phase, spent in phases.items()]
        unfinished = self.pending / ".timing.unfinished"
        unfinished.write_text("# Phase\tSeconds\n" + "".join(lines), encoding="utf-8")
        unfinished.replace(self.pending / "timing")

    def finish(self) -> None:
        """Close everything and rename the folder to its final name."""
        self._end(self.folder)

    def fail(self) -> None:
        """Close everything and rename the folder to `<name>.failed`."""
        self._end(sibling(self.folder, ".failed"))

    def _end(self, target: Path) -> None:
        self.finished = True
        if target.exists():
            move_aside(target)
        self.pending.rename(target)
        self._close()


def set_failed(folder: Path, reason: str, log: str, fields: dict[str, Any]) -> None:
    """Leave `<name>.failed` for a run whose process could not do so itself, with why it failed.

    Args:
        folder: the run's, as it would be once complete.
        reason: in one line.
        log: what the process printed that is in no file of the run.
        fields: of the run's configuration, written if the run did not get to writing them.
    """
    pending, failed = sibling(folder, ".pending"), sibling(folder, ".failed")
    if pending.exists():
        if failed.exists():
            move_aside(failed)
        pending.rename(failed)
    failed.mkdir(parents=True, exist_ok=True)
    if not (failed / "config.json").exists():
        (failed / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    with (failed / "stderr.log").open("a", encoding="utf-8") as file:
        file.write(f"{log}{reason}\n")


def read_accuracies(folder: Path) -> list[float]:
    """Return the accuracies of a finished run, in the order of its evaluations; none if there are none."""
    try:
        lines = (folder / "eval").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [float(line.split("\t")[1]) for line in lines if not line.startswith("#")]


def _lock(folder: Path) -> int:
    """Return an open descriptor that keeps other runs out of a folder until it is closed.

    Raises:
        BusyFolderError: another run has it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BusyFolderError(
            f"--result-directory: another run is writing to {folder}; wait for it, or name another folder"
        ) from None
    return descriptor


def _cut(path: Path, step: int) -> None:
    """Leave only the header and the rows before a step in a file, if there is one."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # a killed run may leave half a line
        try:
            kept = [line for line in whole if line.startswith("#") or int(line.split("\t")[0]) < step]
        except ValueError as error:
            raise UserError(f"--load-checkpoint: expected rows that begin with a step in {path}: {error}") from error
        shortened = path.with_name(f".{path.name}.shortened")
        shortened.write_text("".join(kept), encoding="utf-8")
        shortened.replace(path)


def _read_timing(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    try:
        return {phase: float(seconds) for phase, seconds in rows}
    except ValueError:  # damaged; nothing hangs on it
        return {}


def _format(*integers: int, floats: Iterable[float]) -> str:
    return "\t".join((*map(str, integers), *(f"{value:.8e}" for value in floats))) + "\n"
