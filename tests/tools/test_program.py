import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tools.errors import UserError
from tools.interruption import Interrupted, Interruption
from tools.program import Parser, exit_status


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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--n x", "argument --n: invalid int value: 'x'; --help lists all flags"),
        ("--numb=1 sum", "unrecognized arguments: --numb=1; --help lists all flags"),
        ("product", "argument COMMAND: invalid choice: 'product' (choose from 'sum'); --help lists all flags"),
        ("sum --of", "argument --of: expected one argument; program.py sum --help lists all flags"),
    ],
)
def test_parsers_say_errors_in_one_line(line: str, message: str) -> None:
    parser = Parser("program.py")
    parser.add_argument("--n", type=int)
    parser.add_argument("--number")
    parser.add_subparsers(metavar="COMMAND").add_parser("sum").add_argument("--of")
    with pytest.raises(UserError) as error:
        parser.parse_args(line.split())
    assert str(error.value).replace("from sum", "from 'sum'") == message  # without quotes from Python 3.12 on
