"""Availability predictors of Mickens and Noble, turned into probabilities of staying.

    SatCount           a counter per node rises while it is up and falls while it is down, between −L and L hours
    TwiddledHistory    the last k hourly states of the node are looked up in its own past: of the earlier instants whose
                       k states differed in at most d places, the share after which it was up at the lead time

Both give a score, not a probability of an unbroken stay. For each bin of the horizon, the hazard of leaving is fitted by
logistic regression on the log-odds of the score at its edge, on training origins; L is chosen there too, by likelihood.
The counter is kept in continuous time, the limit of ever more frequent samples, because most sessions of phones are
shorter than an hour.

Mickens and Noble, "Exploiting availability prediction in distributed systems", NSDI 2006.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numba
import numpy as np
from scipy.special import log_expit, logit

from models.calibration import LogitCalibration, fit_logit_calibration
from models.churn.boosting import base_hazards, person_bins
from models.churn.history import SessionHistory
from models.churn.origins import OriginOutcomes
from models.churn.outcomes import Outcomes, log_likelihood
from models.events import HOUR_US, Float64

COUNTER_LIMITS_HOURS = (2.0, 8.0, 32.0, 128.0)
"""Limits of the saturating counter that are tried."""
HISTORY_BITS = 8
"""Hourly states that make a pattern."""
TWIDDLED_BITS = 1
"""Places in which an earlier pattern may differ."""
HISTORY_HOURS = 336
"""How far back patterns are looked for."""
_PRIOR_MATCHES = 1.0
_CALIBRATION_PRIOR = 1.0

Score = Callable[[SessionHistory, int], Float64]
"""(history, instant) → score in (0, 1) of each node and edge, higher for one that is likelier to be up. (n, B)"""


@dataclass(frozen=True)
class CalibratedScore:
    """Hazards of leaving from a score: logit h_b = a_b + c_b · logit(1 − score_b)."""

    score: Score
    bins: tuple[LogitCalibration, ...]

    def logits(self, history: SessionHistory, at_us: int) -> Float64:
        """Logits of the hazard in each bin, for nodes that are up. (n, B)"""
        return _logits(self.score(history, at_us), self.bins)


def saturating_count(limit_hours: float, bins: int) -> Score:
    """Counter of each node, scaled to (0, 1), the same at every edge."""

    def score(history: SessionHistory, at_us: int) -> Float64:
        known = history.before(at_us)
        sessions = (known.offsets, known.start_us, known.end_us, known.end_upper_us, known.censored)
        seen = (known.observed_from_us, np.minimum(known.observed_until_us, at_us))
        count = _saturating_count(*sessions, *seen, limit_hours * HOUR_US)
        return np.repeat(((count / limit_hours + 1.0) / 2.0 * 0.98 + 0.01)[:, None], bins, axis=1)

    return score


def twiddled_history(edges_hours: Sequence[float], share_up: float) -> Score:
    """Share of similar moments of the node's own past that were followed by its being up, shrunk towards `share_up`."""
    edges_us = np.array([round(e * HOUR_US) for e in edges_hours], dtype=np.int64)
    shape = np.array([HISTORY_BITS, TWIDDLED_BITS, HISTORY_HOURS], dtype=np.int64)
    prior = np.array([min(max(share_up, 0.02), 0.98), _PRIOR_MATCHES])

    def score(history: SessionHistory, at_us: int) -> Float64:
        known = history.before(at_us)
        sessions = (known.offsets, known.start_us, known.end_us, known.end_upper_us, known.censored)
        up = known.up_at(at_us)
        return np.asarray(
            _twiddled_share(*sessions, known.observed_from_us, up, at_us, edges_us, shape, prior), dtype=np.float64
        )

    return score


def fit_scores(candidates: Sequence[Score], rows: OriginOutcomes) -> CalibratedScore:
    """The candidate with the best likelihood of the rows once it is calibrated on them."""
    outcomes = rows.outcomes
    best, highest = None, -np.inf
    for candidate in candidates:
        scores = rows.collect(candidate)
        fitted = CalibratedScore(candidate, _calibrations(scores, outcomes))
        survival = np.exp(np.cumsum(log_expit(-_logits(scores, fitted.bins)), axis=1))
        value = float(log_likelihood(survival, outcomes.low, outcomes.high).sum())
        if value > highest:
            best, highest = fitted, value
    assert best is not None
    return best


def _calibrations(scores: Float64, outcomes: Outcomes) -> tuple[LogitCalibration, ...]:
    rows = person_bins(outcomes, base_hazards(outcomes))
    fitted = []
    for b in range(scores.shape[1]):
        mine = rows.bin == b
        fitted.append(
            fit_logit_calibration(
                1.0 - scores[rows.row[mine], b],
                rows.gone[mine],
                weight=rows.weight[mine],
                prior_strength=_CALIBRATION_PRIOR,
            )
            if mine.any()
            else LogitCalibration()
        )
    return tuple(fitted)


def _logits(scores: Float64, bins: Sequence[LogitCalibration]) -> Float64:
    intercept, slope = (np.array([getattr(c, name) for c in bins]) for name in ("intercept", "slope"))
    return np.asarray(intercept - slope * logit(scores), dtype=np.float64)


@numba.njit(cache=True, nogil=True)
def _saturating_count(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, seen_from, seen_until, limit
):
    """Counter of each node in hours, `limit` in microseconds; unknown time leaves it as it was."""
    count = np.zeros(len(offsets) - 1)
    for node in range(len(offsets) - 1):
        value, known_since, down = 0.0, seen_from[node], True
        for i in range(offsets[node], offsets[node + 1]):
            if down:
                value = max(-limit, value - max(start[i] - known_since, 0))
            left = end[i] + (upper[i] - end[i]) // 2
            value = min(limit, value + (left - start[i]))
            known_since, down = left, not censored[i]
        if down:
            value = max(-limit, value - max(seen_until[node] - known_since, 0))
        count[node] = value / 3.6e9
    return count


@numba.njit(cache=True, nogil=True)
def _states_before(start, end, upper, first, last, at, steps, out):  # type: ignore[no-untyped-def]
    """out[j] = whether the node was up at `at` − j hours, for j = 0 … steps − 1; newest first."""
    i = last - 1
    for j in range(steps):
        instant = at - j * 3_600_000_000
        while i >= first and start[i] > instant:
            i -= 1
        out[j] = i >= first and instant < end[i] + (upper[i] - end[i]) // 2


@numba.njit(cache=True, nogil=True)
def _twiddled_share(  # type: ignore[no-untyped-def]
    offsets, start, end, upper, censored, seen_from, up, at, edges, shape, prior
):
    bits, twiddled, steps = shape[0], shape[1], shape[2]
    out = np.empty((len(offsets) - 1, len(edges)))
    hourly = np.zeros(steps, dtype=np.bool_)
    later = np.zeros(steps, dtype=np.bool_)
    similar = np.zeros(steps, dtype=np.bool_)
    hour = 3_600_000_000
    for node in range(len(offsets) - 1):
        out[node] = prior[0]
        if not up[node]:
            continue
        first, last = offsets[node], offsets[node + 1]
        watched = min(steps, 1 + (at - seen_from[node]) // hour)
        _states_before(start, end, upper, first, last, at, watched, hourly)
        hourly[0] = True
        for j in range(1, watched - bits + 1):
            differing = 0
            for k in range(bits):
                differing += hourly[j + k] != hourly[k]
            similar[j] = differing <= twiddled
        for b in range(len(edges)):
            # States at the lead time after each earlier instant; those that lie in the future are not known.
            _states_before(start, end, upper, first, last, at + edges[b], watched, later)
            total, matches = prior[0] * prior[1], prior[1]
            for j in range(edges[b] // hour + 1, watched - bits + 1):
                if similar[j]:
                    matches += 1.0
                    total += later[j]
            out[node, b] = total / matches
    return out
