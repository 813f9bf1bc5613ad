"""Seeds derived from what they are for, so that adding a consumer of randomness moves no other stream."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return the 63-bit seed of one consumer of randomness, e.g. `derive_seed(1, "dropout", step, worker)`."""
    digest = hashlib.blake2b(repr((seed, *purpose)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def make_generator(seed: int, *purpose: str | int, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """Return a generator of one's own, seeded by what it is for."""
    import torch  # networks are drawn without it

    generator = torch.Generator(device)
    generator.manual_seed(derive_seed(seed, *purpose))
    return generator


def copy_generator(generator: "torch.Generator") -> "torch.Generator":
    """Return a generator that will draw the same numbers."""
    twin = type(generator)(generator.device)
    twin.set_state(generator.get_state())
    return twin
