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
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from experiments.config import RunConfig
from experiments.datasets import Data
from experiments.engines import Outcome
from experiments.environment import on_this_machine
from experiments.interruption import Interrupted
from experiments.results import BusyFolderError, UnwritableError
from experiments.run import load_data, run
from tools.console import Console
from tools.errors import UserError, one_line


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


class DataCache:
    """The data of the last run, which the next one most likely needs as well."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._data: Data | None = None

    def load(self, config: RunConfig) -> Data:
        """Return the run's data, on its device."""
        arguments = json.dumps(config.dataset_args, sort_keys=True)
        key = (config.dataset, arguments, config.no_transform, config.data_directory, config.device)
        if key != self._key:
            self._key = self._data = None  # the old data goes before the new comes
            self._data = load_data(config)
            self._key = key
        return self._data


def do(config: RunConfig, only_data: bool, console: Console, cache: DataCache) -> tuple[Outcome, str]:
    """Do a task and return how it ended, and why."""
    try:
        if only_data:
            cache.load(on_this_machine(config))
        else:
            run(config, console, cache.load)
    except Interrupted as error:
        return Outcome.INTERRUPTED, one_line(error)
    except BusyFolderError as error:
        return Outcome.BUSY, one_line(error)
    except UnwritableError as error:
        return Outcome.UNWRITABLE, one_line(error)
    except UserError as error:
        return Outcome.FAILED, one_line(error)
    except Exception as error:  # whatever it is, it costs this run only
        traceback.print_exc()
        return Outcome.FAILED, f"{type(error).__name__}: {one_line(error)}"
    return Outcome.DONE, ""


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
