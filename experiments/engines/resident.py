"""A process that does one run after another: `python -m experiments.engines.resident`, started by the local engine.

Imports, the start of CUDA and the dataset are paid once. Requests come in on standard input and answers go out on
standard output, one JSON object a line. It ends at once when standard input does: its parent is gone.
"""

import faulthandler
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from experiments.config import RunConfig
from experiments.engines.tasks import DataCache, do
from tools.console import Console


class Answers:
    """Lines of JSON to whoever gave the task."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def send(self, **answer: Any) -> None:
        """Send one line; end at once if nobody is there any more, as a run's failure is not what that is."""
        try:
            print(json.dumps(answer), file=self._file, flush=True)
        except BrokenPipeError:
            os._exit(1)


class ReportingConsole(Console):
    """Writes lines to the run's logs, and sends the live line to the parent.

    While a run's logs are open, whatever libraries print to standard error, and the last words of a crash, go there.
    """

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def warn(self, text: str) -> None:
        """Log a line."""
        if self._logs:
            print(text, file=self._logs[1], flush=True)

    @contextmanager
    def logs(self, out: TextIO, err: TextIO) -> Iterator[None]:
        """Also write lines to these files, while inside."""
        before = os.dup(2)
        os.dup2(err.fileno(), 2)
        try:
            with super().logs(out, err):
                yield
        finally:
            os.dup2(before, 2)
            os.close(before)

    def update(self, text: str) -> None:
        """Send the live line."""
        self._answers.send(progress=text)


def main() -> int:
    """Answer requests until there are no more."""
    requests = queue.SimpleQueue()
    answers = Answers(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the parent, which tells what to do

    def read() -> None:
        for line in lines:
            requests.put(json.loads(line))
        os._exit(1)  # the parent is gone, and with it the purpose of the run under way

    threading.Thread(target=read, daemon=True).start()
    console, cache = ReportingConsole(answers), DataCache()
    while True:
        request = requests.get()
        outcome, reason = do(RunConfig.from_dict(request["config"]), request["only_data"], console, cache)
        answers.send(outcome=outcome.value, reason=reason)


if __name__ == "__main__":
    sys.exit(main())
