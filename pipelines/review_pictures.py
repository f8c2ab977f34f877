"""Which pictures a review has: what the comparison followed of a demand candidate, a churn candidate followed anew."""

from __future__ import annotations

from typing import Any

from models.churn.forecaster import ChurnForecaster
from models.churn.track import follow_churn
from pipelines.churn_plots import churn_pictures
from pipelines.churn_words import data_facts
from pipelines.config import ChurnRun, DemandRun, NextContentRun
from pipelines.demand_plots import demand_pictures
from pipelines.evaluate import Evaluation
from pipelines.gate import CANDIDATE
from pipelines.inputs import Inputs
from pipelines.pictures import Pictures
from pipelines.store import has_table, read_world


def review_pictures(
    title: str,
    run: DemandRun | NextContentRun | ChurnRun,
    inputs: Inputs,
    model: Any,
    evaluation: Evaluation,
    *,
    opponent: str,
) -> Pictures:
    """The pictures of the candidate `model`; next-content has none."""
    if isinstance(run, ChurnRun):
        return _of_churn(title, run, inputs, model)
    if evaluation.track is None:
        return Pictures()
    rows = evaluation.whole(evaluation.rows)
    return demand_pictures(title, evaluation.track, model.prior, rows, opponent=opponent, ours=CANDIDATE)


def _of_churn(title: str, run: ChurnRun, inputs: Inputs, model: ChurnForecaster) -> Pictures:
    """Forecasts at the origins of the comparison once more, because it keeps scores where pictures need nodes."""
    start_us, end_us = run.windows.us("test")
    track = follow_churn(
        model,
        inputs.history(end_us),
        start_us=start_us,
        end_us=end_us,
        every_hours=run.test_every_hours,
        joint=model.joint,
        seed=run.seed,
    )
    facts = data_facts(read_world(inputs.path), telemetry=has_table(inputs.path, "telemetry"))
    return churn_pictures(title, track, facts=facts)
