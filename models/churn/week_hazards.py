"""Hazard of each bin of the horizon by the hour of the week of the origin.

From D departures among N nodes at risk in bin b, seen from origins in one hour, and a prior worth κ nodes at risk:

    hour of the day     h_db = (D_db + κ h_b) / (N_db + κ)        h_b over all origins
    hour of the week    h_wb = (D_wb + κ h_db) / (N_wb + κ)       d the hour of the day of w

κ has the best likelihood on other rows: however large a fleet, what it does in one hour of one week is a single draw of
that hour. A departure known only to lie within several bins is spread over them (`models.churn.boosting.person_bins`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_expit, logit

from models.churn.boosting import base_hazards, person_bins
from models.churn.outcomes import Outcomes, log_likelihood
from models.events import DAY_US, HOUR_US, Float64, Int64

_HOURS_OF_DAY = 24
PRIOR_ROWS = (10.0, 100.0, 1e3, 1e4, 1e5, 1e6)
"""Values of κ that are tried."""
# 1970-01-01 was a Thursday; hour 0 of the week is Monday 00:00 UTC.
HOURS_OF_WEEK = 168
_MONDAY_SHIFT_US = 3 * DAY_US


@dataclass(frozen=True)
class WeekHazards:
    """Logits of the hazard in each bin.

    Attributes:
        logits: by hour of the week, Monday 00:00 UTC first. (168, B)
        base: over all hours. (B,)
    """

    logits: Float64
    base: Float64

    def at(self, at_us: int) -> Float64:
        """Logits of the bins for an origin. (B,)"""
        return np.asarray(self.logits[hour_of_week(np.array([at_us]))[0]], dtype=np.float64)


def hour_of_week(at_us: Int64) -> Int64:
    return np.asarray((at_us + _MONDAY_SHIFT_US) // HOUR_US % HOURS_OF_WEEK, dtype=np.int64)


def fit_week_hazards(outcomes: Outcomes, chosen_on: Outcomes) -> WeekHazards:
    """Counts `outcomes` and chooses κ on `chosen_on`, later rows or those of other nodes."""
    base = base_hazards(outcomes)
    rows = person_bins(outcomes, base)
    at = (hour_of_week(outcomes.at_us[rows.row]), rows.bin)
    gone, risk = np.zeros((2, HOURS_OF_WEEK, len(base)))
    np.add.at(gone, at, rows.gone * rows.weight)
    np.add.at(risk, at, rows.weight)
    tried = [WeekHazards(_shrunk(gone, risk, base, prior), logit(base)) for prior in PRIOR_ROWS]
    hour = hour_of_week(chosen_on.at_us)
    stays = [np.exp(np.cumsum(log_expit(-week.logits[hour]), axis=1)) for week in tried]
    return tried[int(np.argmax([log_likelihood(s, chosen_on.low, chosen_on.high).sum() for s in stays]))]


def _shrunk(gone: Float64, risk: Float64, base: Float64, prior: float) -> Float64:
    by_day = [v.reshape(-1, _HOURS_OF_DAY, len(base)).sum(axis=0) for v in (gone, risk)]
    day = (by_day[0] + prior * base) / (by_day[1] + prior)
    hazard = (gone + prior * np.tile(day, (HOURS_OF_WEEK // _HOURS_OF_DAY, 1))) / (risk + prior)
    return np.asarray(logit(np.clip(hazard, 1e-9, 1.0 - 1e-9)), dtype=np.float64)
