"""Runners: the same results in the same order, whoever does the work."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to see what runs")
def test_pool_runner__leaves_no_process_behind_when_it_is_killed(tmp_path: Path) -> None:
    """An operator who kills a replay of hours must not find its rows still playing."""
    note = tmp_path / "worker"
    script = f"""
import pathlib
from pipelines.runner import PoolRunner
from tests.{Path(__file__).parent.name}.{Path(__file__).stem} import sleep_long
if __name__ == "__main__":
    PoolRunner(1).map(sleep_long, [pathlib.Path({str(note)!r})], label="sleep")
"""
    (tmp_path / "parent.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], env=environment)
    try:
        _wait_until(note.exists)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    worker = int(note.read_text())
    _wait_until(lambda: not _runs(worker))


def sleep_long(note: Path) -> None:
    """Says who it is, and does nothing for longer than any test runs."""
    part = note.with_suffix(".part")
    part.write_text(str(os.getpid()))
    part.rename(note)
    time.sleep(600)


def _wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "It did not happen within a minute."
        time.sleep(0.05)


def _runs(process: int) -> bool:
    """Whether it is there and not merely waiting to be counted out."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
