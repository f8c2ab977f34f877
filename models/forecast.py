"""Forecasts as values: complete and consistent by construction, or not constructed at all.

Demand of a cell (content, location) over the horizon is negative binomial with mean mu and dispersion alpha,

    Var[y] = mu + alpha mu^2        (alpha -> 0 is the Poisson law)

and the demand of a location is the sum over its cells plus `other_mean`: requests for contents that have no cell there
yet. So cells and remainder always add up to the location's total.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit
from scipy import special

from models.events import HOUR_US, Bool, Float64, Int32, Int64

POISSON_DISPERSION = 1e-6
"""Below this dispersion the negative binomial law is computed as Poisson: the difference is under rounding."""
_SUMMED_UP_TO = 500.0
_WALKED_UP_TO = 1e9
"""Beyond it one request more or less is nothing, and the gamma law answers alone."""
_MOST_STEPS = 1_000_000
_ROUNDING = 1.0 - 1e-12
"""A cumulative probability this near to the one asked for counts as equal to it."""

Objects = npt.NDArray[np.object_]
Column: TypeAlias = "pa.Array[Any]"


def negative_binomial_quantiles(probabilities: Sequence[float], mean: Float64, dispersion: Float64) -> Float64:
    """Smallest counts whose cumulative probability reaches each probability, shape (n_probabilities, n).

    Most cells expect far less than one request: where P(0) reaches the largest probability, every count is 0. The
    law of the others is summed from 0, and busy cells are summed from a count near the answer.
    """
    bad = [p for p in probabilities if not 0.0 < p < 1.0]
    if bad:
        raise ValueError(f"Expected a quantile in (0, 1), got {bad[0]!r}.")
    order = np.argsort(probabilities, kind="stable")
    rising = np.asarray(probabilities, dtype=np.float64)[order]
    counts = np.zeros((len(rising), len(mean)))
    _sum_to_quantiles(mean, dispersion, rising, order, counts)
    busy = np.flatnonzero(mean > _SUMMED_UP_TO)
    if len(busy):
        counts[:, busy] = [_inverted(probability, mean[busy], dispersion[busy]) for probability in probabilities]
    return counts


@njit(cache=True, nogil=True)
def _sum_to_quantiles(mean: Float64, dispersion: Float64, rising: Float64, order: Int64, counts: Float64) -> None:
    """Fills counts (n_probabilities, n) of rows that are not busy: P(k + 1) follows from P(k)."""
    largest = rising[-1] * _ROUNDING if len(rising) else 0.0
    for row in range(len(mean)):
        mu, alpha = mean[row], dispersion[row]
        # P(0) >= exp(-mu) >= 1 - mu, whatever the dispersion.
        if mu <= 0.0 or 1.0 - mu >= largest or mu > _SUMMED_UP_TO:
            continue
        poisson = alpha < POISSON_DISPERSION
        shape = np.inf if poisson else 1.0 / alpha
        probability = np.exp(-mu) if poisson else np.exp(-shape * np.log1p(mu / shape))
        if probability >= largest:
            continue
        odds = 0.0 if poisson else mu / (shape + mu)
        cumulative, k = probability, 0
        for column in range(len(rising)):
            while cumulative < rising[column] * _ROUNDING and k < _MOST_STEPS:
                probability *= mu / (k + 1) if poisson else odds * (k + shape) / (k + 1)
                cumulative += probability
                k += 1
            counts[order[column], row] = k


def _inverted(probability: float, mean: Float64, dispersion: Float64) -> Float64:
    """Quantile of busy rows: the gamma law of the same mean and variance is near, the exact sum decides. (n,)"""
    poisson = dispersion < POISSON_DISPERSION
    shape = 1.0 / np.where(poisson, 1.0, dispersion)
    variance = mean + np.where(poisson, 0.0, dispersion) * mean**2
    near = special.gammaincinv(mean**2 / variance, probability) * variance / mean
    count = np.floor(np.maximum(near - 0.5, 0.0))
    log_broad = (
        shape * np.log(shape / (shape + mean))
        + count * np.log(mean / (shape + mean))
        - np.log(shape + count)
        - special.betaln(shape, count + 1)
    )
    log_poisson = count * np.log(mean) - mean - special.gammaln(count + 1)
    at_count = np.exp(np.where(poisson, log_poisson, log_broad))
    up_to_count = np.where(
        poisson, special.gammaincc(count + 1, mean), special.betainc(shape, count + 1, shape / (shape + mean))
    )
    _walk_to_quantile(probability, count, (at_count, up_to_count), mean, np.where(poisson, np.inf, shape))
    return np.asarray(count, dtype=np.float64)


@njit(cache=True, nogil=True)
def _walk_to_quantile(
    probability: float, count: Float64, law: tuple[Float64, Float64], mean: Float64, shape: Float64
) -> None:
    """Moves each count to the smallest whose cumulative probability is reached; `law` holds P(k) and P(<= k)."""
    wanted = probability * _ROUNDING
    for row in range(len(count)):
        k, mu, r = count[row], mean[row], shape[row]
        if not k < _WALKED_UP_TO:
            continue
        at, up_to = law[0][row], law[1][row]
        poisson = np.isinf(r)
        odds = 0.0 if poisson else mu / (r + mu)
        while k > 0.0 and up_to - at >= wanted:
            up_to -= at
            at *= k / mu if poisson else k / (odds * (k - 1.0 + r))
            k -= 1.0
        while up_to < wanted and at > 0.0:
            k += 1.0
            at *= mu / k if poisson else odds * (k - 1.0 + r) / k
            up_to += at
        count[row] = k


@dataclass(frozen=True)
class DemandForecast:
    """Requests expected in [origin, origin + horizon), per cell and for the rest of each location.

    Attributes:
        origin_us: instant the forecast was made, microseconds since 1970 UTC; nothing later was visible.
        horizon_hours: length of the window forecast.
        content: content codes, cells sorted by (content, location), each cell once. (n,)
        location: location codes. (n,)
        mean: expected requests of the cell. (n,)
        dispersion: alpha of the negative binomial law of the cell. (n,)
        other_mean: expected requests at each location for contents without a cell there. (n_locations,)
        contents: content ids, by code.
        locations: location ids, by code.

    Raises:
        ValueError: listing every field that is not as described.
    """

    origin_us: int
    horizon_hours: float
    content: Int32
    location: Int32
    mean: Float64
    dispersion: Float64
    other_mean: Float64
    contents: Objects
    locations: Objects

    def __post_init__(self) -> None:
        problems = [*self._shape_problems()] or [*self._value_problems()]
        if problems:
            raise ValueError("Not a demand forecast: " + " ".join(problems))

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def end_us(self) -> int:
        return self.origin_us + round(self.horizon_hours * HOUR_US)

    def quantile(self, probability: float) -> Float64:
        """Count that demand stays at or below with this probability, per cell, shape (n,)."""
        row: Float64 = self.quantiles([probability])[0]
        return row

    def quantiles(self, probabilities: Sequence[float]) -> Float64:
        """Several quantiles at once, shape (n_probabilities, n)."""
        return negative_binomial_quantiles(probabilities, self.mean, self.dispersion)

    def total_by_location(self) -> Float64:
        """Cells plus remainder, shape (n_locations,)."""
        return self.other_mean + self._sum(self.location, len(self.locations))

    def total_by_content(self) -> Float64:
        """Sum of a content's cells over locations, shape (n_contents,)."""
        return self._sum(self.content, len(self.contents))

    def to_arrow(self, *, with_other: bool = False) -> pa.Table:
        """Columns content, location, start, end, mean, p10, p50, p90, dispersion; one row a cell.

        `with_other` appends one row a location with null content and null quantiles: the remainder there.
        """
        cells = self._table(
            content=_named(self.contents, self.content),
            location=_named(self.locations, self.location),
            mean=self.mean,
            quantiles=[pa.array(values) for values in self.quantiles((0.1, 0.5, 0.9))],
            dispersion=pa.array(self.dispersion),
        )
        if not with_other:
            return cells
        n = len(self.locations)
        rest = self._table(
            content=pa.nulls(n, pa.string()),
            location=pa.array(self.locations, pa.string()),
            mean=self.other_mean,
            quantiles=[pa.nulls(n, pa.float64())] * 3,
            dispersion=pa.nulls(n, pa.float64()),
        )
        return pa.concat_tables([cells, rest])

    def _table(
        self, *, content: Column, location: Column, mean: Float64, quantiles: list[Column], dispersion: Column
    ) -> pa.Table:
        instant = pa.timestamp("us", tz="UTC")
        return pa.table(
            {
                "content": content,
                "location": location,
                "start": pa.array(np.full(len(mean), self.origin_us), instant),
                "end": pa.array(np.full(len(mean), self.end_us), instant),
                "mean": pa.array(mean),
                "p10": quantiles[0],
                "p50": quantiles[1],
                "p90": quantiles[2],
                "dispersion": dispersion,
            }
        )

    def _sum(self, codes: Int32, size: int) -> Float64:
        return np.asarray(np.bincount(codes, weights=self.mean, minlength=size), dtype=np.float64)

    def _shape_problems(self) -> list[str]:
        problems = []
        if not (np.isfinite(self.horizon_hours) and self.horizon_hours > 0):
            problems.append(f"Expected horizon_hours > 0, got {self.horizon_hours!r}.")
        n = len(self.content)
        for name in ("content", "location", "mean", "dispersion"):
            shape = getattr(self, name).shape
            if shape != (n,):
                problems.append(f"{name} has shape {shape}, expected ({n},).")
        if self.other_mean.shape != (len(self.locations),):
            problems.append(f"other_mean has shape {self.other_mean.shape}, expected ({len(self.locations)},).")
        return problems

    def _value_problems(self) -> list[str]:
        problems = []
        for name in ("mean", "dispersion", "other_mean"):
            values = getattr(self, name)
            # NaN is neither, as the least and as the largest value.
            if len(values) and not (values.min() >= 0.0 and values.max() < np.inf):
                bad = values[~(np.isfinite(values) & (values >= 0.0))][0]
                problems.append(f"{name} holds {bad!r}; every value must be finite and at least 0.")
        for name, size in (("content", len(self.contents)), ("location", len(self.locations))):
            codes = getattr(self, name)
            if len(codes) and not (codes.min() >= 0 and codes.max() < size):
                problems.append(f"{name} holds a code outside [0, {size}).")
        if not _rising(self.content, self.location):
            problems.append("Cells must be sorted by (content, location) and each occur once.")
        return problems


def _named(ids: Objects, codes: Int32) -> Column:
    return pa.array(ids, pa.string()).take(pa.array(codes))


@njit(cache=True, nogil=True)
def _rising(content: Int32, location: Int32) -> bool:
    """Whether each pair (content, location) is greater than the one before."""
    for i in range(1, len(content)):
        if content[i] < content[i - 1] or (content[i] == content[i - 1] and location[i] <= location[i - 1]):
            return False
    return True


@dataclass(frozen=True)
class ChurnForecast:
    """Probability that each node stays (survival) or is there (availability) at each edge of the horizon.

    Attributes:
        origin_us: instant the forecast was made, microseconds since 1970 UTC.
        edges_hours: hours after the origin, increasing. (n_edges,)
        nodes: node ids. (n,)
        up: whether the node was up at the origin. (n,)
        survival: P(up without a break until the edge); 0 for a node that is down. (n, n_edges)
        availability: P(up at the edge), breaks allowed; never below survival. (n, n_edges)
        returned: P(back at least once by the edge); 1 for a node that is up. (n, n_edges)

    Raises:
        ValueError: listing every field that is not as described.
    """

    origin_us: int
    edges_hours: Float64
    nodes: Objects
    up: Bool
    survival: Float64
    availability: Float64
    returned: Float64

    def __post_init__(self) -> None:
        problems = [*self._shape_problems()] or [*self._value_problems()]
        if problems:
            raise ValueError("Not a churn forecast: " + " ".join(problems))

    def __len__(self) -> int:
        return len(self.nodes)

    def survival_at(self, hours: float) -> Float64:
        """Survival at any lead time, log-linear between edges (the hazard is constant in a bin), shape (n,)."""
        if not 0.0 <= hours <= self.edges_hours[-1]:
            raise ValueError(f"Expected hours in [0, {self.edges_hours[-1]}], got {hours!r}.")
        edges = np.concatenate([[0.0], self.edges_hours])
        curve = np.column_stack([self.up.astype(np.float64), self.survival])
        right = int(np.clip(np.searchsorted(edges, hours, side="left"), 1, len(edges) - 1))
        weight = (hours - edges[right - 1]) / (edges[right] - edges[right - 1])
        low, high = curve[:, right - 1], curve[:, right]
        return np.asarray(low ** (1.0 - weight) * high**weight, dtype=np.float64)

    def to_arrow(self) -> pa.Table:
        """Columns node, origin, horizon_hours, up, survival, availability, returned; one row a node and edge."""
        n, edges = self.survival.shape
        return pa.table(
            {
                "node": pa.array(np.repeat(self.nodes, edges), pa.string()),
                "origin": pa.array(np.full(n * edges, self.origin_us), pa.timestamp("us", tz="UTC")),
                "horizon_hours": pa.array(np.tile(self.edges_hours, n)),
                "up": pa.array(np.repeat(self.up, edges)),
                "survival": pa.array(self.survival.ravel()),
                "availability": pa.array(self.availability.ravel()),
                "returned": pa.array(self.returned.ravel()),
            }
        )

    def _shape_problems(self) -> list[str]:
        n, edges = len(self.nodes), len(self.edges_hours)
        expected = {"up": (n,)} | dict.fromkeys(("survival", "availability", "returned"), (n, edges))
        problems = [
            f"{name} has shape {getattr(self, name).shape}, expected {shape}."
            for name, shape in expected.items()
            if getattr(self, name).shape != shape
        ]
        if edges == 0 or not (self.edges_hours[0] > 0 and (np.diff(self.edges_hours) > 0).all()):
            problems.append(f"Expected positive, increasing edges_hours, got {self.edges_hours!r}.")
        return problems

    def _value_problems(self) -> list[str]:
        problems = []
        for name in ("survival", "availability", "returned"):
            values = getattr(self, name)
            if not ((values >= 0.0) & (values <= 1.0)).all():
                problems.append(f"{name} must lie in [0, 1].")
        if (np.diff(self.survival, axis=1) > 1e-12).any():
            problems.append("survival must not rise from one edge to the next.")
        if (self.survival[~self.up] > 0.0).any():
            problems.append("survival of a node that is down must be 0.")
        if (self.availability < self.survival - 1e-9).any():
            problems.append("availability must not be below survival.")
        if (np.diff(self.returned, axis=1) < -1e-12).any():
            problems.append("returned must not fall from one edge to the next.")
        if (self.returned[self.up] < 1.0).any():
            problems.append("returned of a node that is up must be 1.")
        if len(set(self.nodes)) != len(self.nodes):
            problems.append("Each node must occur once.")
        return problems
