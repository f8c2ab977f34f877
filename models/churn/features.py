"""Markov statistics of every node at one instant: the inputs of the churn network.

Everything is computed from `history.before(at)`, so nothing later can enter. With half-life h,

    N_h = Σ_departures 2^(−(t − t_d)/h)        T_h = ∫_up 2^(−(t − s)/h) ds
    departure rate   λ = (κ + N_h) / (κ / λ_class + T_h)         (gamma-shrunk towards the node's class)

and likewise for returns over time down. The rate of a session "before it began" leaves the session itself out: what it
did since is its age. Ages, durations and times since first seen are clipped, so that no input grows with the log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from models.blocks import for_each_block
from models.churn.history import SessionHistory
from models.churn.markov import PopulationRates
from models.churn.outages import with_outages
from models.churn.session_statistics import SessionStatistics, ages_hours, session_rates, session_statistics
from models.churn.settings import ChurnSettings
from models.churn.surroundings import surrounding_hazards, surroundings_names
from models.churn.telemetry import telemetry_inputs, telemetry_names
from models.events import DAY_US, Bool, Float64, Int64

_EXPERIENCE_SESSIONS = 20.0
_CLOCK_PRIOR = 0.5
_FLEET_PRIOR = 2.0


@dataclass(frozen=True)
class NodeStates:
    """What a life table reads of each node at one instant.

    Attributes:
        up: whether it looked up. (n,)
        age_hours: time in the present state, up or down. (n,)
        departure_rate: per hour up, from before the present session. (n,)
        return_rate: per hour down, from before the present gap. (n,)
    """

    up: Bool
    age_hours: Float64
    departure_rate: Float64
    return_rate: Float64

    def take(self, rows: Int64) -> Self:
        """The statistics of these rows, in this order."""
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True)
class NodeFeatures(NodeStates):
    """All that is known of each node at one instant.

    Attributes:
        chain_departure_rate: per hour up, the present session included, longest half-life. (n,)
        clock: shrunk share of previous days on which it was up at the clock time of each offset. (n, offsets)
        inputs: the network's inputs, `feature_names` gives the columns. (n, features)
    """

    chain_departure_rate: Float64
    clock: Float64
    inputs: Float64


def feature_names(settings: ChurnSettings) -> tuple[str, ...]:
    """Names of the columns of `NodeFeatures.inputs`."""
    return (
        "log_age_hours",
        "log_departure_rate_before_session",
        *(f"log_departure_rate_{h:g}h" for h in settings.rate_half_lives_hours),
        *(f"log_return_rate_{h:g}h" for h in settings.rate_half_lives_hours),
        *(f"logit_availability_{h:g}h" for h in settings.availability_half_lives_hours),
        *(f"same_clock_availability_{h:g}h" for h in settings.clock_offsets_hours),
        "log_same_clock_remaining_hours",
        "log_same_clock_days_up",
        "log_recent_sessions_hours",
        "log_recent_sessions_spread",
        "recent_sessions",
        "log_recent_gaps_hours",
        "own_share_gone_by_middle",
        "own_share_gone_by_last",
        "log_own_residual_hours",
        "log_longer_sessions",
        "log_last_session_hours",
        "log_last_gap_hours",
        "log_sessions",
        "log_hours_since_first_seen",
        "log_network_departure_ratio",
        "network_share_up",
        "log_fleet_departure_ratio",
        "sin_day",
        "cos_day",
        "sin_half_day",
        "cos_half_day",
        "sin_week",
        "cos_week",
        *surroundings_names(),
        *telemetry_names(),
    )


def node_features(
    history: SessionHistory, *, at_us: int, population: PopulationRates, settings: ChurnSettings, threads: int = 1
) -> NodeFeatures:
    """Statistics of all nodes of the history at `at_us`; later sessions and departures change nothing."""
    known = with_outages(history, threads=threads).before(at_us)
    states = _states(known, at_us=at_us, population=population, settings=settings, threads=threads)
    columns = session_statistics(known, at_us=at_us, settings=settings, threads=threads)
    off, on = population.of(known.device_class)
    together = np.column_stack(
        [
            *_fleet(known, states.up, columns, off),
            *_clock_waves(at_us, len(known)),
            surrounding_hazards(known, states.up, columns.age, at_us=at_us, settings=settings, threads=threads),
        ]
    )
    chain, clock = np.empty(len(known)), np.empty_like(columns.clock_up)
    inputs = np.empty((len(known), len(feature_names(settings))))

    def fill(nodes: slice) -> None:
        mine, log = columns.of(nodes), known.telemetry
        rates, chain[nodes], base = _own_rates(mine, off[nodes], on[nodes], settings)
        clock[nodes] = (mine.clock_up + _CLOCK_PRIOR * (1.0 - base)[:, None]) / (mine.clock_days + _CLOCK_PRIOR)
        inputs[nodes] = np.column_stack(
            [
                np.log1p(np.minimum(mine.age, settings.maximum_age_hours) * 60.0),
                np.log(states.departure_rate[nodes]),
                rates,
                clock[nodes],
                *_own_history(mine, off[nodes], settings),
                together[nodes],
                telemetry_inputs(None if log is None else log.within(nodes), len(base), at_us=at_us),
            ]
        )

    for_each_block(fill, len(known), threads=threads)
    return NodeFeatures(states.up, states.age_hours, states.departure_rate, states.return_rate, chain, clock, inputs)


def node_states(
    history: SessionHistory, *, at_us: int, population: PopulationRates, settings: ChurnSettings, threads: int = 1
) -> NodeStates:
    """The first few of `node_features`: a fraction of the work, and enough for a life table."""
    known = with_outages(history, threads=threads).before(at_us)
    return _states(known, at_us=at_us, population=population, settings=settings, threads=threads)


def _states(
    known: SessionHistory, *, at_us: int, population: PopulationRates, settings: ChurnSettings, threads: int
) -> NodeStates:
    rates = current_rates(known, population=population, settings=settings, threads=threads)
    return NodeStates(known.up_at(at_us), ages_hours(known, at_us=at_us), *rates)


def current_rates(
    known: SessionHistory, *, population: PopulationRates, settings: ChurnSettings, threads: int = 1
) -> tuple[Float64, Float64]:
    """Departure rate before the last session, return rate before the last gap; the class's where there is none."""
    off, on = population.of(known.device_class)
    before_session, before_gap = session_rates(known, population=population, settings=settings, threads=threads)
    last = known.offsets[1:] - 1
    some = known.offsets[1:] > known.offsets[:-1]
    if len(before_session):
        off = np.where(some, before_session[np.maximum(last, 0)], off)
        on = np.where(some, before_gap[np.maximum(last, 0)], on)
    return off, on


def _own_rates(
    columns: SessionStatistics, off: Float64, on: Float64, settings: ChurnSettings
) -> tuple[Float64, Float64, Float64]:
    """Inputs of departures, returns and availability; the chain's departure rate; the class's share of time down."""
    kappa = settings.rate_prior_departures
    off_rates = (kappa + columns.departures) / (kappa / off[:, None] + columns.hours_up)
    on_rates = (kappa + columns.returns) / (kappa / on[:, None] + columns.hours_down)
    base = off / (off + on)
    available = _shrunk_availability(columns, base)
    inputs = np.column_stack([np.log(off_rates), np.log(on_rates), np.log(available / (1.0 - available))])
    return inputs, off_rates[:, -1], base


def _shrunk_availability(columns: SessionStatistics, base_down: Float64) -> Float64:
    prior_hours = 2.0
    up = columns.decayed_up + prior_hours * (1.0 - base_down)[:, None]
    return np.clip(up / (columns.decayed_observed + prior_hours), 1e-4, 1.0 - 1e-4)


def _own_history(columns: SessionStatistics, off: Float64, settings: ChurnSettings) -> list[Float64]:
    sessions, last_session, last_gap, longer, excess, first_seen = columns.summary[:, :6].T
    cap = settings.maximum_age_hours
    residual = (np.minimum(1.0 / off, cap) + excess) / (1.0 + longer)
    went_on, days_up = columns.clock_remaining.T
    usual = np.minimum(1.0 / off, settings.edges_hours[-1])
    return [
        np.log1p((went_on + _CLOCK_PRIOR * usual) / (days_up + _CLOCK_PRIOR) * 60.0),
        np.log1p(days_up),
        *columns.recent.T,
        np.log1p(residual * 60.0),
        np.log1p(np.minimum(longer, _EXPERIENCE_SESSIONS)),
        np.log1p(np.minimum(last_session, cap) * 60.0),
        np.log1p(np.minimum(last_gap, cap) * 60.0),
        np.log1p(np.minimum(sessions, _EXPERIENCE_SESSIONS)),
        np.log1p(np.minimum(first_seen, cap)),
    ]


def _fleet(known: SessionHistory, up: Bool, columns: SessionStatistics, off: Float64) -> list[Float64]:
    """Recent departures against what the classes' rates expect, in the node's network and in the whole fleet."""
    recent, recent_hours = columns.summary[:, 6], columns.summary[:, 7]
    expected = recent_hours * off
    network = _codes(known)
    size = np.bincount(network).astype(np.float64)
    gone = np.bincount(network, weights=recent)
    due = np.bincount(network, weights=expected)
    ratio = np.log((gone + _FLEET_PRIOR) / (due + _FLEET_PRIOR))
    share = (np.bincount(network, weights=up.astype(np.float64)) + 1.0) / (size + 2.0)
    fleet = math.log((recent.sum() + _FLEET_PRIOR) / (expected.sum() + _FLEET_PRIOR))
    return [ratio[network], share[network], np.full(len(known), fleet)]


def _codes(known: SessionHistory) -> Int64:
    import pandas as pd

    return np.asarray(pd.factorize(known.network)[0], dtype=np.int64)


def _clock_waves(at_us: int, n: int) -> list[Float64]:
    day = 2.0 * math.pi * (at_us % DAY_US) / DAY_US
    week = 2.0 * math.pi * (at_us % (7 * DAY_US)) / (7 * DAY_US)
    waves = (math.sin(day), math.cos(day), math.sin(2 * day), math.cos(2 * day), math.sin(week), math.cos(week))
    return [np.full(n, wave) for wave in waves]
