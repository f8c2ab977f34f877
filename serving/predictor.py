"""The three models with what they saw last, ready to answer by id.

Demand and churn are forecast once when a version or a newer snapshot is loaded, because their answers change only then;
a request looks rows up. Next content is computed for each batch of sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from models.answers import DemandLookup, session_batch
from models.churn.forecaster import ChurnForecaster
from models.churn.history import SessionHistory
from models.counters import CounterStore
from models.demand.features import observe
from models.demand.forecaster import DemandForecaster
from models.events import Float64
from models.forecast import ChurnForecast
from models.next_content.predictor import NextContentPredictor

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
        state = observe(store, at_us=origin.as_of_us, settings=model.settings)
        self._lookup = {
            hours: DemandLookup(model.forecast_state(state, store, horizon_hours=hours))
            for hours in model.settings.horizons_hours
        }

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
    """Sessions so far, most recent content last, and how many contents to name for each."""

    histories: Sequence[Sequence[str]]
    locations: Sequence[str]
    k: int


@dataclass(frozen=True)
class NextContents:
    """The likeliest next contents of one session, best first."""

    contents: list[str]
    probabilities: Float64


class NextContentAnswerer:
    """What sessions request next."""

    def __init__(self, model: NextContentPredictor, store: CounterStore, origin: Origin) -> None:
        if store is not model.store and store.settings != model.store.settings:
            raise ValueError("the counters have other settings than the ones that the weights were fitted with")
        self.origin = origin
        self._predictor = NextContentPredictor(model.name, store, model.weighting)
        self.answer([SessionsQuestion([[]], [""], 1)])  # compiles, and fails now rather than on the first request

    def answer(self, questions: Sequence[SessionsQuestion]) -> list[list[NextContents]]:
        """One list a question, with one entry a session."""
        histories = [_without_repeats(history) for question in questions for history in question.histories]
        locations = [location for question in questions for location in question.locations]
        batch = session_batch(self._predictor, histories, locations, at_us=self.origin.as_of_us)
        found = self._predictor.predict(batch, k=max((question.k for question in questions), default=1))
        ids = self._predictor.store.contents
        answers, row = [], 0
        for question in questions:
            rows = range(row, row + len(question.histories))
            answers.append([_named(ids, found.content[r, : question.k], found.probability[r]) for r in rows])
            row += len(rows)
        return answers


def _named(ids: np.ndarray, content: np.ndarray, probability: Float64) -> NextContents:
    n = int((content >= 0).sum())
    return NextContents(ids[content[:n]].tolist(), probability[:n])


def _without_repeats(history: Sequence[str]) -> list[str]:
    """A content twice in a row is one view of it, as in training."""
    return [content for i, content in enumerate(history) if i == 0 or content != history[i - 1]]


class ChurnAnswerer:
    """How long nodes stay."""

    def __init__(self, model: ChurnForecaster, history: SessionHistory, origin: Origin) -> None:
        self.origin = origin
        self.forecast: ChurnForecast = model.forecast(history, at_us=origin.as_of_us)
        self._nodes = pd.Index(self.forecast.nodes)

    def rows_of(self, nodes: Sequence[str] | None) -> np.ndarray:
        """Rows of the forecast, all of them for None; -1 for a node that the history does not hold."""
        if nodes is None:
            return np.arange(len(self.forecast))
        return np.asarray(self._nodes.get_indexer(pd.Index(list(nodes), dtype=object)))
