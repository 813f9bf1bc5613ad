#!/usr/bin/env python3
"""All runs of a grid, then a page about them: `python3 reproduce.py --grid smoke`; `--help` lists all flags."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Do the runs of a grid and return the exit status.

    0: all runs are there. 1: some failed, or their data could not be had. 2: a user's error. 128 + a signal's number.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets its number
        stream.reconfigure(errors="backslashreplace")
    try:
        # Imported here, so that Ctrl-C in the second that torch takes ends as cleanly as later
        from experiments.grid_command import make_parser, reproduce
        from experiments.interruption import Interrupted
        from tools.errors import UserError, one_line

        try:
            return reproduce(make_parser("reproduce.py").parse_args(argv))
        except UserError as error:
            print(f"reproduce.py: {one_line(error)}", file=sys.stderr)
            return 2
        except Interrupted as interruption:
            print(f"reproduce.py: {interruption}", file=sys.stderr)
            return 128 + interruption.signal
    except KeyboardInterrupt:
        print("reproduce.py: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
