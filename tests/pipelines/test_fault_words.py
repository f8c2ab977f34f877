"""Faults in words: what a reader of a page is told of what was done to the world."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.quantities import NO_BREAK_SPACE
from pipelines.config import load
from pipelines.fault_words import fault_sentences

CONFIGS = Path(__file__).parents[2] / "configs" / "replay" / "faults"


def sentences(name: str) -> list[str]:
    return [text.replace(NO_BREAK_SPACE, " ") for text in fault_sentences(load("replay", CONFIGS / name, []).faults)]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_fault_sentences__one_for_each_fault(path: Path) -> None:
    """Whoever adds a kind of fault must say what it is."""
    told = sentences(path.name)
    assert len(told) == len(load("replay", path, []).faults) > 0
    assert all(text.startswith("Fault, ") and text.endswith(".") for text in told)


def test_fault_sentences__tell_shares_and_spans() -> None:
    """A span given as minutes reads like one given by its end."""
    cut = sentences("small_network_cut.yaml")
    assert cut[0].endswith(": All devices of the largest network are off.")
    slow, dead = sentences("small_slow_and_dead.yaml")
    assert slow.endswith(": 30 % of the devices send at 10 % of their uplink.")
    assert dead.endswith(": 20 % of the devices are off.")
    assert " to " in cut[0]
