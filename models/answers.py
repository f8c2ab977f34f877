"""Forecasts looked up by id, as rows: what the registry's pyfunc and the service both answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.events import Int32, combined
from models.forecast import ChurnForecast, DemandForecast
from models.keys import pair_keys
from models.next_content.predictor import NextContentPredictor, SessionBatch
from models.vocabulary import Vocabulary

HISTORY, EARLIER = 10, 10
"""Contents of a session, and of the visitor's sessions before, that a model is taught with: see `sessions_at`."""
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


@dataclass(frozen=True)
class AskedSession:
    """A session under way, in words.

    Attributes:
        history: contents so far, most recent last; one view that was reloaded may be listed twice.
        location: where it is.
        earlier: contents of the visitor's sessions of the last day before this one, likewise.
        features: values of the columns that describe the device, by name.
        arrival: values of the columns that say how the session came to its last request, by name.
    """

    history: Sequence[str]
    location: str
    earlier: Sequence[str] = ()
    features: Mapping[str, str] = field(default_factory=dict)
    arrival: Mapping[str, str] = field(default_factory=dict)


def next_content_rows(
    predictor: NextContentPredictor,
    histories: Sequence[Sequence[str]],
    locations: Sequence[str],
    *,
    at_us: int,
    k: int,
) -> pd.DataFrame:
    """The k likeliest next contents of each session, best first: columns request, rank, content, probability."""
    sessions = [AskedSession(history, place) for history, place in zip(histories, locations, strict=True)]
    predicted = predictor.predict(session_batch(predictor, sessions, at_us=at_us), k=k)
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


def session_batch(predictor: NextContentPredictor, sessions: Sequence[AskedSession], *, at_us: int) -> SessionBatch:
    """Sessions by the predictor's codes; what its memory never saw counts as unknown.

    The model reads as much of a history as it did in training; a content twice in a row is one view of it, as there.
    """
    store = predictor.store
    devices, arrivals = store.audiences.device_ids, store.audiences.arrival_ids
    device = [_combination(devices, predictor.device_features, session.features) for session in sessions]
    arrival = [
        _combination(arrivals, predictor.arrival_features, session.arrival) if len(session.history) else -1
        for session in sessions
    ]
    return SessionBatch(
        _padded(store.content_ids, [session.history for session in sessions], HISTORY),
        store.location_ids.codes([session.location for session in sessions]),
        np.full(len(sessions), at_us, dtype=np.int64),
        _padded(store.content_ids, [session.earlier for session in sessions], EARLIER),
        np.array(device, dtype=np.int32),
        np.array(arrival, dtype=np.int32),
    )


def _combination(ids: Vocabulary, names: Sequence[str], values: Mapping[str, str]) -> int:
    """Code of a combination, -1 where a part is not given or it never occurred."""
    if not names or any(name not in values for name in names):
        return -1
    return int(ids.codes([combined([values[name] for name in names])])[0])


def _padded(ids: Vocabulary, histories: Sequence[Sequence[str]], width: int) -> Int32:
    """Codes of the last contents of each history, without repeats, -1 in front. (n, width)"""
    items = np.full((len(histories), width), -1, dtype=np.int32)
    for row, history in enumerate(histories):
        views = [content for i, content in enumerate(history) if i == 0 or content != history[i - 1]][-width:]
        if views:
            items[row, width - len(views) :] = ids.codes(views)
    return items
