"""The registered form of every model: MLflow loads this file, not a pickle, and gives it the saved artefact.

| model | input columns | answer |
|---|---|---|
| demand | content, location, horizon_hours | the same rows with mean, p10, p50, p90, known |
| next content | history (list of content ids, latest last), location | request, rank, content, probability |
| churn | node | node, horizon_hours, up, survival, availability |

All answer for the instant of the snapshot that was saved with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel  # type: ignore[attr-defined]

from models.answers import churn_rows, demand_rows, next_content_rows
from models.churn.forecaster import ChurnForecaster
from models.demand.forecaster import DemandForecaster
from models.next_content.predictor import NextContentPredictor
from models.snapshot import load_counters, load_sessions

TOP_K = 20


class PremirrorModel(PythonModel):
    """One of the three models with the snapshot that it was saved with."""

    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["artefact"])
        self.kind = (folder / "kind").read_text(encoding="utf-8").strip()
        if self.kind == "demand":
            self.model: Any = DemandForecaster.load(folder / "model")
            self.store = load_counters(folder / "counters")
        elif self.kind == "next-content":
            self.model = NextContentPredictor.load(folder / "model")
        else:
            self.model = ChurnForecaster.load(folder / "model")
            self.history, self.known_until_us = load_sessions(folder / "sessions")

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        if self.kind == "demand":
            return self._demand(model_input)
        if self.kind == "next-content":
            histories = [list(history) for history in model_input["history"]]
            at_us = self.model.store.time_us
            return next_content_rows(self.model, histories, model_input["location"].tolist(), at_us=at_us, k=TOP_K)
        nodes = model_input["node"].tolist()
        return churn_rows(self.model.forecast(self.history, at_us=self.known_until_us, nodes=nodes))

    def _demand(self, asked: pd.DataFrame) -> pd.DataFrame:
        answers = []
        for hours, rows in asked.groupby("horizon_hours", sort=True):
            forecast = self.model.forecast(self.store, at_us=self.store.time_us, horizon_hours=int(str(hours)))
            answer = demand_rows(forecast, rows["content"].tolist(), rows["location"].tolist())
            answers.append(answer.assign(horizon_hours=int(str(hours))).set_index(rows.index))
        return pd.concat(answers).sort_index()


set_model(PremirrorModel())
