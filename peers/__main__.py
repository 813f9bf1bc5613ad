"""Rounds between real processes: `python3 -m peers keys|server|demo`; `--help` lists all flags."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit status.

    0: done. 1: a process of the demo failed. 2: a user's error. 128 + a signal's number.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets its number
        stream.reconfigure(errors="backslashreplace")
    try:
        # Imported here, so that Ctrl-C in the second that this takes ends as cleanly as later
        from experiments.interruption import Interrupted
        from peers.command_line import make_parser
        from tools.errors import UserError, one_line

        try:
            arguments = make_parser().parse_args(argv)
            return arguments.run(arguments)
        except UserError as error:
            print(f"peers: {one_line(error)}", file=sys.stderr)
            return 2
        except Interrupted as interruption:
            print(f"peers: {interruption}", file=sys.stderr)
            return 128 + interruption.signal
    except KeyboardInterrupt:
        print("peers: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
