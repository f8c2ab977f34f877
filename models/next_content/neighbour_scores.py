"""Scores by session-based nearest neighbours: V-SkNN and item-kNN over the sessions that a memory holds.

With x_g the content that a session saw g moves ago, w(g) the weight of that position, and age(s) the time since the newest
request of a remembered session s:

    V-SkNN    sim(s) = 2^(-age(s) / h) * sum over g of w(g) [x_g in s]
              score(i) = idf(i) * sum over the most similar s that hold i of sim(s) w(g_s) exp(-d_s(i) / reach)
    item-kNN  score(i) = sum over g of w(g) co(x_g, i) / sqrt((n(x_g) + shrinkage) (n(i) + shrinkage))

g_s is the newest position that the session shares with s, d_s(i) how many places of s lie between i and that shared
content; n(i) counts sessions that hold i and co(x, i) those that hold
both, each decayed. V-SkNN is Ludewig and Jannach, "Evaluation of session-based recommendation algorithms" (2018); the
decay with age and within the neighbour is that of STAN (Garg et al. 2019), whose union with V-SkNN is V-STAN (Ludewig et
al. 2021). item-kNN is the cosine with the shrinkage of Hidasi et al. (2016).

What the session has seen gets no score. A neighbour that holds nothing else says nothing and takes no place; the asking
session itself is one of those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import njit

from models.events import HOUR_US, Bool, Float64, Int32, Int64
from models.keys import Key
from models.next_content.session_memory import SessionMemory, SessionRing, holds, remembered

POSITION_WEIGHTINGS = ("last", "quadratic", "harmonic", "log", "linear", "equal")
LEAST_SUPPORT = 1e-9


class Scorer(Protocol):
    """A rule that scores contents by a session memory."""

    @property
    def name(self) -> str: ...

    def scores(self, memory: SessionMemory, seen: Int32, at_us: int) -> Float64:
        """Scores >= 0 of all known contents, zero for what was seen; `seen` newest first, distinct. (contents,)"""
        ...


def position_weights(weighting: str, n: int) -> Float64:
    """w(g) of a content seen g moves ago, 1 at g = 0 and never growing. (n,)"""
    gap = np.arange(n, dtype=np.float64)
    weights: dict[str, Float64] = {
        "last": (gap == 0).astype(np.float64),
        "quadratic": 1.0 / (1.0 + gap) ** 2,
        "harmonic": 1.0 / (1.0 + gap),
        "log": 1.0 / np.log2(2.0 + gap),
        "linear": np.maximum(1.0 - 0.1 * gap, 0.0),
        "equal": np.ones(n),
    }
    return weights[weighting]


def _check_weighting(weighting: str) -> None:
    if weighting not in POSITION_WEIGHTINGS:
        raise ValueError(f"Expected position_weighting of {', '.join(POSITION_WEIGHTINGS)}, got {weighting!r}.")


@dataclass(frozen=True)
class VSkNN:
    """Settings of V-SkNN, which also score."""

    sample_size: int = 500
    """Sessions looked at for each content of the asking session, the most recent that hold it."""
    neighbours: int = 100
    """Most similar sessions that give scores."""
    position_weighting: str = "quadratic"
    """How the weight of a content falls with its distance from the newest: one of POSITION_WEIGHTINGS."""
    idf: bool = False
    """Whether scores are multiplied by log(sessions / sessions that hold the content)."""
    half_life_hours: float = 24.0
    """Half-life of a session's weight since its newest request, in hours."""
    reach_contents: float = np.inf
    """Distance from the shared content, in contents, at which the weight within a neighbour falls to 1/e."""

    name = "v_sknn"

    def __post_init__(self) -> None:
        _check_weighting(self.position_weighting)
        for name in ("sample_size", "neighbours"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} >= 1, got {getattr(self, name)!r}.")
        for name in ("half_life_hours", "reach_contents"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Expected {name} > 0, got {getattr(self, name)!r}.")

    def scores(self, memory: SessionMemory, seen: Int32, at_us: int) -> Float64:
        weight = position_weights(self.position_weighting, len(seen))
        rows = _sampled(memory.ring, seen, weight, self.sample_size, memory.marks)
        similarity = _similarities(memory.ring, rows, seen, weight)
        similarity *= 2.0 ** (-(at_us - memory.ring.newest_us[rows]) / HOUR_US / self.half_life_hours)
        best = np.argsort(-similarity, kind="stable")[: self.neighbours]
        score = np.zeros(len(memory.contents))
        _add_neighbours(memory.ring, rows[best], similarity[best], seen, weight, self.reach_contents, score)
        return score * _idf(memory, np.flatnonzero(score), len(score)) if self.idf else score


@dataclass(frozen=True)
class ItemKNN:
    """Settings of item-kNN, which also score."""

    sample_size: int = 500
    """Sessions looked at for each content of the asking session, the most recent that hold it."""
    position_weighting: str = "quadratic"
    """How the weight of a content falls with its distance from the newest; "last" asks the newest only."""
    half_life_hours: float = 1.0
    """Half-life of all counts, in hours; one of the memory's `half_lives_hours`."""
    shrinkage: float = 20.0
    """Sessions added to the supports, so that few sessions make no strong similarity."""

    name = "item_knn"

    def __post_init__(self) -> None:
        _check_weighting(self.position_weighting)
        if self.sample_size < 1:
            raise ValueError(f"Expected sample_size >= 1, got {self.sample_size!r}.")
        if not self.half_life_hours > 0 or self.shrinkage < 0:
            raise ValueError(
                f"Expected half_life_hours > 0 and shrinkage >= 0, got {self.half_life_hours!r} and {self.shrinkage!r}."
            )

    def scores(self, memory: SessionMemory, seen: Int32, at_us: int) -> Float64:
        h, n = memory.column(self.half_life_hours), len(memory.contents)
        support = memory.counts.content[:n, h] * memory.deflation(at_us)[h] + self.shrinkage
        weight = position_weights(self.position_weighting, len(seen)) / np.sqrt(
            np.maximum(support[seen], LEAST_SUPPORT)
        )
        score = np.zeros(n)
        per_us = memory.counts.per_hour[h] / HOUR_US
        _add_co_occurrences(memory.ring, seen, weight, self.sample_size, (at_us, per_us), score)
        score[seen] = 0.0
        score /= np.sqrt(np.maximum(support, LEAST_SUPPORT))
        return score


def _idf(memory: SessionMemory, scored: Int64, n: int) -> Float64:
    """log(sessions / sessions that hold i) at the slowest half-life, at least zero. (contents,)"""
    idf = np.zeros(n)
    idf[scored] = np.log(memory.counts.total[-2] / memory.counts.content[scored, -2])
    return np.maximum(idf, 0.0)


@njit(cache=True)
def _has_news(ring: SessionRing, row: Key, seen: Int32) -> bool:
    known = 0
    for x in seen:
        if holds(ring, row, x) >= 0:
            known += 1
    return bool(known < ring.length[row])


@njit(cache=True)
def _sampled(ring: SessionRing, seen: Int32, weight: Float64, sample_size: int, marks: Bool) -> Int64:
    """Rows of the most recent sessions with each content, each row once, in order of discovery."""
    rows = np.empty(sample_size * len(seen), dtype=np.int64)
    n, places = 0, ring.content.shape[1]
    for g in range(len(seen)):
        link = ring.head[seen[g]]
        for _ in range(sample_size):
            if weight[g] <= 0 or not remembered(ring, link // places):
                break
            row = (link // places) % len(ring.length)
            if not marks[row]:
                marks[row] = True
                rows[n] = row
                n += 1
            link = ring.earlier[row, link % places]
    marks[rows[:n]] = False
    kept = 0
    for j in range(n):
        if _has_news(ring, rows[j], seen):
            rows[kept] = rows[j]
            kept += 1
    return rows[:kept]


@njit(cache=True)
def _similarities(ring: SessionRing, rows: Int64, seen: Int32, weight: Float64) -> Float64:
    similarity = np.zeros(len(rows))
    for j in range(len(rows)):
        for g in range(len(seen)):
            if holds(ring, rows[j], seen[g]) >= 0:
                similarity[j] += weight[g]
    return similarity


@njit(cache=True)
def _add_neighbours(
    ring: SessionRing, rows: Int64, similarity: Float64, seen: Int32, weight: Float64, reach: float, score: Float64
) -> None:
    for j in range(len(rows)):
        row, g = rows[j], 0
        while holds(ring, row, seen[g]) < 0:
            g += 1
        shared = holds(ring, row, seen[g])
        for place in range(ring.length[row]):
            distance = max(place - shared, shared - place)
            score[ring.content[row, place]] += similarity[j] * weight[g] * np.exp(-distance / reach)
    score[seen] = 0.0


@njit(cache=True)
def _add_co_occurrences(
    ring: SessionRing, seen: Int32, weight: Float64, sample_size: int, clock: tuple[int, float], score: Float64
) -> None:
    at_us, per_us = clock
    places = ring.content.shape[1]
    for g in range(len(seen)):
        link = ring.head[seen[g]]
        for _ in range(sample_size):
            if weight[g] <= 0 or not remembered(ring, link // places):
                break
            row = (link // places) % len(ring.length)
            together = weight[g] * 2.0 ** (-(at_us - ring.newest_us[row]) * per_us)
            for place in range(ring.length[row]):
                score[ring.content[row, place]] += together
            link = ring.earlier[row, link % places]
