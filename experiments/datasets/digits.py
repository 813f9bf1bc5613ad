"""The 8×8 digits that scikit-learn ships: 1,797 images, no download.

Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998; the test part of it.
"""

from pathlib import Path

import torch

from experiments.datasets import Data, Dataset, Samples
from tools.errors import UserError

TEST_SAMPLES = 360


class Digits(Dataset, name="digits"):
    """1,437 images to train on and 360 to test on, values from 0 to 1, split by class at random."""

    model = "digits-mlp"

    @classmethod
    def load(cls, directory: Path, *, transform: bool = True, split_seed: int = 0) -> Data:
        """Return the data; `split_seed` draws another split, the same for every `--seed`."""
        from sklearn.datasets import load_digits  # takes a second, which runs without it need not spend
        from sklearn.model_selection import train_test_split

        if isinstance(split_seed, bool) or not isinstance(split_seed, int) or not 0 <= split_seed < 2**32:
            raise UserError(f"--dataset-args: digits: expected split-seed from 0 to 2³² - 1, got {split_seed!r}")
        images, classes = load_digits(return_X_y=True)
        parts = train_test_split(images, classes, test_size=TEST_SAMPLES, stratify=classes, random_state=split_seed)
        train, test = (torch.tensor(part, dtype=torch.float32).div_(16).view(-1, 1, 8, 8) for part in parts[:2])
        train_classes, test_classes = (torch.tensor(part, dtype=torch.int64) for part in parts[2:])
        return Data(Samples(train, train_classes), Samples(test, test_classes), num_outputs=10)
