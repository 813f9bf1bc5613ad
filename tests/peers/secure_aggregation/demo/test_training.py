import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.testing import assert_close

from peers.secure_aggregation.demo.training import Training


def training(name: str = "peer-1", seed: int = 1, samples: int = 300) -> Training:
    images, classes = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.float32) / 16
    return Training(
        dataset="digits",
        num_outputs=10,
        train=(images[:samples], classes[:samples]),
        test=(images[1000:], classes[1000:]),
        name=name,
        seed=seed,
        device="cpu",
    )


def test_it_learns() -> None:
    learner = training()
    before = learner.accuracy()
    for _ in range(4):
        learner.epoch()
    assert before < 0.3
    assert learner.accuracy() > 0.6


def test_all_start_alike_and_see_samples_in_an_order_of_their_own() -> None:
    one, other, again = training("peer-1"), training("peer-2"), training("peer-1")
    assert_close(one.state(), other.state(), rtol=0, atol=0)
    for learner in (one, other, again):
        learner.epoch()
    assert_close(one.state(), again.state(), rtol=0, atol=0)
    assert not torch.equal(one.state()["first.weight"], other.state()["first.weight"])
    assert not torch.equal(one.state()["first.weight"], training(seed=2).state()["first.weight"])


def test_it_goes_on_with_what_it_is_given() -> None:
    one, other = training("peer-1"), training("peer-2")
    one.epoch()
    state = {name: value.clone() for name, value in one.state().items()}
    other.load(state)
    assert other.accuracy() == one.accuracy()
    one.load({name: torch.zeros_like(value) for name, value in state.items()})
    assert_close(other.state(), state, rtol=0, atol=0)
    other.epoch()
    with pytest.raises(AssertionError):
        assert_close(other.state(), state, rtol=0, atol=0)


@pytest.mark.parametrize("samples", [1, 8, 9])
def test_every_sample_is_seen_once_an_epoch(samples: int) -> None:
    learner = training(samples=samples)
    seen = []
    learner._model.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    learner.epoch()
    batches = torch.cat(seen)
    assert len(batches) == samples
    assert len(batches.unique(dim=0)) == samples
