"""Inputs of the learners: what is known about each cell, as numbers of like size."""

from __future__ import annotations

import numpy as np

from models.demand.activity import RECENT_HOURS
from models.demand.cells import CellState
from models.events import HOUR_US, Float64

RATE_FLOOR_PER_HOUR = 0.01
HARMONICS = 3

MARKOV_FEATURES = ("flow", "content_flow")
"""Inputs that come from transitions; they are the last base features."""


def base_feature_names(half_lives_hours: tuple[float, ...], horizons_hours: tuple[int, ...]) -> list[str]:
    """Names of the columns of `base_features`, in order."""
    yesterday = [f"yesterday_{h}h" for h in horizons_hours]
    rates = [f"{kind}_rate_{h:g}h" for kind in ("cell", "content", "location") for h in half_lives_hours]
    hours = [f"{kind}_hour_{back + 1}" for kind in ("cell", "content") for back in range(RECENT_HOURS)]
    clock = [f"{wave}_{harmonic + 1}" for harmonic in range(HARMONICS) for wave in ("sin", "cos")]
    return [
        *rates, "share", "affinity", "local_share", *hours, *yesterday, "content_age", "published_age", "cell_age", "unseen",
        "spread", "presence", "content_presence", "content_rank_fast", "content_rank_slow", "local_rank", "newborn",
        *clock, *MARKOV_FEATURES,
    ]  # fmt: skip


def base_features(state: CellState) -> Float64:
    """Inputs that hold for every horizon: logarithms of rates, counts, ages and ranks, and the hour of day (UTC).

    Shape (n, n_features).
    """
    share, places = state.share, state.places.rates[state.location]
    return np.column_stack(
        [
            _log(state.cell_rates),
            _log(state.content_rates),
            _log(places),
            np.log(share + 1e-4),
            np.log((state.affinity + 1e-6) / (share + 1e-6)),
            np.log((state.cell_rates[:, 0] + RATE_FLOOR_PER_HOUR) / (places[:, 0] + 1.0)),
            np.log1p(state.hours),
            np.log1p(state.content_hours),
            np.log1p(state.yesterday),
            np.log(state.content_age_hours + 0.1),
            np.log(state.published_age_hours + 0.1),
            np.log(state.cell_age_hours + 0.1),
            state.unseen.astype(np.float64),
            np.log1p(state.spread),
            _log(state.presence),
            _log(state.content_presence),
            np.log1p(state.content_rank),
            np.log1p(state.local_rank),
            np.full(len(state), np.log1p(state.newborn)),
            *_clock(state),
            _log(state.flow),
            _log(state.content_flow * share),
        ]
    )


def _clock(state: CellState) -> list[Float64]:
    angle = 2.0 * np.pi * (state.at_us % (24 * HOUR_US)) / (24 * HOUR_US)
    waves = [wave((k + 1) * angle) for k in range(HARMONICS) for wave in (np.sin, np.cos)]
    return [np.full(len(state), value) for value in waves]


def _log(rates: Float64) -> Float64:
    return np.asarray(np.log(rates + RATE_FLOOR_PER_HOUR), dtype=np.float64)
