"""Draws what is true of the visitors of a synthetic world from its settings; `visits.py` says what it means."""

from __future__ import annotations

import numpy as np

from pipelines.releases import draw_releases, with_next_episodes
from pipelines.rhythm import Rhythm, session_starts
from pipelines.sizes import Float64, Int64, part_rng
from pipelines.synthetic import CITIES, SyntheticSettings
from pipelines.visits import MINUTE_US, Popularity, VisitModel, draw_chain

HISTORY_HALF_LIVES = 6  # Contents older than this hold 1/64 of their first share and may be left out.
REGION_EDGES = (-30.0, 60.0)  # degrees east: the Americas, Europe and Africa, Asia and Oceania


def draw_visit_model(settings: SyntheticSettings) -> tuple[VisitModel, Int64]:
    """Draws weights, publications, tastes and the chain; also the Zipf rank of each content."""
    popularity, rank = _draw_popularity(settings)
    chain = draw_chain(
        popularity,
        settings.start_us,
        n_successors=settings.n_successors,
        among=settings.successors_among,
        rng=part_rng(settings.seed, "chain"),
    )
    starts = session_starts(
        Rhythm(settings.daily_amplitude, settings.peak_hour, settings.daily_power, settings.weekday_factors),
        location_share(settings),
        _longitudes(settings),
        total=settings.requests * settings.stop_probability,
        window=(settings.start_us, settings.days * 1440),
    )
    model = VisitModel(
        popularity,
        with_next_episodes(chain, settings.releases),
        starts,
        settings.start_us,
        settings.stop_probability,
        settings.restart_probability,
        settings.gap_minutes,
    )
    return model, rank


def _draw_popularity(settings: SyntheticSettings) -> tuple[Popularity, Int64]:
    """Ranks, tastes and publications are drawn by series, which is by content where a series has one episode."""
    rng = part_rng(settings.seed, "popularity")
    releases = settings.releases
    n, series = releases.n_series(settings.n_contents), releases.series(settings.n_contents)
    rank = (rng.permutation(n) + 1)[series]
    taste = np.exp(settings.taste_sigma * rng.standard_normal((settings.n_locations, n)))
    taste *= np.exp(-(settings.taste_sigma**2) / 2)  # mean 1
    if settings.region_taste_sigma > 0:
        taste *= _draw_regional_taste(settings, n)
    popularity = Popularity(
        _draw_publications(settings, n, rng)[series],
        rank.astype(np.float64) ** -settings.zipf_exponent,
        taste[:, series],
        settings.decay_half_life_hours,
    )
    return popularity, rank


def _draw_regional_taste(settings: SyntheticSettings, n: int) -> Float64:
    """Liking of each location's region for each series, of mean 1. (n_locations, n)"""
    sigma, region = settings.region_taste_sigma, np.digitize(_longitudes(settings), REGION_EDGES)
    normal = part_rng(settings.seed, "regions").standard_normal((len(REGION_EDGES) + 1, n))
    return np.asarray(np.exp(sigma * normal - sigma**2 / 2)[region])


def _longitudes(settings: SyntheticSettings) -> Float64:
    return np.array([lon for _, _, lon in CITIES[: settings.n_locations]])


def location_share(settings: SyntheticSettings) -> Float64:
    weight = np.arange(1, settings.n_locations + 1, dtype=np.float64) ** -settings.location_exponent
    return np.asarray(weight / weight.sum())


def _draw_publications(settings: SyntheticSettings, n: int, rng: np.random.Generator) -> Int64:
    """Instants of publication on whole minutes, from six half-lives before the start to the end. (n,)

    The oldest few are moved before the start where chance put them later: the chain needs contents to begin with.
    """
    before = int(HISTORY_HALF_LIVES * settings.decay_half_life_hours * 60)
    published_us = draw_releases(
        settings.releases, n=n, start_us=settings.start_us, minutes=(-before, settings.days * 1440), rng=rng
    )
    first = settings.n_successors + 1
    published_us[:first] = np.minimum(published_us[:first], settings.start_us - MINUTE_US)
    return published_us
