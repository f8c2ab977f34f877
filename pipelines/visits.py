"""Visitors of a synthetic world: a marked Markov process whose every rate is known.

Content i has weight w_i (Zipf), is published at p_i, and is liked a_li times as much at location l as on average:

    popularity   π_li(t) ∝ a_li · w_i · 2^(-(t - p_i)/H)   for p_i <= t, summing to 1 over contents

Since all contents decay alike, 2^(-t/H) cancels: between two publications π is constant, and drawing from it is one
search in a running sum over contents in order of publication. A content loses its share because newer ones come.

    session      starts at rate λ_l(t) with a draw from π_l; after an exponential gap (mean 1/γ) it stops with
                 probability s; else with probability r it draws from π_l again; else it follows the chain T
    requests     q_l = λ_l π_l + γ (1-s) [ r π_l Σ_x a_lx + (1-r) Tᵀ a_l ],   da_l/dt = q_l - γ a_l

where a_lx(t) is the expected number of sessions at location l whose last content is x. A content's successors were
published before it, so T never points at what does not exist yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from pipelines.sizes import Float64, Int64

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
_FORGOTTEN = 12.0  # sessions that are e^-12 of what they were no longer count


@dataclass(frozen=True)
class Popularity:
    """Who likes what: contents in order of publication.

    Attributes:
        published_us: on whole minutes, non-decreasing. (n_contents,)
        weight: Zipf weights. (n_contents,)
        taste: liking of each location relative to the average. (n_locations, n_contents)
        half_life_hours: H.
    """

    published_us: Int64
    weight: Float64
    taste: Float64
    half_life_hours: float

    def unscaled(self) -> Float64:
        """Numerators of π without the common decay. (n_locations, n_contents)"""
        age_hours = (self.published_us - self.published_us[-1]) / HOUR_US
        return np.asarray(self.taste * self.weight * 2.0 ** (age_hours / self.half_life_hours))

    def n_published(self, at_us: npt.ArrayLike) -> Int64:
        return np.asarray(np.searchsorted(self.published_us, at_us, side="right"), dtype=np.int64)

    def share(self, at_us: int) -> Float64:
        """π at one instant. (n_locations, n_contents)"""
        known = self.unscaled()
        known[:, self.n_published(at_us) :] = 0.0
        return np.asarray(known / known.sum(axis=1, keepdims=True))

    def draw(self, location: Int64, at_us: Int64, rng: np.random.Generator) -> Int64:
        """One content for each pair of location and instant. (n,)"""
        running = np.cumsum(self.unscaled(), axis=1)
        n_known = self.n_published(at_us)
        target = rng.random(len(location)) * running[location, n_known - 1]
        drawn = np.empty(len(location), dtype=np.int64)
        for place in range(len(running)):
            here = location == place
            drawn[here] = np.searchsorted(running[place], target[here], side="right")
        return np.minimum(drawn, n_known - 1)


@dataclass(frozen=True)
class Chain:
    """T: successors of each content with their probabilities, which sum to 1. (n_contents, n_successors) each."""

    successor: Int64
    probability: Float64

    def draw(self, content: Int64, rng: np.random.Generator) -> Int64:
        running = np.cumsum(self.probability[content], axis=1)
        choice = (rng.random(len(content))[:, None] * running[:, -1:] >= running).sum(axis=1)
        return np.asarray(self.successor[content, np.minimum(choice, running.shape[1] - 1)])


def draw_chain(
    popularity: Popularity, start_us: int, *, n_successors: int, among: int, rng: np.random.Generator
) -> Chain:
    """Gives each content distinct successors among what was published before it, or before the start of the world.

    Successors are drawn by popularity at the average location, from the `among` latest of those; the j-th drawn gets a
    probability in proportion to 2^-j.
    """
    n = len(popularity.published_us)
    at_start = int(popularity.n_published(start_us))
    log_weight = np.log(popularity.weight) + np.log(2) / popularity.half_life_hours * (
        (popularity.published_us - start_us) / HOUR_US
    )
    successor = np.empty((n, n_successors), dtype=np.int64)
    for content in range(n):
        until = max(content, at_start)
        first = max(0, until - among)
        # The largest log-weights with Gumbel noise are a draw without replacement by weight.
        score = log_weight[first:until] + rng.gumbel(size=until - first)
        if first <= content < until:
            score[content - first] = -np.inf
        successor[content] = first + np.argsort(-score, kind="stable")[:n_successors]
    probability = np.tile(2.0 ** -np.arange(1, n_successors + 1), (n, 1))
    return Chain(successor, probability / probability.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class VisitModel:
    """Everything that is true of visitors.

    Attributes:
        popularity: π.
        chain: T.
        starts: expected session starts by minute from `start_us` on. (n_locations, n_minutes)
        start_us: first instant of the world.
        stop: s, probability that a session ends after a content.
        restart: r, probability that one that goes on draws from π.
        gap_minutes: 1/γ, mean time between the contents of a session.
    """

    popularity: Popularity
    chain: Chain
    starts: Float64
    start_us: int
    stop: float
    restart: float
    gap_minutes: float

    @property
    def end_us(self) -> int:
        return self.start_us + int(self.starts.shape[1]) * MINUTE_US


@dataclass(frozen=True)
class Visits:
    """Requests in time order; sessions are numbered by their start. (n,) each."""

    ts_us: Int64
    session: Int64
    location: Int64
    content: Int64


def draw_visits(model: VisitModel, rng: np.random.Generator) -> Visits:
    """Plays all sessions; requests after the end of the world are not seen."""
    location, ts_us = _draw_starts(model, rng)
    session = np.arange(len(ts_us))
    content = model.popularity.draw(location, ts_us, rng)
    seen = [(ts_us, session, location, content)]
    while len(session):
        goes_on = rng.random(len(session)) >= model.stop
        ts_us = ts_us + np.rint(rng.exponential(model.gap_minutes * MINUTE_US, len(session))).astype(np.int64)
        kept = goes_on & (ts_us < model.end_us)
        ts_us, session, location, content = (x[kept] for x in (ts_us, session, location, content))
        restarts = rng.random(len(session)) < model.restart
        content = np.where(restarts, model.popularity.draw(location, ts_us, rng), model.chain.draw(content, rng))
        seen.append((ts_us, session, location, content))
    columns = [np.concatenate(c) for c in zip(*seen, strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    return Visits(*(c[order] for c in columns))


def _draw_starts(model: VisitModel, rng: np.random.Generator) -> tuple[Int64, Int64]:
    """Poisson session starts, in time order: location and instant."""
    count = rng.poisson(model.starts)
    location, minute = np.nonzero(count)
    times = count[location, minute]
    location, minute = np.repeat(location, times), np.repeat(minute, times)
    ts_us = model.start_us + minute * MINUTE_US + rng.integers(0, MINUTE_US, len(minute))
    order = np.lexsort((location, ts_us))
    return location[order].astype(np.int64), ts_us[order].astype(np.int64)


def expected_hourly_requests(
    model: VisitModel, *, hours: tuple[int, int] | None = None, step_minutes: int = 1
) -> Float64:
    """Integral of q over each hour, by Heun's rule. (n_hours, n_locations, n_contents)

    From da/dt = q - γ a, the requests of a step are its change of `a` plus γ times the integral of `a`. Sessions die
    out at rate γ s, so a part of the world needs little of what was before it: a large world's truth is computed for
    the hours that are asked for.

    Args:
        model: what is true.
        hours: first hour, and the hour before which to end, counted from the start; the whole world by default.
        step_minutes: length of a step, a divisor of 60 well below the mean gap; publications wait for the next step.
    """
    n_hours = -(-int(model.starts.shape[1]) // 60)
    first, until = (0, n_hours) if hours is None else hours
    if not 0 <= first < until <= n_hours:
        raise ValueError(f"Expected hours within [0, {n_hours}], got {hours!r}.")
    if step_minutes < 1 or 60 % step_minutes:
        raise ValueError(f"Expected step_minutes to divide 60, got {step_minutes!r}.")
    begin = max(0, first - math.ceil(_FORGOTTEN * model.gap_minutes / model.stop / 60))
    starts = model.starts[:, 60 * begin : 60 * until]
    starts = np.add.reduceat(starts, np.arange(0, starts.shape[1], step_minutes), axis=1)
    at_us = model.start_us + MINUTE_US * (60 * begin + step_minutes * np.arange(starts.shape[1]))
    hourly = _integrate(
        starts,
        model.popularity.unscaled(),
        model.popularity.n_published(at_us),
        model.chain.successor,
        model.chain.probability,
        np.array([step_minutes / model.gap_minutes, model.stop, model.restart]),
        np.array([60 // step_minutes, first - begin], dtype=np.int64),
    )
    return np.asarray(hourly)


@njit(cache=True)
def _integrate(
    starts: Float64,
    unscaled: Float64,
    n_published: Int64,
    successor: Int64,
    probability: Float64,
    rates: Float64,
    clock: Int64,
) -> Float64:
    """Hours of the steps of `starts`; `clock` holds the steps of an hour and the first hours that are left out."""
    an_hour, skipped = clock
    n_locations, n_steps = starts.shape
    n_contents, per_step = unscaled.shape[1], rates[0]
    hourly = np.zeros(((n_steps + an_hour - 1) // an_hour - skipped, n_locations, n_contents))
    share, active, ahead = np.empty(n_contents), np.empty(n_contents), np.empty(n_contents)
    first, second = np.empty(n_contents), np.empty(n_contents)
    for location in range(n_locations):
        active[:] = 0.0
        share[:] = 0.0
        total = 0.0
        for step in range(n_steps):
            known = n_published[step]
            for content in range(0 if step == 0 else n_published[step - 1], known):
                total += unscaled[location, content]
            for content in range(known):
                share[content] = unscaled[location, content] / total
            arriving = starts[location, step]
            _slope(first, active, share, arriving, successor, probability, rates)
            for content in range(n_contents):
                ahead[content] = active[content] + first[content]
            _slope(second, ahead, share, arriving, successor, probability, rates)
            hour = step // an_hour - skipped
            for content in range(n_contents):
                change = (first[content] + second[content]) / 2
                mean_active = active[content] + first[content] / 3 + second[content] / 6
                if hour >= 0:
                    hourly[hour, location, content] += change + per_step * mean_active
                active[content] += change
    return hourly


@njit(cache=True)
def _slope(
    slope: Float64,
    active: Float64,
    share: Float64,
    arriving: float,
    successor: Int64,
    probability: Float64,
    rates: Float64,
) -> None:
    """da/dt at one location, written into `slope`; `rates` holds γ, s and r."""
    per_minute, stop, restart = rates
    moving = per_minute * (1 - stop)
    n_active = 0.0
    for content in range(len(active)):
        n_active += active[content]
    drawn = arriving + moving * restart * n_active
    for content in range(len(active)):
        slope[content] = drawn * share[content] - per_minute * active[content]
    for content in range(len(active)):
        if active[content] > 0:
            for j in range(successor.shape[1]):
                slope[successor[content, j]] += moving * (1 - restart) * active[content] * probability[content, j]
