"""Fashion-MNIST.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017.
"""

from experiments.datasets.mnist import MNIST


class FashionMNIST(MNIST, name="fashionmnist"):
    """60,000 articles of clothing to train on, 10,000 to test on, 28×28, mirrored at random."""

    mean, std = (), ()
    flip = True
    torchvision_name = "FashionMNIST"
