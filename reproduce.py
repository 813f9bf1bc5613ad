#!/usr/bin/env python3
"""All runs of a grid, then a page about them: `python3 reproduce.py --grid smoke`; `--help` lists all flags."""

import sys
from collections.abc import Sequence

from tools.program import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Do the runs of a grid and return the exit status.

    0: all runs are there. 1: some failed, or their data could not be had. 2: a user's error. 128 + a signal's number.
    """

    def work() -> int:
        from experiments.grid_command import make_parser, reproduce

        return reproduce(make_parser("reproduce.py").parse_args(argv))

    return exit_status("reproduce.py", work, "interrupted; the same command goes on from here")


if __name__ == "__main__":
    sys.exit(main())
