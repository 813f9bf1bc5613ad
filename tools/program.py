"""What every program here has: a parser, and an end with a status and at most one line of its own about why."""

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from tools.errors import UserError, one_line
from tools.interruption import Interrupted


def exit_status(name: str, work: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Do a program's work and return its exit status: that of the work, 2 for a user's error, 128 + a signal's number.

    Args:
        name: of the program, as a user types it; begins the line that says why it ended early.
        work: should import what takes long by itself, so that Ctrl-C in that second ends as cleanly as later.
        interrupted: what the line says at Ctrl-C, unless the work says more in an `Interrupted`.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets its number
        stream.reconfigure(errors="backslashreplace")
    try:
        return work()
    except UserError as error:
        status, reason = 2, one_line(error)
    except Interrupted as interruption:
        status, reason = 128 + interruption.signal, str(interruption)
    except KeyboardInterrupt:
        status, reason = 130, interrupted
    print(f"{name}: {reason}", file=sys.stderr)
    return status


class Parser(argparse.ArgumentParser):
    """A parser of a program's command line whose errors are UserErrors; flags are not abbreviated."""

    def __init__(
        self, prog: str, *, formatter_class: Any = argparse.RawDescriptionHelpFormatter, **settings: Any
    ) -> None:
        super().__init__(prog, formatter_class=formatter_class, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        command = f"{self.prog} " if " " in self.prog else ""  # a single word is what the line begins with already
        raise UserError(f"{message}; {command}--help lists all flags")
