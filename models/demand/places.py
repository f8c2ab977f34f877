"""Traffic by location at an instant, and how it is expected to move with the hour.

The expected factor from the rate now to the mean rate over [t, t + H) at location l is

    rho(l, H) = (F_l + k rho(H)) / (B_l + k)

with F_l the requests per hour in the same future hours one day (and one week) ago, B_l those around the same instant
then, rho(H) the same ratio over all locations, and k a pseudo-rate: quiet places follow the whole at night. Hours that
were not fully observed are missing: up to four in a row are bridged by a straight line between their neighbours, because
leaving out one side of a slope would tilt it; longer stretches are left out. A season of which less than half of either
side is known is left out, and without any season rho is 1.

All of it is read from **ordinary** traffic. A content that takes p requests an hour, more than the cap

    c = max(half of all other traffic there and then, 2 m, 5 an hour),   m = the leading content's median by hour,

counts for m / 2 + (c - m / 2) c / p of them: for all at the cap, and beyond it for less and less, down to the middle of
what an ordinary content may have. A flash crowd therefore moves neither the level of other contents nor the hours of
tomorrow; the content itself keeps its own rates. From a decayed rate goes what was beyond the cap in the hours that it
remembers, as far as the leading content allows: at short half-lives it matters when within the hour the requests came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.counters import CounterStore
from models.demand.settings import DemandSettings
from models.events import HOUR_US, Bool, Float64

_HISTORY_HOURS = 169
_SEASONS_HOURS = (24, 168)
_LEADER_SHARE_OF_OTHERS = 0.5
_LEADER_MEDIANS = 2.0
_FEW_PER_HOUR = 5.0
_BRIDGED_HOURS = 4


@dataclass(frozen=True)
class LocationState:
    """Ordinary traffic by location at an instant.

    Attributes:
        rates: requests per observed hour by half-life. (n_locations, n_half_lives)
        share: share of all traffic. (n_locations,)
        counts: requests by hour, the last column the hour ending at the instant's clock hour; NaN where nothing says how
            many there were. (n_locations, hours)
        settings: pseudo-rates and limits.
    """

    rates: Float64
    share: Float64
    counts: Float64
    settings: DemandSettings

    def seasonal_growth(self, horizon_hours: int) -> Float64:
        """Factor rho from the rate now to the mean rate over the horizon, shape (n_locations,)."""
        future, base = self._season(horizon_hours)
        overall = (future.sum() + 1.0) / (base.sum() + 1.0)
        k = self.settings.growth_pseudo_rate_per_hour
        return self._limited((future + k * overall) / (base + k))

    def growth(self, horizon_hours: int) -> Float64:
        """Factor from each decayed rate to the mean rate over the horizon, shape (n_locations, n_half_lives).

        A slow counter averages over hours that were quieter or busier; it is first brought to the level of the
        fastest one.
        """
        k = self.settings.growth_pseudo_rate_per_hour
        overall = (self.rates[:, :1].sum() + 1.0) / (self.rates.sum(axis=0) + 1.0)
        level = (self.rates[:, :1] + k * overall) / (self.rates + k)
        return self._limited(level * self.seasonal_growth(horizon_hours)[:, None])

    def expected_total(self, horizon_hours: int) -> Float64:
        """Requests at each location over the horizon, from the rate now and the season, shape (n_locations,)."""
        return self.rates[:, 0] * self.seasonal_growth(horizon_hours) * horizon_hours

    def _season(self, horizon_hours: int) -> tuple[Float64, Float64]:
        future, base = np.zeros(len(self.counts)), np.zeros(len(self.counts))
        length = self.counts.shape[1]
        # One hour alone is too noisy at night: short windows are widened to three hours around their middle.
        widened = 0 if horizon_hours >= 3 else 1
        for season in _SEASONS_HOURS:
            now = length - season
            then = _mean_observed(self.counts[:, now - widened : min(now + horizon_hours + widened, length)])
            before = _mean_observed(self.counts[:, max(now - 2, 0) : now + 1])
            known = np.isfinite(then) & np.isfinite(before)
            future += np.where(known, then, 0.0)
            base += np.where(known, before, 0.0)
        return future, base

    def _limited(self, factor: Float64) -> Float64:
        return np.clip(factor, 1.0 / self.settings.growth_limit, self.settings.growth_limit)


def location_state(store: CounterStore, *, at_us: int, settings: DemandSettings) -> LocationState:
    """Ordinary traffic of every location the store knows."""
    # One column more than is kept: the hour under way.
    counts = store.hourly_location_counts(_HISTORY_HOURS + 1, at_us + HOUR_US).astype(np.float64)
    peaks = store.hourly_location_peaks(_HISTORY_HOURS + 1, at_us + HOUR_US).astype(np.float64)
    observed = store.hours_observed(_HISTORY_HOURS, at_us)
    median = _median(peaks[:, :-1], observed)[:, None]
    by_hour = ordinary(counts, peaks, median)
    rates = _ordinary_rates(store, counts - by_hour, median, at_us=at_us)
    return LocationState(
        rates=rates,
        share=rates[:, -1] / max(float(rates[:, -1].sum()), 1e-300),
        counts=_bridged(by_hour[:, :-1], observed),
        settings=settings,
    )


def _ordinary_rates(store: CounterStore, excess: Float64, median: Float64, *, at_us: int) -> Float64:
    """Rates without what was beyond the cap by hour, the last one under way. (n_locations, n_half_lives)"""
    rates = store.location_rates(np.arange(len(store.locations)), at_us)
    leading = store.leading_rates(at_us)
    beyond = store.filled(excess @ _hour_weights(store, excess.shape[1], at_us), at_us)
    kept = np.minimum(ordinary(rates, leading, median), rates - beyond)
    return np.maximum(kept, np.maximum(rates - leading, 0.0))


def _hour_weights(store: CounterStore, n_hours: int, at_us: int) -> Float64:
    """Requests per observed hour for each request of an hour, spread evenly over it. (n_hours, n_half_lives)"""
    per_hour = 1.0 / np.array(store.settings.half_lives_hours)
    under_way = (at_us % HOUR_US) / HOUR_US
    oldest = np.arange(n_hours - 1, -1, -1) + under_way
    newest = np.maximum(oldest - 1.0, 0.0)
    weights = 2.0 ** (-newest[:, None] * per_hour) - 2.0 ** (-oldest[:, None] * per_hour)
    return np.asarray(weights / np.maximum(oldest - newest, 1e-9)[:, None] / store.exposure(at_us), dtype=np.float64)


def ordinary(traffic: Float64, leader: Float64, median: Float64) -> Float64:
    """Traffic in which one content that outweighs the others hardly counts, requests per hour.

    Args:
        traffic: of all contents. (n_locations, m)
        leader: of the content requested most. (n_locations, m)
        median: of the leader by hour. (n_locations, 1)
    """
    others = np.maximum(traffic - leader, 0.0)
    cap = np.maximum(_LEADER_SHARE_OF_OTHERS * others, np.maximum(_LEADER_MEDIANS * median, _FEW_PER_HOUR))
    kept = median / 2 + (cap - median / 2) * cap / np.maximum(leader, cap)
    return np.asarray(np.where(leader > cap, others + kept, traffic), dtype=np.float64)


def _median(peaks: Float64, observed: Bool) -> Float64:
    if not observed.any():
        return np.zeros(len(peaks))
    return np.asarray(np.median(peaks[:, observed], axis=1), dtype=np.float64)


def _bridged(counts: Float64, observed: Bool) -> Float64:
    """Counts with NaN for missing hours, but for short stretches between hours that were observed."""
    bridged = np.where(observed, counts, np.nan)
    seen = np.flatnonzero(observed)
    for i in np.flatnonzero(np.diff(seen) > 1):
        before, after = seen[i], seen[i + 1]
        if after - before - 1 <= _BRIDGED_HOURS:
            there = np.arange(1, after - before) / (after - before)
            bridged[:, before + 1 : after] = counts[:, [before]] * (1 - there) + counts[:, [after]] * there
    return bridged


def _mean_observed(counts: Float64) -> Float64:
    """Mean over the hours that are known, NaN where less than half are. (n_locations,)"""
    seen = np.isfinite(counts)
    n = seen.sum(axis=1)
    mean = np.where(seen, counts, 0.0).sum(axis=1) / np.maximum(n, 1)
    return np.asarray(np.where(2 * n >= max(counts.shape[1], 1), mean, np.nan), dtype=np.float64)
