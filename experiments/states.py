"""States of rules and attacks, which are dictionaries of tensors, numbers and such dictionaries."""

from typing import Any

import torch
from torch import Tensor


def moved(state: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a state with its tensors, and those of states within it, on a device."""
    return {
        key: moved(value, device)
        if isinstance(value, dict)
        else value.to(device)
        if isinstance(value, Tensor)
        else value
        for key, value in state.items()
    }
