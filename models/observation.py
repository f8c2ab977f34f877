"""Gaps in the observation of a log: silences that its traffic cannot explain. Missing is not zero.

A silence of length L is a gap when what is known at its end makes it incredible. Visits come by a Poisson process whose
rate is gamma distributed given the n visits of the last observed time T, so that

    P(silence | n in T) = (T / (T + L))^(n + 1)

and likewise given the visits of the same hours one day and one week ago, T = L. The *most* credible of these explanations
counts: a night that was quiet yesterday is quiet tonight, and a shop closes every Sunday. Where no day ago is known,
traffic is allowed to fall to a quarter of the last hour's and of the last quarter's. Visits are counted, not requests,
because requests of one visit come in bursts. Nothing after the silence is read, and P falls with L, so each gap has an
instant from which it is known.

The share of the memory of a half-life h that was observed,

    E_h(t) = (ln 2 / h) integral over observed s < t of 2^(-(t - s) / h) ds,

turns decayed counts into requests per *observed* hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.events import DAY_US, HOUR_US, Bool, Float64, Int32, Int64, RequestLog, Window

START_UP_HOURS = 0.5
"""A memory that observed less than this is treated as if it had: the first request must not read as thousands an hour."""
EDGE_US = 60_000_000
"""A gap is found from request to request, so its edges reach into observed time; this much of an hour is forgiven."""


class Gap(NamedTuple):
    """An unobserved window [start, end); by `known_us` at the earliest it could be told from quiet."""

    start_us: int
    end_us: int
    known_us: int


@dataclass(frozen=True)
class GapSettings:
    """When a silence is a gap in the observation."""

    minimum_minutes: float = 10.0
    """Shorter silences are never gaps, in minutes."""
    largest_probability: float = 1e-9
    """A silence is a gap when traffic would cause it with at most this probability."""
    largest_fall: float = 4.0
    """Factor by which traffic may fall within the silence where no day ago is known to tell."""

    def __post_init__(self) -> None:
        if not self.minimum_minutes > 0:
            raise ValueError(f"Expected minimum_minutes > 0, got {self.minimum_minutes!r}.")
        if not 0 < self.largest_probability < 1:
            raise ValueError(f"Expected 0 < largest_probability < 1, got {self.largest_probability!r}.")
        if not self.largest_fall >= 1:
            raise ValueError(f"Expected largest_fall >= 1, got {self.largest_fall!r}.")


def with_gaps_found(log: RequestLog, *, until_us: int | None = None, settings: GapSettings | None = None) -> RequestLog:
    """The log with its own gaps added to those it was given; `until_us` is the instant up to which it was read."""
    found = find_gaps(log.ts_us, visits=log.session, until_us=until_us, settings=settings)
    return log.with_gaps([gap[:2] for gap in found], known_us=[gap.known_us for gap in found])


def find_gaps(
    ts_us: Int64, *, visits: Int32 | None = None, until_us: int | None = None, settings: GapSettings | None = None
) -> list[Gap]:
    """Silences that traffic cannot explain, in time order; each from just after a request to the next.

    Args:
        ts_us: instants of all requests, non-decreasing. (n,)
        visits: code of the visit of each request, -1 where unknown; without, each request is one. (n,)
        until_us: instant up to which requests were looked for; a silence that is still open then may be a gap.
        settings: what is incredible.
    """
    rule = _Rule(ts_us, visits, settings or GapSettings())
    ends_us = ts_us if until_us is None or not len(ts_us) else np.append(ts_us, max(until_us, int(ts_us[-1])))
    silent = np.flatnonzero(np.diff(ends_us) >= rule.minimum_us)
    for row in silent:
        rule.judge(int(row), int(ends_us[row + 1]))
    return rule.gaps


class _Rule:
    """Judges the silences of a log in order; the time of gaps found so far is not observed time."""

    def __init__(self, ts_us: Int64, visits: Int32 | None, settings: GapSettings) -> None:
        self.ts_us = ts_us
        self.visits = visits
        self.settings = settings
        self.minimum_us = max(round(settings.minimum_minutes * 60_000_000), 1)
        self.gaps: list[Gap] = []

    def judge(self, row: int, end_us: int) -> None:
        """Takes the silence after a row among the gaps where it is one."""
        last_us = int(self.ts_us[row])
        known_us = max(last_us + self.minimum_us, self._unlike_last_hour(row, end_us))
        for ago_us in (DAY_US, 7 * DAY_US):
            if known_us <= end_us:
                known_us = max(known_us, self._unlike_same_hours(last_us, end_us, ago_us))
        if known_us <= end_us:
            self.gaps.append(Gap(last_us + 1, end_us, known_us))

    def _unlike_last_hour(self, row: int, end_us: int) -> int:
        """Instant from which the last observed hour does not explain the silence; past its end where it does."""
        last_us, first_us = int(self.ts_us[row]), int(self.ts_us[0])
        if last_us - DAY_US >= first_us:
            return self._unlike_before(row, end_us, HOUR_US, 1.0)
        # No rhythm is known yet: traffic may be on its way into the night, which the last quarter shows first.
        fall = self.settings.largest_fall
        return max(self._unlike_before(row, end_us, before_us, fall) for before_us in (HOUR_US, HOUR_US // 4))

    def _unlike_before(self, row: int, end_us: int, before_us: int, fall: float) -> int:
        last_us = int(self.ts_us[row])
        start_us = self._observed_start(last_us, before_us)
        observed_us = fall * max(before_us - max(int(self.ts_us[0]) - start_us, 0), before_us / 2)
        first = int(np.searchsorted(self.ts_us, start_us, side="left"))
        from_us = last_us + self._silence_us(row + 1 - first, observed_us)
        if from_us > end_us:  # nor do the visits, which are at most as many as the requests
            return from_us
        return last_us + self._silence_us(len(self._first_requests(first, row + 1)), observed_us)

    def _silence_us(self, n: int, observed_us: float) -> int:
        """L with (T / (T + L))^(n + 1) = p."""
        return round(observed_us * float(np.expm1(-np.log(self.settings.largest_probability) / (n + 1))))

    def _observed_start(self, last_us: int, observed_us: int) -> int:
        """Where so much observed time begins, stepping over gaps."""
        start_us = last_us - observed_us
        for gap in reversed(self.gaps):
            if gap.end_us <= start_us:
                break
            start_us -= gap.end_us - gap.start_us
        return start_us

    def _unlike_same_hours(self, last_us: int, end_us: int, ago_us: int) -> int:
        """Instant from which the same hours some days ago do not explain the silence; past its end where they do."""
        if last_us - ago_us < self.ts_us[0]:
            return last_us
        first, last = np.searchsorted(self.ts_us, [last_us - ago_us, end_us - ago_us], side="right")
        came = self._first_requests(int(first), int(last))
        needed = int(np.ceil(-np.log2(self.settings.largest_probability))) - 1
        return int(self.ts_us[came[needed - 1]]) + ago_us if len(came) >= max(needed, 1) else end_us + 1

    def _first_requests(self, first: int, last: int) -> Int64:
        """Rows of [first, last) that begin a visit there; each row of an unknown visit does."""
        if self.visits is None:
            return np.arange(first, last)
        visits = self.visits[first:last]
        _, begun = np.unique(visits, return_index=True)
        begun = np.union1d(begun, np.flatnonzero(visits < 0))
        return np.asarray(first + begun, dtype=np.int64)


def united(windows: Iterable[Window]) -> tuple[Window, ...]:
    """Windows in order, with those that meet made one."""
    whole: list[Window] = []
    for start_us, end_us in sorted((int(start), int(end)) for start, end in windows):
        if whole and start_us <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(whole[-1][1], end_us))
        else:
            whole.append((start_us, end_us))
    return tuple(whole)


def is_observed(gaps: Sequence[Window], start_us: int, end_us: int) -> bool:
    """Whether a window holds no more of a gap than `EDGE_US`, or a sixtieth of itself where that is less."""
    edge_us = min(EDGE_US, (end_us - start_us) / 60)
    return not any(min(end, end_us) - max(start, start_us) > edge_us for start, end in gaps)


def unobserved_us(gaps: Sequence[Window], start_us: int, end_us: int) -> int:
    """How much of a window lies in gaps, which do not overlap."""
    return sum(max(min(end, end_us) - max(start, start_us), 0) for start, end in gaps)


def hours_observed(gaps: Sequence[Window], first_us: int, hours: range) -> Bool:
    """Which clock hours hold no more of a gap, or of the time before the first request, than `EDGE_US`. (hours,)"""
    start_us = np.arange(hours.start, hours.stop, dtype=np.int64) * HOUR_US
    observed = start_us >= first_us - EDGE_US
    for start, end in gaps:
        observed &= np.minimum(end, start_us + HOUR_US) - np.maximum(start, start_us) <= EDGE_US
    return np.asarray(observed, dtype=np.bool_)


def observed_share(per_hour: Float64, gaps: Sequence[Window], first_us: int, at_us: int) -> Float64:
    """E_h(t) of each half-life, from the first request on; gaps must not overlap. (half-lives,)"""
    seen = _memory(per_hour, first_us, at_us, at_us)
    for start, end in gaps:
        seen -= _memory(per_hour, max(start, first_us), min(end, at_us), at_us)
    return np.maximum(seen, 0.0)


def start_up_share(per_hour: Float64) -> Float64:
    """E_h(t) of a log that was just observed for `START_UP_HOURS` and never before. (half-lives,)"""
    return np.asarray(-np.expm1(-np.log(2) * START_UP_HOURS * per_hour), dtype=np.float64)


def _memory(per_hour: Float64, start_us: int, end_us: int, at_us: int) -> Float64:
    """Share of a memory that lies in [start, end)."""
    if end_us <= start_us:
        return np.zeros(len(per_hour))
    newest, oldest = (at_us - end_us) / HOUR_US, (at_us - start_us) / HOUR_US
    return np.asarray(2.0 ** (-newest * per_hour) - 2.0 ** (-oldest * per_hour), dtype=np.float64)
