"""Margins on tight uplinks: a source near its limit must hold with a probability, and not only on average.

    load_n = sum_k bytes_k y_k,   y_k ~ negative binomial(m_k = r_k x_kn, dispersion_k),   Var y_k = m_k + dispersion_k m_k^2
    L + z_q sigma_n(L) = U_n      L: the limit of the mean load when rows are served in the same proportions

A share of a row's requests, each sent to n by itself, is negative binomial again with the same dispersion. Segments of one
content at one location are asked for by the same viewers: their deviations add up; others are independent. Only sources
whose mean load exceeds `TIGHT_SHARE` of their usable uplink get a margin, and money is counted at the mean throughout.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from placement.problem import Bool, Float64, Int32, Int64, PlacementProblem

TIGHT_SHARE = 0.8
"""A source is tight when its mean load exceeds this share of its usable uplink."""
HALVINGS = 40


def limits_with_margin(
    problem: PlacementProblem, row: Int64, source: Int32, share: Float64, limit: Float64 | None = None
) -> Float64:
    """Mean bytes that each source may send: `limit`, less where these flows make it tight and a quantile is set, (N,)."""
    usable = problem.usable_uplink_bytes
    limit = usable if limit is None else limit
    quantile = problem.settings.uplink_quantile
    if quantile is None or not len(row):
        return limit
    load = _Load(problem, row, source, share)
    tight = np.isfinite(usable) & (load.mean > TIGHT_SHARE * usable) & (load.mean > 0)
    return np.where(tight, np.minimum(limit, load.mean_within(usable, tight, NormalDist().inv_cdf(quantile))), limit)


class _Load:
    """What the sources send, when the flows of source n are scaled by a factor c_n."""

    def __init__(self, problem: PlacementProblem, row: Int64, source: Int32, share: Float64) -> None:
        demand, self.n_sources = problem.demand, len(problem.sources)
        self.requests, self.bytes = demand.requests[row] * share, problem.demand_segment_bytes[row]
        self.source, self.dispersion = source, problem.dispersion[row]
        viewers = problem.content_code[demand.segment[row]] * max(1, len(problem.locations)) + demand.location[row]
        groups, self.group = np.unique(viewers * self.n_sources + source, return_inverse=True)
        self.group_source = groups % self.n_sources
        self.mean = np.bincount(source, weights=self.requests * self.bytes, minlength=self.n_sources)

    def deviation(self, factor: Float64) -> Float64:
        """Standard deviation of each source's load, in bytes, (N,)."""
        mean = self.requests * factor[self.source]
        of_row = self.bytes * np.sqrt(mean + self.dispersion * mean**2)
        of_group = np.bincount(self.group, weights=of_row)
        return np.asarray(np.sqrt(np.bincount(self.group_source, weights=of_group**2, minlength=self.n_sources)))

    def mean_within(self, usable: Float64, tight: Bool, z: float) -> Float64:
        """The mean load at which load and margin just fit the usable uplink, by bisection, (N,)."""
        low = np.zeros(self.n_sources)
        high = np.where(tight, usable / np.where(tight, self.mean, 1.0), 0.0)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = middle * self.mean + z * self.deviation(middle) <= usable
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        return low * self.mean
