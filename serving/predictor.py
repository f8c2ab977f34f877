"""The three models with what they saw last, ready to answer by id.

Demand and churn are forecast once when a version or a newer snapshot is loaded, because their answers change only then;
a request looks rows up. Next content is computed for each batch of sessions, from a memory of its own: the one saved with
the model, or the same after the forecast job fed it what was requested since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal

import numpy as np
import pandas as pd

from models.answers import AskedSession, DemandLookup, session_batch
from models.churn.forecaster import ChurnForecaster
from models.churn.history import SessionHistory
from models.churn.joint import JointSurvival, ReplicaSets, network_codes
from models.counters import CounterStore
from models.demand.forecaster import DemandForecaster
from models.events import Float64
from models.forecast import ChurnForecast
from models.next_content.forecast import NextContentForecast, aggregate_by_location
from models.next_content.predictor import NextContentPredictor, SessionBatch

Columns = dict[str, list[Any]]
Source = Literal["trained with it", "forecast job"]


@dataclass(frozen=True)
class Origin:
    """Which version answers, and from what.

    Attributes:
        name: registered name.
        version: number in the registry.
        as_of_us: the instant up to which requests or sessions are known; answers hold from there on.
        snapshot: whether that state came with the model or is a newer one from the forecast job.
    """

    name: str
    version: str
    as_of_us: int
    snapshot: Source


@dataclass(frozen=True)
class DemandQuestion:
    """Cells over one horizon."""

    contents: Sequence[str]
    locations: Sequence[str]
    horizon_hours: int


class DemandAnswerer:
    """Demand of any cell over every fitted horizon."""

    def __init__(self, model: DemandForecaster, store: CounterStore, origin: Origin) -> None:
        self.origin = origin
        forecasts = model.forecasts(store, at_us=origin.as_of_us)
        self._lookup = {hours: DemandLookup(forecast) for hours, forecast in forecasts.items()}

    @property
    def horizons_hours(self) -> tuple[int, ...]:
        return tuple(self._lookup)

    def answer(self, questions: Sequence[DemandQuestion]) -> list[Columns]:
        """One answer a question: mean, p10, p50, p90 and known, as lists in the order of its cells."""
        answers: dict[int, Columns] = {}
        for hours in {question.horizon_hours for question in questions}:
            chosen = [i for i, question in enumerate(questions) if question.horizon_hours == hours]
            contents = [content for i in chosen for content in questions[i].contents]
            locations = [location for i in chosen for location in questions[i].locations]
            found = {name: v.tolist() for name, v in self._lookup[hours].columns(contents, locations).items()}
            first = 0
            for i in chosen:
                last = first + len(questions[i].contents)
                answers[i] = {name: values[first:last] for name, values in found.items()}
                first = last
        return [answers[i] for i in range(len(questions))]


@dataclass(frozen=True)
class SessionsQuestion:
    """Sessions so far, and how many contents to name for each."""

    sessions: Sequence[AskedSession]
    k: int


@dataclass(frozen=True)
class NextContents:
    """The likeliest next contents of one session, best first."""

    contents: list[str]
    probabilities: Float64


@dataclass(frozen=True)
class NextByLocation:
    """Next requests expected by cell, most first.

    Attributes:
        contents: content ids.
        locations: location ids.
        expected: sums of the sessions' probabilities.
        left_out: sessions from places that the model does not know.
    """

    contents: list[str]
    locations: list[str]
    expected: Float64
    left_out: int


class NextContentAnswerer:
    """What sessions request next, from the predictor's own memory."""

    def __init__(self, model: NextContentPredictor, origin: Origin) -> None:
        self.origin = origin
        self._predictor = model
        self._one_at_a_time = Lock()  # the sequence network makes room for contents that it is first asked about
        self.answer([SessionsQuestion([AskedSession([], "")], 1)])  # compiles, and fails now, not at the first request

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Columns that describe a device."""
        return self._predictor.device_features

    @property
    def arrival_names(self) -> tuple[str, ...]:
        """Columns that say how a session came to its last request."""
        return self._predictor.arrival_features

    def answer(self, questions: Sequence[SessionsQuestion]) -> list[list[NextContents]]:
        """One list a question, with one entry a session."""
        sessions = [session for question in questions for session in question.sessions]
        _, found = self._predict(sessions, k=max((question.k for question in questions), default=1))
        ids = self._predictor.store.contents
        answers, row = [], 0
        for question in questions:
            rows = range(row, row + len(question.sessions))
            answers.append([_named(ids, found.content[r, : question.k], found.probability[r]) for r in rows])
            row += len(rows)
        return answers

    def by_location(self, question: SessionsQuestion) -> NextByLocation:
        """The same added up by content and location."""
        batch, found = self._predict(question.sessions, k=question.k)
        content, location, expected = aggregate_by_location(batch, found)
        order = np.argsort(-expected, kind="stable")
        store = self._predictor.store
        return NextByLocation(
            store.contents[content[order]].tolist(),
            store.locations[location[order]].tolist(),
            expected[order],
            int((batch.location < 0).sum()),
        )

    def _predict(self, sessions: Sequence[AskedSession], *, k: int) -> tuple[SessionBatch, NextContentForecast]:
        with self._one_at_a_time:
            batch = session_batch(self._predictor, sessions, at_us=self.origin.as_of_us)
            return batch, self._predictor.predict(batch, k=k)


def _named(ids: np.ndarray, content: np.ndarray, probability: Float64) -> NextContents:
    n = int((content >= 0).sum())
    return NextContents(ids[content[:n]].tolist(), probability[:n])


@dataclass(frozen=True)
class ReplicasQuestion:
    """P(at least `wanted[s]` of the nodes of set s stay `hours`), nodes as rows of the forecast.

    Attributes:
        rows: those of set s are `offsets[s]:offsets[s + 1]`. (m,)
        offsets: (sets + 1,)
        wanted: from 0 to the size of the set. (sets,)
        hours: lead time within the forecast's edges.
    """

    rows: np.ndarray
    offsets: np.ndarray
    wanted: np.ndarray
    hours: float


class ChurnAnswerer:
    """How long nodes stay."""

    def __init__(self, model: ChurnForecaster, history: SessionHistory, origin: Origin) -> None:
        self.origin = origin
        self.forecast: ChurnForecast = model.forecast(history, at_us=origin.as_of_us)
        self._nodes = pd.Index(self.forecast.nodes)
        self._network = network_codes(history.network)
        self._joint = model.joint

    def rows_of(self, nodes: Sequence[str] | None) -> np.ndarray:
        """Rows of the forecast, all of them for None; -1 for a node that the history does not hold."""
        if nodes is None:
            return np.arange(len(self.forecast))
        return np.asarray(self._nodes.get_indexer(pd.Index(list(nodes), dtype=object)))

    def at_least(self, question: ReplicasQuestion) -> tuple[Float64, Float64]:
        """P(enough nodes stay) of each set, with what departures share and as if they shared nothing; (sets,) each."""
        survival = self.forecast.survival_at(question.hours)[question.rows]
        sets = ReplicaSets(survival, self._network[question.rows], question.offsets)
        together = self._joint.at_least_of_sets(question.wanted, sets, hours=question.hours)
        return together, JointSurvival.independent().at_least_of_sets(question.wanted, sets, hours=question.hours)
