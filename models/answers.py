"""Forecasts looked up by id, as rows: what the registry's pyfunc and the service both answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.forecast import ChurnForecast, DemandForecast
from models.keys import pair_keys
from models.next_content.predictor import NextContentPredictor, SessionBatch

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


class DemandLookup:
    """A demand forecast indexed by id, for many small questions.

    Attributes:
        forecast: what is looked up.
    """

    def __init__(self, forecast: DemandForecast) -> None:
        self.forecast = forecast
        self._content_of = {content: code for code, content in enumerate(forecast.contents)}
        self._location_of = {location: code for code, location in enumerate(forecast.locations)}
        self._keys = pair_keys(forecast.content, forecast.location)  # rising, because the cells are sorted
        quantiles = forecast.quantiles(list(QUANTILES.values()))
        self._values = {"mean": forecast.mean} | dict(zip(QUANTILES, quantiles, strict=True))

    def columns(self, contents: Sequence[str], locations: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Mean, p10, p50, p90 and known of the asked cells, in the order asked.

        A cell without demand of its own (a content never requested, or not lately, or not from there) has mean 0 and
        `known` false: its requests are part of the location's remainder, not of the cell.
        """
        content = np.array([self._content_of.get(name, -1) for name in contents], dtype=np.int64)
        location = np.array([self._location_of.get(name, -1) for name in locations], dtype=np.int64)
        known = (content >= 0) & (location >= 0) & (len(self._keys) > 0)
        asked = pair_keys(np.where(known, content, 0), np.where(known, location, 0))
        row = np.searchsorted(self._keys, asked)
        row[row == len(self._keys)] = 0
        if len(self._keys):
            known &= self._keys[row] == asked
        found = {name: np.where(known, v[row] if len(v) else 0.0, 0.0) for name, v in self._values.items()}
        return found | {"known": known}

    def rows(self, contents: Sequence[str], locations: Sequence[str]) -> pd.DataFrame:
        """The same with the ids, as a table."""
        columns = self.columns(contents, locations)
        return pd.DataFrame({"content": list(contents), "location": list(locations), **columns})


def demand_rows(forecast: DemandForecast, contents: Sequence[str], locations: Sequence[str]) -> pd.DataFrame:
    """Mean and quantiles of the asked cells, in the order asked; see `DemandLookup.columns`."""
    return DemandLookup(forecast).rows(contents, locations)


def churn_rows(forecast: ChurnForecast) -> pd.DataFrame:
    """One row a node and edge: up now, P(stays up until then), P(up then)."""
    table = forecast.to_arrow()
    return pd.DataFrame({name: table[name].to_pylist() for name in table.column_names if name != "origin"})


def next_content_rows(
    predictor: NextContentPredictor,
    histories: Sequence[Sequence[str]],
    locations: Sequence[str],
    *,
    at_us: int,
    k: int,
) -> pd.DataFrame:
    """The k likeliest next contents of each session, best first: columns request, rank, content, probability."""
    batch = session_batch(predictor, histories, locations, at_us=at_us)
    predicted = predictor.predict(batch, k=k)
    ids = predictor.store.contents
    request, rank = np.nonzero(predicted.content >= 0)
    return pd.DataFrame(
        {
            "request": request,
            "rank": rank + 1,
            "content": ids[predicted.content[request, rank]],
            "probability": predicted.probability[request, rank],
        }
    )


def session_batch(
    predictor: NextContentPredictor, histories: Sequence[Sequence[str]], locations: Sequence[str], *, at_us: int
) -> SessionBatch:
    """Sessions given by ids, most recent content last; what the counters never saw counts as unknown."""
    store = predictor.store
    width = max((len(history) for history in histories), default=0) or 1
    items = np.full((len(histories), width), -1, dtype=np.int32)
    for row, history in enumerate(histories):
        if len(history):
            items[row, width - len(history) :] = store.content_ids.codes(list(history))
    location = store.location_ids.codes(list(locations))
    return SessionBatch(items, location, np.full(len(histories), at_us, dtype=np.int64))
