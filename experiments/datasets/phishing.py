"""Phishing websites.

Source: Mohammad, Thabtah and McCluskey, UCI, 2015, as prepared for LIBSVM: 11,055 samples of 68 features, targets
0 or 1.
"""

import shutil
import urllib.request
from pathlib import Path

import torch

from experiments.datasets import Data, Dataset, Samples, fetch
from tools.errors import UserError, one_line

URL = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/phishing"
SAMPLES, FEATURES, TRAIN_SAMPLES = 11_055, 68, 8_400


def download(directory: Path) -> None:
    """Make the folder of this dataset in a directory."""
    (directory / "phishing").mkdir()
    with urllib.request.urlopen(URL) as source, (directory / "phishing" / "phishing").open("wb") as target:
        shutil.copyfileobj(source, target)


class Phishing(Dataset, name="phishing"):
    """The first 8,400 samples to train on, the other 2,655 to test on, targets of shape (samples, 1)."""

    model, loss, criterion = "simples-logit", "bce", "sigmoid"

    @classmethod
    def load(cls, directory: Path, *, transform: bool = True) -> Data:
        from sklearn.datasets import load_svmlight_file  # takes a second, which runs without it need not spend

        path = directory / "phishing" / "phishing"
        if not path.is_file():
            fetch(cls.name, directory, "phishing", download)
        try:
            features, targets = load_svmlight_file(str(path), n_features=FEATURES)
        except ValueError as error:
            raise UserError(f"{path}: expected {FEATURES} features in LIBSVM format: {one_line(error)}") from error
        if features.shape != (SAMPLES, FEATURES) or not set(targets) <= {0.0, 1.0}:
            raise UserError(f"{path}: expected {SAMPLES} × {FEATURES} values and targets 0 or 1, got {features.shape}")
        inputs = torch.tensor(features.toarray(), dtype=torch.float32)
        outputs = torch.tensor(targets, dtype=torch.float32).unsqueeze(1)
        return Data(
            Samples(inputs[:TRAIN_SAMPLES], outputs[:TRAIN_SAMPLES]),
            Samples(inputs[TRAIN_SAMPLES:], outputs[TRAIN_SAMPLES:]),
            num_outputs=1,
        )
