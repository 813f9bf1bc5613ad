"""Where a run computes, and what is noted about that place."""

import functools
import os
import platform
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from experiments.config import RunConfig
from tools.errors import UserError

COMMIT_VARIABLE = "BYZANTIUM_COMMIT"
"""Where code that was sent to another machine, without its repository, finds its commit."""
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn")


def on_this_machine(config: RunConfig) -> RunConfig:
    """Return the configuration with device and number of threads as they are here.

    Raises:
        UserError: a GPU that is not here.
    """
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    for flag, name in (("--device", device), ("--device-gar", config.device_gar)):
        kind, _, index = name.partition(":")
        count = torch.cuda.device_count() if kind == "cuda" else 0
        if kind == "cuda" and int(index or 0) >= count:
            found = f"{count} of them" if count else "none"
            raise UserError(f"{flag}: expected a GPU for {name}, found {found}; use {flag} cpu")
    return replace(config, device=device, threads=config.threads or torch.get_num_threads())


def choose_seed(config: RunConfig) -> int:
    """Return the seed of the configuration, or a fresh one if it is negative."""
    return config.seed if config.seed >= 0 else secrets.randbits(31)


@contextmanager
def settings(config: RunConfig) -> Iterator[None]:
    """Make torch use the configuration's threads and deterministic algorithms, while inside."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, when CUDA starts
    threads = torch.get_num_threads()
    mode = torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    benchmark = torch.backends.cudnn.benchmark
    torch.set_num_threads(config.threads)
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms takes a second to import compilers
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs a pass over each new matrix
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark


def describe(config: RunConfig, seed: int) -> dict[str, Any]:
    """Return what is recorded in config.json about the machine, the software and the seed really used."""
    return {
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "commit": commit(),
        "device": torch.cuda.get_device_name(config.device) if config.device.startswith("cuda") else _processor(),
        "threads": config.threads,
        "seed": seed,
    }


@functools.cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache  # a process runs the code it has imported, whatever changes on disk
def commit() -> str | None:
    """Return the commit of this code, with a "+" if files differ from it; None if that cannot be known."""
    if told := os.environ.get(COMMIT_VARIABLE):
        return told
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
