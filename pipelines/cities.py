"""Cities with measured round trips between them, and the choice of a city for each anonymous location code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipelines.sizes import Bool, Float64, Int64
from placement.geography import DistanceModel, great_circle_km


@dataclass(frozen=True)
class Cities:
    """Cities and the round trips measured between them.

    Attributes:
        name: (n,)
        country: (n,)
        lat: degrees. (n,)
        lon: degrees. (n,)
        population: (n,)
        rtt_ms: median over both directions and repeated measurements; NaN where nobody measured. (n, n)
        model: stands in where nobody measured.
    """

    name: npt.NDArray[np.object_]
    country: npt.NDArray[np.object_]
    lat: Float64
    lon: Float64
    population: Int64
    rtt_ms: Float64
    model: DistanceModel

    def row(self, city: str) -> int:
        """Which row a city is.

        Raises:
            ValueError: there is no such city.
        """
        found = np.flatnonzero(self.name == city)
        if not len(found):
            raise ValueError(f"There is no city {city!r} in the table of cities; choose one that it lists.")
        return int(found[0])

    def rtt(self, one: Int64, other: Int64) -> tuple[Float64, Bool]:
        """Round trips between every city of `one` and of `other`, and where the distance model stands in. (n, m)"""
        measured = self.rtt_ms[one[:, None], other[None, :]]
        modelled = np.isnan(measured)
        km = great_circle_km(
            self.lat[one][:, None], self.lon[one][:, None], self.lat[other][None], self.lon[other][None]
        )
        return np.where(modelled, self.model.rtt_ms(km), measured), modelled

    def measured(self, row: int) -> bool:
        return not bool(np.isnan(self.rtt_ms[row]).all())


def read_cities(cities: pa.Table, pairs: pa.Table) -> Cities:
    """Cities of `cities` with the pairs of `pairs` whose two ends are among them; a city's distance to itself is 0."""
    frame = cities.to_pandas().drop_duplicates("city").sort_values("city", ignore_index=True)
    index = pd.Index(frame["city"])
    table = pairs.select(["src", "dst", "rtt_avg_ms"]).to_pandas().dropna()
    one, other = index.get_indexer(table["src"]), index.get_indexer(table["dst"])
    known = (one >= 0) & (other >= 0)
    rtt = _symmetric_median(one[known], other[known], table["rtt_avg_ms"].to_numpy()[known], n=len(index))
    lat, lon = (frame[c].to_numpy(dtype=float) for c in ("lat", "lon"))
    upper = np.triu(~np.isnan(rtt), k=1)
    first, second = np.nonzero(upper)
    model = DistanceModel.fit(great_circle_km(lat[first], lon[first], lat[second], lon[second]), rtt[upper])
    names, countries = (frame[c].to_numpy(dtype=object) for c in ("city", "country"))
    return Cities(names, countries, lat, lon, frame["population"].to_numpy(dtype=np.int64), rtt, model)


def _symmetric_median(one: npt.NDArray[np.intp], other: npt.NDArray[np.intp], rtt: Float64, *, n: int) -> Float64:
    low, high = np.minimum(one, other), np.maximum(one, other)
    median = pd.Series(rtt).groupby(low * n + high).median()
    pair = median.index.to_numpy()
    matrix = np.full((n, n), np.nan)
    matrix[pair // n, pair % n] = matrix[pair % n, pair // n] = median.to_numpy()
    return matrix


def assign_cities(
    codes: npt.NDArray[np.object_], cities: Cities, *, prefix: str, country: str, foreign: Sequence[str]
) -> Int64:
    """Row of the city of each code, codes given busiest first.

    The k-th code that starts with `prefix` gets the k-th most populous city of `country`; the k-th of the others gets
    the k-th of `foreign` that has measurements.

    Raises:
        ValueError: more codes of one sort than cities.
    """
    domestic = np.array([str(c).startswith(prefix) for c in codes], dtype=bool)
    ours = np.flatnonzero(cities.country == country)
    ours = ours[np.argsort(-cities.population[ours], kind="stable")]
    abroad = [cities.row(c) for c in foreign if c in set(cities.name)]
    abroad = [row for row in abroad if cities.measured(row)]
    rows = np.empty(len(codes), dtype=np.int64)
    for chosen, pool, what in ((domestic, ours, country), (~domestic, np.array(abroad), "foreign_cities")):
        if chosen.sum() > len(pool):
            raise ValueError(
                f"{int(chosen.sum())} location codes need a city of {what}, but only {len(pool)} have measurements; "
                "lower n_locations or name more cities."
            )
        rows[chosen] = pool[: chosen.sum()]
    return rows
