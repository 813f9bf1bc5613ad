#!/usr/bin/env python3
"""One seeded training run under attack: `python3 attack.py --gar krum --attack alie`; `--help` lists all flags."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run as told by the command line and return the exit status: 0, 2 for a user's error, 128 + a signal's number."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets its number
        stream.reconfigure(errors="backslashreplace")
    try:
        # Imported here, so that Ctrl-C in the second that torch takes ends as cleanly as later
        from experiments.command_line import parse
        from experiments.interruption import Interrupted
        from experiments.run import run
        from tools.console import Console
        from tools.errors import UserError, one_line

        try:
            run(parse(argv), Console())
        except UserError as error:
            print(f"attack.py: {one_line(error)}", file=sys.stderr)
            return 2
        except Interrupted as interruption:
            print(f"attack.py: {interruption}", file=sys.stderr)
            return 128 + interruption.signal
    except KeyboardInterrupt:
        print("attack.py: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
