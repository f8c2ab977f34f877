"""Inputs of the learners: what is known about each cell, as numbers of like size."""

from __future__ import annotations

import numpy as np

from models.demand.cells import CellState
from models.events import HOUR_US, Float64

RATE_FLOOR_PER_HOUR = 0.01


def base_feature_names(half_lives_hours: tuple[float, ...]) -> list[str]:
    """Names of the columns of `base_features`, in order."""
    rates = [f"{kind}_rate_{h:g}h" for kind in ("cell", "content", "location") for h in half_lives_hours]
    clock = [f"{wave}_{harmonic}" for harmonic in (1, 2) for wave in ("sin", "cos")]
    return [*rates, "share", "affinity", "last_hour", "content_age", "cell_age", "unseen", *clock, *MARKOV_FEATURES]


MARKOV_FEATURES = ("flow", "content_flow")
"""Inputs that come from transitions; they are the last base features."""


def base_features(state: CellState) -> Float64:
    """Inputs that hold for every horizon: logarithms of rates and ages, hour of day (UTC), shape (n, n_features)."""
    angle = 2.0 * np.pi * (state.at_us % (24 * HOUR_US)) / (24 * HOUR_US)
    clock = [np.full(len(state), wave(k * angle)) for k in (1, 2) for wave in (np.sin, np.cos)]
    share = state.share
    return np.column_stack(
        [
            _log(state.cell_rates),
            _log(state.content_rates),
            _log(state.places.rates[state.location]),
            np.log(share + 1e-4),
            np.log((state.affinity + 1e-6) / (share + 1e-6)),
            np.log1p(state.last_hour),
            np.log(state.content_age_hours + 0.1),
            np.log(state.cell_age_hours + 0.1),
            state.unseen.astype(np.float64),
            *clock,
            _log(state.flow),
            _log(state.content_flow * share),
        ]
    )


def _log(rates: Float64) -> Float64:
    return np.asarray(np.log(rates + RATE_FLOOR_PER_HOUR), dtype=np.float64)
