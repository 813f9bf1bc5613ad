import pytest

from tools.errors import UserError
from tools.schedule import learning_rate, parse_schedule


def rate(step: int, decay: float, delta: int = 1, schedule: str | None = None) -> float:
    return learning_rate(step, initial=0.01, decay=decay, delta=delta, schedule=schedule)


def test_hyperbolic_decay() -> None:
    assert rate(0, 167) == 0.01
    assert rate(167, 167) == pytest.approx(0.005)
    assert rate(1499, 167, 1500) == 0.01
    assert rate(1500, 167, 1500) == pytest.approx(0.001002, rel=1e-3)  # as the ICLR 2021 paper's CIFAR runs
    assert rate(2999, 167, 1500) == rate(1500, 167, 1500)


def test_constant_rate() -> None:
    assert rate(10_000, 0) == 0.01
    assert rate(10_000, -1) == 0.01


def test_schedule() -> None:
    text = "0.02,8000,0.004,16000,0.0008"
    assert parse_schedule(text) == [(0, 0.02), (8000, 0.004), (16000, 0.0008)]
    steps = (0, 7999, 8000, 15_999, 16_000, 20_000)
    assert [rate(step, 5, 1, text) for step in steps] == [0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008]
    assert rate(7, 5, 1, "0.3") == 0.3


@pytest.mark.parametrize(
    "text", ["", "x", "0.1,5", "0.1,5,0.2,5,0.3", "0.1,5,0.2,3,0.1", "0.1,0,0.2", "-1", "nan", "0.1,1.5,2"]
)
def test_bad_schedule(text: str) -> None:
    with pytest.raises(UserError, match="--learning-rate-schedule: expected rate"):
        parse_schedule(text)
