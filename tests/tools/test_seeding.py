import itertools

import torch

from tools.seeding import derive_seed, make_generator


def test_seeds_differ_by_every_part_of_their_purpose() -> None:
    purposes = [(), ("a",), ("b",), ("a", 1), ("a", 2), ("a", "1"), (1, "a")]
    seeds = {derive_seed(seed, *purpose) for seed, purpose in itertools.product(range(3), purposes)}
    assert len(seeds) == 3 * len(purposes)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_everywhere() -> None:
    assert derive_seed(1, "training", "order") == 8030797101869284737


def test_generators_are_independent_of_the_global_one() -> None:
    torch.manual_seed(0)
    first = torch.rand(3, generator=make_generator(1, "a"))
    torch.manual_seed(1)
    assert torch.equal(first, torch.rand(3, generator=make_generator(1, "a")))
