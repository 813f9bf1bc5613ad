"""CIFAR-100.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from experiments.datasets.cifar10 import CIFAR10


class CIFAR100(CIFAR10, name="cifar100"):
    """50,000 photographs of 100 classes to train on, 10,000 to test on, 3×32×32, mirrored at random."""

    num_outputs = 100
    torchvision_name = "CIFAR100"
