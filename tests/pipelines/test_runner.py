"""Runners: the same results in the same order, whoever does the work."""

from __future__ import annotations

import operator

import pytest

from pipelines.runner import PoolRunner, Runner, SerialRunner


@pytest.mark.parametrize("runner", [SerialRunner(), PoolRunner(2)], ids=["serial", "pool"])
def test_map__keeps_the_order_of_the_units(runner: Runner) -> None:
    """Merges go through the results in order."""
    assert runner.map(operator.neg, list(range(5)), label="negate") == [0, -1, -2, -3, -4]
    assert runner.map(operator.neg, [], label="nothing") == []


@pytest.mark.parametrize("make", [SerialRunner, lambda p: PoolRunner(1, p)], ids=["serial", "pool"])
def test_map__tells_progress_and_raises_the_units_error(make: object) -> None:
    """A broken unit must not vanish in a pool."""
    told: list[tuple[str, int, int]] = []
    runner = make(lambda *step: told.append(step))  # type: ignore[operator]
    runner.map(operator.neg, [1, 2], label="negate")
    assert told == [("negate", 1, 2), ("negate", 2, 2)]
    with pytest.raises(TypeError):
        runner.map(operator.neg, ["x"], label="negate")


def test_pool_runner__refuses_a_negative_count() -> None:
    """A typo in a configuration is a sentence, not a hang."""
    with pytest.raises(ValueError, match="processes >= 0, got -1"):
        PoolRunner(-1)
