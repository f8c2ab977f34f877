"""Marks from examples: what methods would have answered to questions that were collected, without a second stream.

The shortlist of a question holds all that a hybrid or a sequence network reads of the memory at its instant, at half
precision; so any number of variants can be marked on one collection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from models.events import Float64, Int64
from models.next_content.evaluation import DEPTH, LEAST_PROBABILITY
from models.next_content.hybrid import Hybrid
from models.next_content.lessons import Examples
from models.next_content.predictor import given, weigh
from models.next_content.scores import Marks
from models.next_content.sequence_method import columns_given, log_mixed
from models.next_content.shortlist import Shortlist

AT_ONCE = 256

Answer: TypeAlias = tuple[Float64, Float64]
"""Log-probabilities of the listed contents, (n, m), and the probability of what came, (n,)."""


def marks_of_hybrid(hybrid: Hybrid, examples: Examples) -> Marks:
    """Marks of a gate and re-ranker."""
    return _marks(examples, lambda part: _by_hybrid(hybrid, part))


def marks_of_shares(shares: Float64, examples: Examples) -> Marks:
    """Marks of the sequence network in the examples, mixed by shares; see `models.next_content.sequence_method`."""
    return _marks(examples, lambda part: _by_shares(shares, part))


def _by_hybrid(hybrid: Hybrid, part: Examples) -> Answer:
    weighed = weigh(hybrid, part.shortlist)
    return weighed.log_q, given(weighed, part.place, part.lessons.raw)


def _by_shares(shares: Float64, part: Examples) -> Answer:
    given_to = columns_given(part.shortlist, part.lessons, part.place)
    return log_mixed(part.shortlist, shares), given_to @ shares


def _marks(examples: Examples, answer: Callable[[Examples], Answer]) -> Marks:
    n = len(examples)
    rank, nats, top = np.zeros((1, n), dtype=np.int64), np.zeros((1, n)), np.zeros((1, n))
    for first in range(0, n, AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        part = examples.rows(rows)
        log_q, probability = answer(part)
        rank[0, rows] = place_among(part.shortlist, log_q, part.place)
        nats[0, rows] = -np.log(np.maximum(probability, LEAST_PROBABILITY))
        top[0, rows] = np.where(part.shortlist.contents >= 0, np.exp(log_q), 0.0).max(axis=1)
    return Marks(rank, nats, top, (examples.place >= 0)[None], np.array([np.nan]))


def place_among(shortlist: Shortlist, log_q: Float64, place: Int64) -> Int64:
    """Rank from 1 of a listed content, ties by code; 0 where it is not listed or not among the first. (n,)"""
    at = np.maximum(place, 0)[:, None]
    mine, code = np.take_along_axis(log_q, at, axis=1), np.take_along_axis(shortlist.contents, at, axis=1)
    ahead = (log_q > mine) | ((log_q == mine) & (shortlist.contents < code))
    rank = (ahead & (shortlist.contents >= 0)).sum(axis=1) + 1
    return np.where((place >= 0) & (rank <= DEPTH), rank, 0).astype(np.int64)
