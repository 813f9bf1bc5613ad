"""What several tests use: the device and dtype under test, and the folder of real data.

BYZANTIUM_TEST_DEVICE and BYZANTIUM_TEST_DTYPE choose where and in what the generic tests compute (cpu, float64).
BYZANTIUM_DATA names a folder with MNIST, FashionMNIST and phishing; tests that need it are skipped without.
"""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)  # machines are shared, and results repeat
settings.load_profile("steady")

torch.set_num_threads(1)  # small operations on several threads crawl where another program wants the cores too


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device(os.environ.get("BYZANTIUM_TEST_DEVICE", "cpu"))


@pytest.fixture(scope="session")
def dtype() -> torch.dtype:
    return getattr(torch, os.environ.get("BYZANTIUM_TEST_DTYPE", "float64"))


@pytest.fixture
def generator(device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(1)


@pytest.fixture(scope="session")
def data_directory() -> Path:
    folder = os.environ.get("BYZANTIUM_DATA")
    if not folder:
        pytest.skip("BYZANTIUM_DATA names no folder of real data")
    return Path(folder)
