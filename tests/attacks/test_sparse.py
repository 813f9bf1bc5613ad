import io
from statistics import NormalDist

import numpy as np
import pytest
import torch

import attacks

sparse = attacks.get("sparse")
HONEST = np.random.default_rng(0).normal(size=(9, 40)) + np.linspace(-1, 1, 40)
PARAMETERS = np.random.default_rng(1).normal(size=40)
Z_MAX = NormalDist().inv_cdf((9 - 4) / 9)  # n = 12, f = 3: 7 - 3 = 4 supporters


def oracle(
    honest: np.ndarray, parameters: np.ndarray | None, share: float = 0.005, z_sensitive: float = 1.5, z: float = Z_MAX
) -> np.ndarray:
    mean, d = honest.mean(axis=0), honest.shape[1]
    sensitivity = np.abs(mean if parameters is None else mean * parameters)
    count = max(round(share * d), 1) if share else 0
    sensitive = sorted(range(d), key=lambda j: -sensitivity[j])[:count]
    factors = np.full(d, float(z))
    factors[sensitive] = z_sensitive
    return mean - factors * honest.std(axis=0, ddof=1)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"share": 0},
        {"share": 1e-9},
        {"share": 0.24},
        {"share": 0.5, "z": 0},
        {"share": 1},
        {"share": 0.26, "z_sensitive": 4, "z": 0.5},
    ],
)
@pytest.mark.parametrize("parameters", [None, PARAMETERS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_the_definition(arguments: dict, parameters: np.ndarray | None, dtype: torch.dtype) -> None:
    context = {} if parameters is None else {"parameters": torch.tensor(parameters, dtype=dtype)}
    sent = sparse.generate(torch.tensor(HONEST, dtype=dtype), f=3, **arguments, **context)
    expected = oracle(HONEST, parameters, **arguments)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    np.testing.assert_allclose(sent.numpy(), np.tile(expected, (3, 1)), rtol=tolerance, atol=tolerance)


def test_sensitive_coordinates_are_those_of_the_first_step() -> None:
    d = 4_000
    steps = np.random.default_rng(2).normal(size=(3, 9, d))
    parameters = np.random.default_rng(3).normal(size=d)
    state: dict = {}
    sparse.generate(torch.tensor(steps[0]), f=3, share=0.001, state=state, parameters=torch.tensor(parameters))
    sensitive = set(np.argsort(-np.abs(steps[0].mean(axis=0) * parameters))[:4].tolist())
    assert set(state["sensitive"].tolist()) == sensitive
    file = io.BytesIO()
    torch.save(state, file)
    assert file.tell() < d  # the ranks of the other coordinates are not stored
    file.seek(0)
    state = torch.load(file, weights_only=True)
    for honest in torch.tensor(steps[1:]):
        sent = sparse.generate(honest, f=3, share=0.001, state=state, parameters=torch.ones(d), z=0)
        moved = (sent[0] != honest.mean(dim=0)).nonzero().flatten()
        assert set(moved.tolist()) == sensitive


def test_of_equally_sensitive_coordinates_the_largest_mean_comes_first_then_the_first() -> None:
    honest = torch.tensor([[1.0, 2.0, -4.0, 3.0, 3.0]]).repeat(3, 1) * torch.tensor([[0.5], [1.0], [1.5]])
    state: dict = {}
    sparse.generate(honest, f=2, share=0.8, z=0, state=state, parameters=torch.zeros(5))
    assert state["sensitive"].tolist() == [2, 3, 4, 1]
    state.clear()
    sparse.generate(honest, f=2, share=0.4, z=0, state=state, parameters=torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0]))
    assert state["sensitive"].tolist() == [3, 4]


def test_batch_is_the_loop() -> None:
    vectors = torch.randn(2, 3, 9, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameters = torch.randn(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state: dict = {}
    together = sparse.generate(vectors, f=3, share=0.3, state=state, parameters=parameters)
    assert state["sensitive"].shape == (2, 3, 6)
    for i in range(2):
        for j in range(3):
            alone = sparse.generate(vectors[i, j], f=3, share=0.3, parameters=parameters)
            torch.testing.assert_close(together[i, j], alone)


def test_zero_largest_factor_is_said() -> None:
    assert "sparse: z_max is 0 for h = 10, f = 1" in sparse.notice(h=10, f=1)
    assert sparse.notice(h=10, f=1, z=0) is None
    assert sparse.notice(h=9, f=3) is None
    assert sparse.notice(h=9, f=0) is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"share": 1.1}, ValueError, "sparse: expected share from 0 to 1, got 1.1"),
        ({"share": -0.1}, ValueError, "sparse: expected share from 0 to 1, got -0.1"),
        ({"z": "most"}, ValueError, "sparse: expected a number or max as z, got 'most'"),
        ({"z": -0.5}, ValueError, "sparse: expected a finite z of at least 0, got -0.5"),
        ({"z": None}, TypeError, "sparse: expected a number as z, got None"),
        ({"z_sensitive": "max"}, TypeError, "sparse: expected a number as z_sensitive, got 'max'"),
        ({"h": 1, "z": 1}, ValueError, "sparse: expected at least 2 honest workers for a deviation, got 1"),
        ({"h": 7, "f": 1}, ValueError, "sparse: alie: no factor of at least 0 exists for h = 7 honest and f = 1"),
    ],
)
def test_bad_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sparse.check(**{"h": 9, "f": 3, **arguments})
    sparse.check(h=1, f=0)
    sparse.check(h=7, f=1, z=0)
