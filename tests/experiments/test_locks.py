"""Locks on runs: who has them, and when they are taken over."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import locks as module
from experiments.locks import STALE_AFTER_S, Locks

ME = f"{socket.gethostname()}, process {os.getpid()}"


def lock_file(folder: Path) -> Path:
    return folder / ".locks" / "a.lock"


def age(path: Path, seconds: float) -> None:
    now = path.stat().st_mtime
    os.utime(path, (now - seconds, now - seconds))


def test_only_one_has_it(tmp_path: Path) -> None:
    first, second = Locks(tmp_path), Locks(tmp_path)
    assert first.acquire("a") is None
    assert first.acquire("a") is None  # again, by its owner
    assert second.acquire("a") == ME
    assert second.acquire("b") is None
    first.release("a")
    assert second.acquire("a") is None
    assert first.acquire("a") == ME


def test_leaving_gives_all_up(tmp_path: Path) -> None:
    with Locks(tmp_path) as first:
        first.acquire("a")
        first.acquire("b")
    assert sorted(path.name for path in (tmp_path / ".locks").iterdir()) == ["guard"]


def test_a_silent_owner_loses_it(tmp_path: Path) -> None:
    first, second = Locks(tmp_path), Locks(tmp_path)
    first.acquire("a")
    age(lock_file(tmp_path), STALE_AFTER_S - 5)
    assert second.acquire("a") == ME
    age(lock_file(tmp_path), 10)
    assert second.acquire("a") is None
    first.release("a")  # not its own any more
    assert first.acquire("a") == ME


def test_a_beat_keeps_it(tmp_path: Path) -> None:
    first, second = Locks(tmp_path), Locks(tmp_path)
    first.acquire("a")
    age(lock_file(tmp_path), 2 * STALE_AFTER_S)
    first.beat()
    assert second.acquire("a") == ME


def test_a_dead_owner_on_this_machine_loses_it_at_once(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("without /proc only the heartbeat tells")
    root = Path(__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r})\n"
    code += "from pathlib import Path; from experiments.locks import Locks; import os\n"
    code += f"assert Locks(Path({str(tmp_path)!r})).acquire('a') is None; os._exit(0)"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet buried
        assert lock_file(tmp_path).exists()
        assert Locks(tmp_path).acquire("a") is None


def test_another_process_of_the_same_number_is_not_the_owner(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("without /proc only the heartbeat tells")
    first = Locks(tmp_path)
    first.acquire("a")
    owner = json.loads(lock_file(tmp_path).read_text())
    lock_file(tmp_path).write_text(json.dumps({**owner, "started": "1"}))
    assert Locks(tmp_path).acquire("a") is None


def test_an_owner_on_another_machine_is_judged_by_its_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Locks(tmp_path)
    first.acquire("a")
    monkeypatch.setattr(module.socket, "gethostname", lambda: "elsewhere")
    monkeypatch.setattr(module, "_started", lambda _pid: None)
    second = Locks(tmp_path)
    assert second.acquire("a") == ME
    age(lock_file(tmp_path), 2 * STALE_AFTER_S)
    assert second.acquire("a") is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_lock_holds_nobody_off(content: str, tmp_path: Path) -> None:
    Locks(tmp_path).acquire("a")
    lock_file(tmp_path).write_text(content)
    assert Locks(tmp_path).acquire("a") is None
