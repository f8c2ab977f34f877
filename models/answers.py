"""Forecasts looked up by id, as rows: what the registry's pyfunc and the service both answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.forecast import ChurnForecast, DemandForecast
from models.next_content.predictor import NextContentPredictor, SessionBatch

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


class DemandLookup:
    """A demand forecast indexed by id, for many small questions.

    Attributes:
        forecast: what is looked up.
    """

    def __init__(self, forecast: DemandForecast) -> None:
        self.forecast = forecast
        self._contents, self._locations = pd.Index(forecast.contents), pd.Index(forecast.locations)
        self._cells = pd.Index(self._keys(forecast.content, forecast.location))
        quantiles = forecast.quantiles(list(QUANTILES.values()))
        self._columns = {"mean": forecast.mean} | dict(zip(QUANTILES, quantiles, strict=True))

    def rows(self, contents: Sequence[str], locations: Sequence[str]) -> pd.DataFrame:
        """Mean and quantiles of the asked cells, in the order asked.

        A cell without demand of its own (a content never requested, or not lately, or not from there) has mean 0 and
        `known` false: its requests are part of the location's remainder, not of the cell.
        """
        content = self._contents.get_indexer(pd.Index(list(contents), dtype=object))
        location = self._locations.get_indexer(pd.Index(list(locations), dtype=object))
        row = self._cells.get_indexer(pd.Index(self._keys(content, location)))
        known = (content >= 0) & (location >= 0) & (row >= 0)
        answers = {
            name: np.where(known, values[row] if len(values) else 0.0, 0.0) for name, values in self._columns.items()
        }
        return pd.DataFrame({"content": list(contents), "location": list(locations), **answers, "known": known})

    def _keys(self, content: npt.ArrayLike, location: npt.ArrayLike) -> npt.NDArray[np.int64]:
        place = np.asarray(location, dtype=np.int64)
        return np.asarray(content, dtype=np.int64) * np.int64(max(len(self._locations), 1)) + place


def demand_rows(forecast: DemandForecast, contents: Sequence[str], locations: Sequence[str]) -> pd.DataFrame:
    """Mean and quantiles of the asked cells, in the order asked; see `DemandLookup.rows`."""
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
