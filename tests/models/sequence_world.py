"""A first-order chain over twenty contents, as trails and targets."""

from __future__ import annotations

import numpy as np

from models.events import Float64, Int32
from models.next_content.sequence import SequenceBatch

CONTENTS = 20
START_US = 1_507_000_000_000_000
SECOND_US = 1_000_000


def transition_matrix() -> Float64:
    """P(next | current): from content i, 0.6 to i + 1, 0.3 to i + 2 and 0.1 to i + 5, modulo 20."""
    matrix = np.zeros((CONTENTS, CONTENTS))
    for step, probability in ((1, 0.6), (2, 0.3), (5, 0.1)):
        matrix[np.arange(CONTENTS), (np.arange(CONTENTS) + step) % CONTENTS] = probability
    return matrix


def chain_trails(n: int, *, history: int = 4, seed: int = 0) -> tuple[SequenceBatch, Int32]:
    """Trails of one to `history` contents of the chain, one a second, and where each went next."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([1, 2, 5], size=(n, history), p=[0.6, 0.3, 0.1])
    path = (
        rng.integers(CONTENTS, size=(n, 1)) + np.cumsum(np.column_stack([np.zeros(n, int), steps]), axis=1)
    ) % CONTENTS
    items, targets = path[:, :-1].astype(np.int32), path[:, -1].astype(np.int32)
    length = rng.integers(1, history + 1, size=n)
    items[np.arange(history) < history - length[:, None]] = -1
    ts_us = START_US + np.arange(n, dtype=np.int64) * SECOND_US
    location = rng.integers(0, 3, size=n).astype(np.int32)
    features = rng.integers(-1, 2, size=(n, 1)).astype(np.int32)
    return SequenceBatch(items, location, ts_us, features), targets
