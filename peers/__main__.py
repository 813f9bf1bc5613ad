"""Rounds between real processes: `python3 -m peers keys|server|demo`; `--help` lists all flags."""

import sys
from collections.abc import Sequence

from tools.program import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit status.

    0: done. 1: a process of the demo failed. 2: a user's error. 128 + a signal's number.
    """

    def work() -> int:
        from peers.command_line import make_parser

        arguments = make_parser().parse_args(argv)
        return arguments.run(arguments)

    return exit_status("peers", work)


if __name__ == "__main__":
    sys.exit(main())
