import torch

from experiments.datasets import Augmentation, Samples
from experiments.sampling import SampleStream


def stream(size: int = 10, seed: int = 1, purpose: str = "training", augmentation=None) -> SampleStream:
    numbers = torch.arange(size)
    return SampleStream(Samples(numbers.float().view(-1, 1, 1, 1), numbers), seed, purpose, augmentation)


def test_each_pass_has_every_sample_once_and_ends_with_its_partial_batch() -> None:
    samples = stream(10)
    passes = []
    for _ in range(3):
        batches = samples.take(4, 3)
        assert batches.sizes == (4, 4, 2)
        assert sorted(batches.targets.tolist()) == list(range(10))
        assert torch.equal(batches.inputs.flatten(), batches.targets.float())
        passes.append(batches.targets.tolist())
    assert passes[0] != passes[1] != passes[2]


def test_batches_do_not_depend_on_how_many_are_taken_at_once() -> None:
    together = stream().take(4, 7)
    assert together.sizes == (4, 4, 2, 4, 4, 2, 4)
    alone, one = stream(), []
    for size in together.sizes:
        batch = alone.take(4, 1)
        assert batch.sizes == (size,)
        one.append(batch.targets)
    assert torch.equal(together.targets, torch.cat(one))


def test_batch_larger_than_the_data_is_the_data() -> None:
    assert stream(3).take(100, 2).sizes == (3, 3)


def test_seeds_and_purposes_give_other_orders() -> None:
    orders = [stream(50, seed, purpose).take(50, 1).targets.tolist() for seed in (1, 2) for purpose in ("a", "b")]
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] == stream(50, 1, "a").take(50, 1).targets.tolist()


def test_augmentation_moves_no_order() -> None:
    plain, flipped = stream(20).take(7, 5), stream(20, augmentation=Augmentation(flip=True)).take(7, 5)
    assert torch.equal(plain.targets, flipped.targets)


def test_continues_where_its_state_was_taken() -> None:
    for taken in (0, 1, 2, 3, 5):
        first = stream(10, augmentation=Augmentation(flip=True))
        for _ in range(taken):
            first.take(4, 1)
        state = first.state_dict()
        expected = first.take(4, 6)
        second = stream(10, augmentation=Augmentation(flip=True))
        second.take(3, 2)
        second.load_state_dict(state)
        assert torch.equal(second.take(4, 6).targets, expected.targets)


def test_batches_of_equal_size_and_of_one_local_step() -> None:
    batches = stream(10).take(4, 6)  # sizes 4 4 2 4 4 2
    runs = list(batches.equal_runs())
    assert [(first, run.sizes) for first, run in runs] == [(0, (4, 4)), (2, (2,)), (3, (4, 4)), (5, (2,))]
    assert torch.equal(torch.cat([run.targets for _, run in runs]), batches.targets)
    second = batches.every(3, 1)  # two workers, three local steps each: the second of them
    assert second.sizes == (4, 4)
    assert torch.equal(second.targets, torch.cat([batches.targets[4:8], batches.targets[14:18]]))
