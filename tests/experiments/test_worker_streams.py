import io
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from experiments.batches import Batches
from experiments.datasets import Augmentation, Samples
from experiments.sampling import SampleStream
from experiments.worker_streams import ShardedStream, SharedStream, WorkerStream, random_bits
from tools.seeding import derive_seed

SIZES = (7, 1, 12, 3, 7)
AUGMENTATION = Augmentation(flip=True, crop=2, fill=(-1.0,))
MASK = 2**64 - 1


def split_mix(seed: int) -> Iterator[int]:
    """Yield the numbers of SplitMix64, as its authors wrote it."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        bits = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
        yield bits ^ (bits >> 31)


def one_worker(shard: list[int], seed: int, purpose: str, number: int) -> Iterator[int]:
    """Yield the samples of a worker one by one, in plain Python."""
    draw = split_mix(derive_seed(seed, purpose, "order", number))
    while True:
        keys = [next(draw) for _ in shard]
        yield from [sample for _, sample in sorted(zip(keys, shard, strict=True))]


def make_samples(size: int = 40, device: torch.device | str = "cpu") -> Samples:
    numbers = torch.arange(size, device=device)
    pixels = torch.arange(20, device=device).view(1, 4, 5) / 20
    return Samples(numbers.view(-1, 1, 1, 1) + pixels, numbers)


def make_shards(sizes: tuple[int, ...] = SIZES) -> list[Tensor]:
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    return [shard.sort().values for shard in order[: sum(sizes)].split(sizes)]


def stream(
    sizes: tuple[int, ...] = SIZES,
    seed: int = 1,
    purpose: str = "training",
    augmentation: Augmentation | None = None,
    numbers: list[int] | None = None,
    device: torch.device | str = "cpu",
) -> ShardedStream:
    return ShardedStream(make_samples(device=device), make_shards(sizes), seed, purpose, augmentation, numbers)


def rows(batches: Batches, workers: int) -> list[list[int]]:
    return batches.targets.view(workers, -1).tolist()


def test_random_bits_are_split_mix() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    published.append(16408922859458223821)
    ours = random_bits(np.array([1_234_567], dtype=np.uint64), np.arange(5))
    assert ours.dtype == np.uint64
    assert ours.tolist() == published
    keys = [0, 1, 2**63 - 1, 987_654_321]
    several = random_bits(np.array(keys, dtype=np.uint64)[:, None], np.arange(3, 60))
    for key, row in zip(keys, several.tolist(), strict=True):
        draw = split_mix(key)
        assert row == [next(draw) for _ in range(60)][3:]


@given(
    takes=st.lists(
        st.tuples(
            st.integers(1, 9),
            st.integers(1, 4),
            st.one_of(
                st.none(),
                st.sets(st.integers(0, 4), min_size=1).map(list),
                st.sampled_from([slice(0, 2), slice(1, 4), slice(4, 5)]),
            ),
        ),
        max_size=12,
    ),
    numbers=st.one_of(st.none(), st.just([8, 3, 0, 100, 5])),
)
def test_equals_workers_one_by_one(takes: list, numbers: list[int] | None) -> None:
    sharded = stream(numbers=numbers)
    alone = [
        one_worker(shard.tolist(), 1, "training", number)
        for shard, number in zip(make_shards(), numbers or range(5), strict=True)
    ]
    for batch_size, count, workers in takes:
        batches = sharded.take(batch_size, count, workers)
        chosen = list(range(5))[workers] if isinstance(workers, slice) else workers or range(5)
        expected = [[next(alone[worker]) for _ in range(batch_size * count)] for worker in chosen]
        assert rows(batches, len(chosen)) == expected
        assert batches.sizes == (batch_size,) * (count * len(chosen))
        assert torch.equal(batches.inputs, make_samples().inputs[batches.targets])


def test_each_pass_has_every_sample_of_the_shard_once() -> None:
    shards, sharded = make_shards(), stream()
    taken = rows(sharded.take(5, 42), 5)  # 210 samples
    for shard, row in zip(shards, taken, strict=True):
        passes = [row[start : start + len(shard)] for start in range(0, 210 - len(shard) + 1, len(shard))]
        assert all(sorted(one) == shard.tolist() for one in passes)
    orders = [tuple(taken[0][start : start + 7]) for start in range(0, 210, 7)]
    assert len(set(orders)) == len(orders)


def test_orders_are_uniform() -> None:
    sharded = ShardedStream(make_samples(), [torch.arange(3)] * 4, 1, "training")
    orders = Counter(map(tuple, sharded.take(3, 6_000).targets.view(-1, 3).tolist()))
    assert len(orders) == 6
    assert all(count == pytest.approx(4_000, abs=250) for count in orders.values())  # four deviations


def test_batches_of_a_worker_follow_each_other() -> None:
    together, apart = stream().take(4, 3), stream()
    one = [apart.take(4) for _ in range(3)]
    for step in range(3):
        assert torch.equal(together.every(3, step).targets, one[step].targets)


def test_other_workers_move_no_stream() -> None:
    full, fewer = stream(augmentation=AUGMENTATION), stream(SIZES[:3], augmentation=AUGMENTATION)
    full.take(3, 2, [1, 4])
    full.take(5, 1, slice(3, 5))
    ours, theirs = full.take(6, 2, [0, 2]), fewer.take(6, 2, [0, 2])
    assert torch.equal(ours.inputs, theirs.inputs)
    assert torch.equal(ours.targets, theirs.targets)
    backwards = stream(augmentation=AUGMENTATION).take(6, 2, [2, 0])
    assert torch.equal(backwards.inputs, torch.cat([ours.inputs[12:], ours.inputs[:12]]))


def test_numbers_and_not_places_decide() -> None:
    shard = torch.arange(30)
    ours = ShardedStream(make_samples(), [shard, shard, shard], 1, "training", AUGMENTATION, [4, 0, 2])
    theirs = ShardedStream(make_samples(), [shard] * 5, 1, "training", AUGMENTATION)
    assert torch.equal(ours.take(9, 4).inputs, theirs.take(9, 4, [4, 0, 2]).inputs)


def test_seeds_purposes_and_numbers_give_other_orders() -> None:
    shard = torch.arange(30)
    orders = {
        tuple(row)
        for seed in (1, 2)
        for purpose in ("a", "b")
        for row in rows(ShardedStream(make_samples(), [shard] * 3, seed, purpose).take(30), 3)
    }
    assert len(orders) == 12


def test_augmentation_moves_no_order_and_is_drawn_anew() -> None:
    plain, augmented = stream().take(7, 4), stream(augmentation=AUGMENTATION).take(7, 4)
    assert torch.equal(plain.targets, augmented.targets)
    changed = augmented.inputs.view(5, 28, 20)
    assert len({tuple(image.tolist()) for image in changed[1]}) > 15  # of 50, the one sample of this worker
    source = make_samples().inputs
    stream(augmentation=AUGMENTATION).take(40)
    assert torch.equal(make_samples().inputs, source)


def test_augmentation_draws_are_those_of_the_worker() -> None:
    sharded = stream(augmentation=AUGMENTATION, numbers=[9, 8, 7, 6, 5])
    sharded.take(4, 1, [2])
    batch = sharded.take(5, 2, [2])
    draw = split_mix(derive_seed(1, "training", "augmentation", 7))
    draws = [next(draw) for _ in range(3 * 14)][3 * 4 :]
    for image, target, start in zip(batch.inputs, batch.targets, range(0, 30, 3), strict=True):
        top, left = (draws[start + i] * 5 >> 64 for i in range(2))
        padded = torch.nn.functional.pad(make_samples().inputs[target], (2, 2, 2, 2), value=-1.0)
        expected = padded[:, top : top + 4, left : left + 5]
        assert torch.equal(image, expected.flip(-1) if draws[start + 2] < 2**63 else expected)


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 11])
def test_continues_where_its_state_was_taken(taken: int) -> None:
    first = stream(augmentation=AUGMENTATION)
    for step in range(taken):
        first.take(4, 1, [0, 2, 3] if step % 2 else None)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    expected = [first.take(size, 2) for size in (4, 30)]
    second = stream(augmentation=AUGMENTATION)
    for _ in range(20):  # far ahead of the state
        second.take(3, 5)
    second.load_state_dict(state)
    for batches in expected:
        again = second.take(len(batches.targets) // 10, 2)
        assert torch.equal(again.inputs, batches.inputs)
        assert torch.equal(again.targets, batches.targets)
    assert len(file.getvalue()) < 2_000


def test_state_is_a_copy() -> None:
    sharded = stream()
    state = sharded.state_dict()
    expected = sharded.take(4).targets
    sharded.load_state_dict(state)
    assert torch.equal(sharded.take(4).targets, expected)
    sharded.load_state_dict(state)
    assert torch.equal(sharded.take(4).targets, expected)


def test_same_on_the_device(device: torch.device) -> None:
    ours, expected = stream(augmentation=AUGMENTATION, device=device), stream(augmentation=AUGMENTATION)
    for workers in (None, [3, 1], slice(2, 4)):
        batches, theirs = ours.take(6, 3, workers), expected.take(6, 3, workers)
        assert batches.inputs.device.type == batches.targets.device.type == device.type
        assert torch.equal(batches.inputs.cpu(), theirs.inputs)
        assert torch.equal(batches.targets.cpu(), theirs.targets)


def test_nobody_and_one_sample() -> None:
    assert stream().take(4, 2, []).sizes == ()
    single = ShardedStream(make_samples(), [torch.tensor([17])], 1, "training")
    assert single.take(3, 2).targets.tolist() == [17] * 6


def test_worker_without_samples() -> None:
    shards = [torch.arange(2), torch.tensor([], dtype=torch.int64)]
    with pytest.raises(ValueError, match=r"^expected at least one sample for each worker, got none for worker 9$"):
        ShardedStream(make_samples(), shards, 1, "training", numbers=[3, 9])


def shared() -> SharedStream:
    return SharedStream(SampleStream(make_samples(), 1, "training", AUGMENTATION), 5)


def test_shared_batches_go_to_whoever_is_next() -> None:
    ours, theirs = shared(), SampleStream(make_samples(), 1, "training", AUGMENTATION)
    for workers, number in ((None, 5), (slice(1, 4), 3), ([0, 4], 2), ([], 0), (slice(0, 99), 5)):
        batches, expected = ours.take(7, 2, workers), theirs.take(7, 2 * number)
        assert torch.equal(batches.inputs, expected.inputs)
        assert torch.equal(batches.targets, expected.targets)
        assert batches.sizes == expected.sizes
    state = ours.state_dict()
    expected = ours.take(7).targets
    again = shared()
    again.load_state_dict(state)
    assert torch.equal(again.take(7).targets, expected)


@pytest.mark.parametrize("make", [stream, shared])
def test_what_all_streams_have(make) -> None:
    one: WorkerStream = make()
    assert len(one.samples) == 40
    assert len(one.take(4).sizes) == 5
    assert len(one.take(batch_size=4, count=3, workers=[0, 2]).sizes) == 6
