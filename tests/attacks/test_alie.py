import inspect
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from attacks.alie import ALIEAttack, Direction

HONEST = np.random.default_rng(0).normal(size=(7, 20))


def test_signature() -> None:
    signature = inspect.signature(ALIEAttack.generate)
    parameters = signature.parameters
    assert list(parameters) == ["honest_gradients", "out", "f", "z", "direction", "specialized"]
    assert parameters["honest_gradients"].kind is inspect.Parameter.POSITIONAL_ONLY
    assert parameters["out"].default is None
    assert parameters["f"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["z"].default == "max"
    assert parameters["direction"].default is Direction.NEGATIVE


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("z", [0, 0.3, 1.5, np.float64(2)])
def test_mean_and_deviations(z: float, direction: Direction) -> None:
    result = ALIEAttack.generate(torch.tensor(HONEST), f=3, z=z, direction=direction)
    expected = HONEST.mean(axis=0) + direction.value * z * HONEST.std(axis=0)
    np.testing.assert_allclose(result.numpy(), np.tile(expected, (3, 1)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n", "f", "supporters"), [(11, 4, 2), (50, 24, 2), (51, 24, 2), (25, 11, 2), (25, 5, 8)])
def test_max_z(n: int, f: int, supporters: int) -> None:
    h = n - f
    for dtype in (torch.float32, torch.float64):
        z = ALIEAttack.max_z(torch.ones(h, 2, dtype=dtype), f)
        assert z.shape == ()
        assert z.dtype == dtype
        assert float(z) == pytest.approx(NormalDist().inv_cdf((h - supporters) / h), rel=1e-6)
    largest = ALIEAttack.generate(torch.tensor(np.resize(HONEST, (h, 20))), f=f)
    given = ALIEAttack.generate(torch.tensor(np.resize(HONEST, (h, 20))), f=f, z=float(z))
    np.testing.assert_allclose(largest.numpy(), given.numpy(), rtol=1e-12)


def test_zero_largest_factor_is_said() -> None:
    assert ALIEAttack.notice(h=9, f=3) is None
    assert ALIEAttack.notice(h=10, f=1, z=0.0) is None
    assert "z_max is 0 for h = 10, f = 1" in ALIEAttack.notice(h=10, f=1)
    honest = torch.randn(10, 4, dtype=torch.float64)
    assert torch.equal(ALIEAttack.generate(honest, f=1)[0], honest.mean(dim=0))


def test_no_attacker_needs_no_factor() -> None:
    assert ALIEAttack.generate([torch.ones(3)], f=0).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"z": "most"}, TypeError, "expected a number or"),
        ({"z": None}, TypeError, "expected a number or"),
        ({"z": True}, TypeError, "expected a number or"),
        ({"direction": "negative"}, TypeError, "expected a Direction, got 'negative'"),
        ({"z": -0.1}, ValueError, "expected z of at least 0, got -0.1"),
        ({"z": math.nan}, ValueError, "expected z of at least 0, got nan"),
        ({"f": -1}, ValueError, "expected f of at least 0, got -1"),
        ({"f": 8}, ValueError, "no factor of at least 0 exists for h = 7 honest and f = 8"),  # a Byzantine majority
        ({"f": 1}, ValueError, "no factor of at least 0 exists for h = 7 honest and f = 1"),  # half are too few to hide
    ],
)
def test_bad_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ALIEAttack.generate(torch.tensor(HONEST), **{"f": 3, **arguments})


@pytest.mark.parametrize("f", [-1, 0, 8])
def test_max_z_without_a_factor(f: int) -> None:
    with pytest.raises(ValueError, match="no factor of at least 0 exists"):
        ALIEAttack.max_z(torch.tensor(HONEST), f)
    with pytest.raises(ValueError, match="expected at least one"):
        ALIEAttack.max_z([], 1)
    with pytest.raises(TypeError, match="floating-point"):
        ALIEAttack.max_z(torch.ones(3, 2, dtype=torch.int32), 1)
