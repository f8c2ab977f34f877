"""Memory of the judge over a trace far longer than memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_hundred_million_requests__take_the_memory_of_a_day() -> None:
    """A hundred days of a million requests, drawn day by day: within 1.5 GB, and hardly more than the first day took."""
    command = [sys.executable, "-m", "benchmarks.replay", "--requests", "100000000", "--candidates", "8", "--streamed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["requests"] == 100_000_000
    assert found["peak_memory_bytes"] <= 1_500_000_000
    assert found["peak_memory_bytes"] - found["peak_memory_bytes_after_a_day"] <= 100_000_000
