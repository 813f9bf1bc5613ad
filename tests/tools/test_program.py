import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tools.errors import UserError
from tools.interruption import Interrupted, Interruption
from tools.program import exit_status


def raiser(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize("status", [0, 1])
def test_work_that_ends_by_itself_says_nothing(status: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_status("program", lambda: status) == status
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("--n: expected\n  1, got 2"), 2, "program: --n: expected 1, got 2\n"),
        (Interrupted(signal.SIGTERM, "stopped after step 3"), 143, "program: stopped after step 3\n"),
        (Interrupted(signal.SIGINT, "stopped after step 3"), 130, "program: stopped after step 3\n"),
        (KeyboardInterrupt(), 130, "program: try again\n"),
    ],
)
def test_an_early_end_is_one_line(
    error: BaseException, status: int, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert exit_status("program", raiser(error), "try again") == status
    assert capfd.readouterr() == ("", line)


def test_all_else_is_a_bug_and_shows_itself() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_status("program", raiser(ZeroDivisionError()))


def test_a_terminal_that_lacks_a_character_gets_its_number() -> None:
    code = (
        "import sys\nfrom tools.program import exit_status\nsys.exit(exit_status('program', lambda: print('…') or 3))\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (3, b"\\u2026\n", b"")


def test_the_first_signal_is_noted_and_the_second_one_raises() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_first_signal_raises_while_that_is_wished() -> None:
    with Interruption() as interruption:
        interruption.at_once = True
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
