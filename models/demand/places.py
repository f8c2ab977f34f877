"""Traffic by location at an instant, and how it is expected to move with the hour.

The expected factor from the rate now to the mean rate over [t, t + H) at location l is

    rho(l, H) = (F_l / H + k rho(H)) / (B_l + k)

with F_l the requests in the same future hours one day (and one week) ago, B_l the hourly requests around the same
instant then, rho(H) the same ratio over all locations, and k a pseudo-rate: quiet places follow the whole at night.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.counters import CounterStore
from models.demand.settings import DemandSettings
from models.events import Float64

_HISTORY_HOURS = 169
_SEASONS_HOURS = (24, 168)


@dataclass(frozen=True)
class LocationState:
    """Traffic by location at an instant.

    Attributes:
        rates: requests per hour by half-life. (n_locations, n_half_lives)
        share: share of all traffic. (n_locations,)
        counts: requests by hour, the last column the hour ending at the instant's clock hour. (n_locations, hours)
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
            if now < 1 or not self.counts[:, now - 1 : now + 1].sum(axis=0).all():
                continue
            window = self.counts[:, now - widened : min(now + horizon_hours + widened, length)]
            future += window.mean(axis=1)
            base += self.counts[:, max(now - 2, 0) : now + 1].mean(axis=1)
        return future, base

    def _limited(self, factor: Float64) -> Float64:
        return np.clip(factor, 1.0 / self.settings.growth_limit, self.settings.growth_limit)


def location_state(store: CounterStore, *, at_us: int, settings: DemandSettings) -> LocationState:
    """Traffic of every location the store knows."""
    codes = np.arange(len(store.locations), dtype=np.int32)
    return LocationState(
        rates=store.location_rates(codes, at_us),
        share=store.location_share(at_us),
        counts=store.hourly_location_counts(_HISTORY_HOURS, at_us).astype(np.float64),
        settings=settings,
    )
