"""What a process of any engine does with a task."""

import json
import traceback

from experiments.config import RunConfig
from experiments.datasets import Data
from experiments.engines import Outcome
from experiments.environment import on_this_machine
from experiments.results import BusyFolderError, UnwritableError
from experiments.run import load_data, run
from tools.console import Console
from tools.errors import UserError, one_line
from tools.interruption import Interrupted


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
