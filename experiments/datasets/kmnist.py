"""Kuzushiji-MNIST.

Source: Clanuwat et al., "Deep Learning for Classical Japanese Literature", 2018.
"""

from experiments.datasets.mnist import MNIST


class KMNIST(MNIST, name="kmnist"):
    """60,000 cursive Japanese characters to train on, 10,000 to test on, 28×28."""

    mean, std = (), ()
    torchvision_name = "KMNIST"
