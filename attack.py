#!/usr/bin/env python3
"""One seeded training run under attack: `python3 attack.py --gar krum --attack alie`; `--help` lists all flags."""

import sys
from collections.abc import Sequence

from tools.program import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Run as told by the command line and return the exit status: 0, 2 for a user's error, 128 + a signal's number."""

    def work() -> int:
        from experiments.command_line import parse
        from experiments.run import run
        from tools.console import Console

        run(parse(argv), Console())
        return 0

    return exit_status("attack.py", work)


if __name__ == "__main__":
    sys.exit(main())
