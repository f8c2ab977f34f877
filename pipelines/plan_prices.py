"""The prices that prove a plan's bound, by source id: written beside the plan in m$ per GB, and read back.

One pass at these prices proves nearly the whole bound again, of the same problem or of the one after a few events; and the
search of the next placement sets out from them. Prices of demand rows and segments are not kept: that pass finds them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from models.errors import TableError
from pipelines.errors import InputError
from pipelines.jobs import file_digest
from pipelines.scene import Float64, Objects
from pipelines.store import read_parquet
from placement.bound import Prices
from placement.problem import BYTES_PER_GB, PlacementProblem, Sources

PRICES = "prices"
"""Name of the table."""
STORAGE, UPLINK = "storage_millidollars_per_gb", "uplink_millidollars_per_gb"
MOVEMENT = "movement_millidollars_per_gb"
"""Key of the price of a push, beside the problem in the manifest: it belongs to no source."""
NAMED = 3


@dataclass(frozen=True)
class SourcePrices:
    """What a byte more of each source's room and uplink would save, and of the movement budget, in m$.

    Attributes:
        source: ids. (N,)
        storage: per byte of room. (N,)
        uplink: per byte sent. (N,)
        movement: per byte pushed.
    """

    source: Objects
    storage: Float64
    uplink: Float64
    movement: float

    @classmethod
    def of(cls, problem: PlacementProblem, prices: Prices) -> SourcePrices:
        return cls(problem.sources.source, prices.storage, prices.uplink, prices.movement)

    @classmethod
    def read(cls, table: pa.Table, facts: Mapping[str, Any]) -> SourcePrices:
        """As written; `mistakes` says whether it can be used.

        Raises:
            KeyError, TypeError, ValueError: a column or the price of movement is missing or no number.
        """
        source = np.asarray([*table["source"].to_pylist(), None], dtype=object)[:-1]
        storage, uplink = (np.asarray(table[name].to_numpy(), np.float64) / BYTES_PER_GB for name in (STORAGE, UPLINK))
        return cls(source, storage, uplink, float(facts[MOVEMENT]) / BYTES_PER_GB)

    def table(self) -> pa.Table:
        prices = {STORAGE: self.storage * BYTES_PER_GB, UPLINK: self.uplink * BYTES_PER_GB}
        return pa.table({"source": pa.array(self.source, pa.string()), **prices})

    def facts(self) -> dict[str, float]:
        """What the manifest keeps of them."""
        return {MOVEMENT: self.movement * BYTES_PER_GB}

    def mistakes(self) -> Iterator[str]:
        """Prices that prove nothing, and sources that are named twice; a sentence each."""
        for name, value in ((STORAGE, self.storage), (UPLINK, self.uplink)):
            wrong = np.flatnonzero(~(np.isfinite(value) & (value >= 0)))
            few = ", ".join(f"{value[at] * BYTES_PER_GB:g} for {self.source[at]!r}" for at in wrong[:NAMED])
            if len(wrong):
                yield f"Expected {name} in {PRICES}.parquet finite and >= 0, got {few}."
        if not 0 <= self.movement < np.inf:
            got = f"{self.movement * BYTES_PER_GB:g}"
            yield f"Expected problem.{MOVEMENT} in manifest.json finite and >= 0, got {got}."
        twice = sorted(str(source) for source, count in Counter(self.source.tolist()).items() if count > 1)
        if twice:
            yield f"{PRICES}.parquet names {', '.join(map(repr, twice[:NAMED]))} more than once; each source has one row."

    def for_problem(self, problem: PlacementProblem) -> Prices:
        """Matched by source id; 0 for sources that have none."""
        at = pd.Index(self.source).get_indexer(pd.Index(problem.sources.source))
        storage, uplink = (np.append(value, 0.0)[at] for value in (self.storage, self.uplink))
        return Prices.of_sources(problem, storage, uplink, self.movement)


def with_neighbours_prices(prices: Prices, known: Sources, added: Sources) -> tuple[Float64, Float64]:
    """Storage and uplink prices with those of further sources behind: the mean over the nodes of their location, or 0."""
    near = np.flatnonzero(known.eligible & (known.tier > 1) & (known.location >= 0))
    places = 1 + max(int(known.location.max(initial=0)), int(added.location.max(initial=0)))
    count = np.maximum(1, np.bincount(known.location[near], minlength=places))
    priced = (added.tier > 1) & (added.location >= 0)

    def longer(value: Float64) -> Float64:
        mean = np.bincount(known.location[near], weights=value[near], minlength=places) / count
        return np.concatenate((value, np.where(priced, mean[added.location], 0.0)))

    return longer(prices.storage), longer(prices.uplink)


def read_prices(folder: Path, manifest: Mapping[str, Any]) -> SourcePrices:
    """The prices beside a plan, without the rest of it.

    Raises:
        InputError: they are missing, damaged or cannot be used.
    """
    path, checksums = folder / f"{PRICES}.parquet", manifest.get("checksums")
    if not path.is_file():
        raise InputError(f"{path} is missing.")
    if not isinstance(checksums, dict) or file_digest(path) != checksums.get(path.name):
        raise InputError(f"{path} is not the file that the manifest describes: it was damaged or changed.")
    try:
        found = SourcePrices.read(read_parquet(path, PRICES), manifest["problem"])
    except TableError as error:
        raise InputError.listing(str(path), list(error.problems)) from None
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} or its manifest lacks something ({error!r}).") from None
    mistakes = list(found.mistakes())
    if mistakes:
        raise InputError.listing(str(path), mistakes)
    return found
