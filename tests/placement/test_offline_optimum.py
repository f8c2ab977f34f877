"""The exact optimum of offline caching: by hand, by trying everything, and never below what a plan reaches."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.errors import ProblemError
from placement.offline_optimum import most_net_avoided
from placement.problem import Int64

traces = st.lists(st.integers(0, 4), min_size=1, max_size=12).map(np.array)


def by_trying_everything(content: Int64, epoch: Int64, room: int) -> int:
    """The best net of every sequence of held sets: hits of each epoch, less one for each content that comes in."""
    asked = np.zeros((int(epoch.max()) + 1, int(content.max()) + 1), dtype=np.int64)
    np.add.at(asked, (epoch, content), 1)
    held = [frozenset(some) for n in range(room + 1) for some in combinations(range(asked.shape[1]), n)]
    best = {frozenset[int](): 0}
    for hits in asked:
        best = {
            now: max(net - len(now - then) for then, net in best.items()) + int(hits[list(now)].sum()) for now in held
        }
    return max(best.values())


def test_most_net_avoided__by_hand() -> None:
    """A B A C A B with room for one: A is pushed before its first request and hits three times, B would cost what it saves.

    With room for two, B is held from its first request to its last as well: one more. C is asked for once and never pays.
    """
    content = np.array([0, 1, 0, 2, 0, 1])
    assert [most_net_avoided(content, np.arange(6), room=room) for room in (1, 2, 3)] == [2, 3, 3]


def test_most_net_avoided__changes_between_epochs_only() -> None:
    """A A B B with room for one saves one push of each two; within one epoch only one of the two can be held at all."""
    content = np.array([0, 0, 1, 1])
    assert most_net_avoided(content, np.array([0, 0, 1, 1]), room=1) == 2
    assert most_net_avoided(content, np.zeros(4, np.int64), room=1) == 1


def test_most_net_avoided__nothing_is_asked_for() -> None:
    """An empty day has an optimum, too."""
    assert most_net_avoided(np.zeros(0, np.int64), np.zeros(0, np.int64), room=3) == 0


@given(content=traces, room=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_most_net_avoided__equals_trying_everything(content: Int64, room: int, seed: int) -> None:
    """On traces small enough to try every sequence of held sets, for epochs of any length."""
    epoch = np.sort(np.random.default_rng(seed).integers(0, 5, len(content)))
    assert most_net_avoided(content, epoch, room=room) == by_trying_everything(content, epoch, room)


@given(content=traces, room=st.integers(1, 3), length=st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_most_net_avoided__more_freedom_never_saves_less(content: Int64, room: int, length: int) -> None:
    """More room, or changing what is held more often, can only help."""
    every = np.arange(len(content))
    free = most_net_avoided(content, every, room=room)
    assert (
        most_net_avoided(content, every // length, room=room) <= free <= most_net_avoided(content, every, room=room + 1)
    )


def test_most_net_avoided__tells_every_mistake() -> None:
    """What is wrong, with the values, in one message."""
    with pytest.raises(ProblemError) as told:
        most_net_avoided(np.array([1, 2]), np.array([3, 1, 4]), room=0)
    for part in ("2 contents but 3 epochs", "Request 1 is of epoch 1, after one of epoch 3", "room >= 1, got 0"):
        assert part in str(told.value)
