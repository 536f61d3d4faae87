import pytest

from dreamfusion.errors import UserError
from dreamfusion.schedules import Constant, Ramp, Steps, WarmupCosine


def test_constant_ignores_progress() -> None:
    assert {Constant(0.3)(p) for p in (0.0, 0.5, 1.0)} == {0.3}


def test_ramp_is_flat_straight_flat() -> None:
    ramp = Ramp(5e-2, 2e-3, begin=0.25, until=0.75)
    assert [ramp(p) for p in (0.0, 0.25)] == [5e-2, 5e-2]
    assert [ramp(p) for p in (0.75, 1.0)] == [2e-3, 2e-3]
    assert ramp(0.5) == pytest.approx(0.5 * (5e-2 + 2e-3))
    assert ramp(0.375) == pytest.approx(0.75 * 5e-2 + 0.25 * 2e-3)


def test_ramp_of_no_length_jumps() -> None:
    ramp = Ramp(1.0, 2.0, begin=0.5, until=0.5)
    assert [ramp(p) for p in (0.49, 0.5, 0.51)] == [1.0, 2.0, 2.0]


def test_steps_hold_from_each_boundary_on() -> None:
    steps = Steps((64.0, 128.0, 256.0), (0.3, 0.6))
    assert [steps(p) for p in (0.0, 0.29, 0.3, 0.59, 0.6, 1.0)] == [64.0, 64.0, 128.0, 128.0, 256.0, 256.0]


@pytest.mark.parametrize(("begin", "until"), [(0.6, 0.5), (-0.1, 0.5), (0.0, 1.5)])
def test_ramp_refuses_times_outside_the_run(begin: float, until: float) -> None:
    with pytest.raises(UserError, match="begin"):
        Ramp(0.0, 1.0, begin, until)


def test_steps_refuse_wrong_counts_and_orders() -> None:
    with pytest.raises(UserError, match="one value more"):
        Steps((1.0, 2.0), (0.3, 0.6))
    with pytest.raises(UserError, match="grow"):
        Steps((1.0, 2.0, 3.0), (0.6, 0.3))


def test_warm_up_and_cosine() -> None:
    schedule = WarmupCosine(0.0, 1.0, 0.2, 0.25)
    assert [schedule(p) for p in (0.0, 0.125, 0.25)] == [0.0, 0.5, 1.0]
    assert schedule(0.625) == pytest.approx(0.6)
    assert schedule(1.0) == pytest.approx(0.2)
    assert schedule(0.25 + 0.75 / 3) == pytest.approx(0.2 + 0.4 * (1 + 0.5))
    assert WarmupCosine(0.0, 1.0, 0.0, 0.0)(0.0) == 1.0
    with pytest.raises(UserError, match="warm-up"):
        WarmupCosine(0.0, 1.0, 0.0, 1.0)
