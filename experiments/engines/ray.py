"""The Ray engine: runs as tasks on a cluster, a fraction of a GPU or some CPU cores each.

Ray is optional: `pip install ray`. This code travels to the nodes by itself; data must be in the same folder on every
node, or can be downloaded there. Results are written to the result directory where a node shares it, and are fetched
back from elsewhere. A run whose node is lost is done again on another.
"""

import dataclasses
import functools
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.config import RunConfig
from experiments.engines import Ended, Engine, Event, Outcome, Task
from experiments.engines.local import ROOT
from experiments.engines.tasks import DataCache, do
from experiments.environment import COMMIT_VARIABLE, commit
from experiments.results import move_aside, sibling
from tools.console import Console
from tools.errors import UserError, one_line

LEFT_AT_HOME = (".git", ".venv", "results-data", "results-plot", "/experiments/datasets/cache", "/benchmarks/records")
Files = dict[str, bytes]
"""The contents of a run's folders by path, seen from the folder of all runs."""


class RayEngine(Engine):
    """Tasks on a Ray cluster.

    Args:
        address: of the cluster; by default the one this machine belongs to, or else a new one of this machine only.
        results: the folder of all runs, which nodes may share.
        supercharge: runs side by side on each GPU, or on the CPU of each node; by default 1, and cores ÷ threads.
        threads: of each run.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str | None, results: Path, supercharge: int | None, threads: int) -> None:
        self._ray = _connect(address)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = int(sum(resources.get("GPU", 0) for resources in nodes))
        if gpus:
            share: dict[str, float] = {"num_gpus": 1 / (supercharge or 1), "num_cpus": 0}
            count = gpus * (supercharge or 1)
        else:
            cores = [resources.get("CPU", 0) for resources in nodes if resources.get("CPU", 0)]
            per_run = min(cores) / supercharge if supercharge else threads
            share = {"num_cpus": per_run}
            count = max(1, int(sum(number // per_run for number in cores)))
        self.slots = [f"ray {number}" for number in range(1, count + 1)]
        self.devices = frozenset({"cuda" if gpus else "cpu"})
        self._results = results.resolve()
        self._marker = self._results / f".shared-{secrets.token_hex(8)}"
        self._remote = self._ray.remote(max_retries=0, **share)(do_on_node)
        self._tasks: dict[Any, tuple[int, Task, set[str]]] = {}

    def __enter__(self) -> "RayEngine":
        self._marker.touch()
        return self

    def start(self, slot: int, task: Task) -> None:
        """Give a free slot a task."""
        config = dataclasses.replace(task.config, device=min(self.devices), result_directory=None)
        name = task.config.folder().name
        files: Files = {}
        if task.config.load_checkpoint is not None:
            files = pack(self._results, name)
        elif (pending := sibling(task.config.folder(), ".pending")).exists():
            move_aside(pending)
        reference = self._remote.remote(config.to_dict(), task.only_data, name, str(self._marker), files)
        self._tasks[reference] = slot, task, self._alive()

    def wait(self, timeout_s: float) -> list[Event]:
        """Return what slots have said, at latest after a time."""
        references = list(self._tasks)
        ready, _ = (
            self._ray.wait(references, num_returns=len(references), timeout=timeout_s) if references else ([], [])
        )
        return [self._end(reference) for reference in ready]

    def _end(self, reference: Any) -> Ended:
        slot, task, nodes = self._tasks.pop(reference)
        exceptions = self._ray.exceptions
        try:
            outcome, reason, files = self._ray.get(reference)
        except exceptions.NodeDiedError as error:
            return Ended(slot, Outcome.LOST, one_line(error))
        except (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError) as error:
            lost = not nodes <= self._alive()
            return Ended(slot, Outcome.LOST if lost else Outcome.CRASHED, one_line(error))
        except exceptions.RayError as error:
            return Ended(slot, Outcome.FAILED, one_line(error))
        if files:
            unpack(files, self._results, task.config.folder().name)
        return Ended(slot, Outcome(outcome), reason)

    def _alive(self) -> set[str]:
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def stop(self, grace_s: float) -> list[Event]:
        """End all tasks and slots, and return what they said last."""
        events: list[Event] = []
        if self._ray.is_initialized():
            for reference in self._tasks:
                self._ray.cancel(reference)
            events = self.wait(grace_s)
            for reference in self._tasks:
                self._ray.cancel(reference, force=True)
            self._ray.shutdown()
        self._marker.unlink(missing_ok=True)
        return events


def _connect(address: str | None) -> Any:
    """Return the module ray, connected to a cluster."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UserError(f"--engine ray: expected the package ray ({error}); pip install ray") from error
    variables = {COMMIT_VARIABLE: commit() or ""}
    environment = {"working_dir": str(ROOT), "excludes": list(LEFT_AT_HOME), "env_vars": variables}
    start = functools.partial(ray.init, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
    try:
        start(address=address or "auto")
    except ConnectionError as error:
        if address is not None:
            raise UserError(f"--ray-address: expected a Ray cluster at {address}: {one_line(error)}") from error
        start(include_dashboard=False)
    return ray


def do_on_node(
    fields: Mapping[str, Any], only_data: bool, name: str, marker: str, files: Files
) -> tuple[str, str, Files | None]:
    """Do a task on a node, and return how it ended, why, and the files that it wrote if the node shares no folder.

    Args:
        fields: of the run's configuration.
        name: of the run's folder.
        marker: a file that is there if the folder of all runs is.
        files: of an earlier part of the run, for where it is not.
    """
    if Path(marker).exists():
        return *_do_in(Path(marker).parent, fields, only_data, name), None
    with tempfile.TemporaryDirectory(prefix="byzantium-") as folder:
        unpack(files, Path(folder), name)
        outcome, reason = _do_in(Path(folder), fields, only_data, name)
        return outcome, reason, pack(Path(folder), name)


def _do_in(results: Path, fields: Mapping[str, Any], only_data: bool, name: str) -> tuple[str, str]:
    config = RunConfig.from_dict({**fields, "result_directory": str(results / name)})
    if config.load_checkpoint is not None:
        checkpoint = sibling(config.folder(), ".pending") / Path(config.load_checkpoint).name
        config = dataclasses.replace(config, load_checkpoint=str(checkpoint))
    outcome, reason = do(config, only_data, Console(), _cache())
    return outcome.value, reason


@functools.cache
def _cache() -> DataCache:
    """Return the data cache of this process, which does one task after another."""
    return DataCache()


def pack(results: Path, name: str) -> Files:
    """Return the files of a run's folders: finished, failed or pending."""
    folders = (results / name, results / f"{name}.failed", results / f"{name}.pending")
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(results)): path.read_bytes() for path in paths}


def unpack(files: Files, results: Path, name: str) -> None:
    """Write the files of a run's folders; a folder appears only when it is complete.

    They take the place of `<name>.pending`, which they hold if the run was continued from it.
    """
    for suffix in ("", ".failed", ".pending"):
        folder = results / f"{name}{suffix}"
        inside = {path: content for path, content in files.items() if Path(path).parts[0] == folder.name}
        if not inside:
            continue
        unfinished = results / f".{folder.name}.{secrets.token_hex(4)}"
        for path, content in inside.items():
            target = unfinished / Path(path).relative_to(folder.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        shutil.rmtree(results / f"{name}.pending", ignore_errors=True)
        if folder.exists():
            move_aside(folder)
        unfinished.rename(folder)
