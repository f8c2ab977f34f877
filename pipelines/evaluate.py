"""Every method in one prequential harness: ours, the registry's versions, every baseline; one row a metric set.

All methods are fitted on the train window, tuned on the validation window and compared on the test window; the harness
shows none of them anything later than each origin.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from models.churn.baselines import fit_baselines
from models.churn.evaluation import evaluate as evaluate_churn
from models.churn.training import fit_churn
from models.counters import CounterSettings
from models.demand.baselines import fit_hawkes, fit_references, untrained_references
from models.demand.boosting import fit_boosting
from models.demand.evaluation import difference_rows, metric_rows, score_origins, window_name
from models.demand.forecaster import CellForecaster
from models.demand.training import collect_windows, fit_prior, fit_samples
from models.next_content.baselines import baselines
from models.next_content.evaluation import evaluate as evaluate_next_content
from models.next_content.predictor import NextContentPredictor
from models.next_content.training import learn, linear_weights, weights_by_evidence
from models.next_content.weights import StaticWeights
from pipelines.config import ChurnRun, DemandRun, NextContentRun
from pipelines.console import Console, table
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.provenance import code_commit, settings_digest

OURS = "ours"
DECIDING_METRIC = "nll"
"""A proper score: it rewards honest probabilities and cannot be gamed by forecasting medians."""
SHOWN = {
    "demand": ["horizon_hours", "wape", "rmse", "nll", "scaled_pinball", "coverage_80", "top20_captured"],
    "next-content": ["recall_at_1", "recall_at_5", "recall_at_20", "mrr_at_20", "nll"],
    "churn": ["nll", "ibs", "ibss", "concordance", "ece", "calibration_slope"],
}


@dataclass(frozen=True)
class Evaluation:
    """Scores of all methods.

    Attributes:
        rows: one a (window, model, stratum), for demand also horizon, with every metric.
        differences: gain of each model over the reference with its interval; positive is better.
        seconds: what the whole comparison took.
    """

    rows: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    seconds: float

    def overall(self, *, horizon_hours: int | None = None) -> list[dict[str, Any]]:
        """The rows over everything, for one horizon where there are several."""
        return [
            row
            for row in self.rows
            if row["stratum"] == "all" and (horizon_hours is None or row.get("horizon_hours") == horizon_hours)
        ]


def evaluate(
    kind: str,
    run: DemandRun | NextContentRun | ChurnRun,
    inputs: Inputs,
    *,
    versions: Mapping[str, Any] | None = None,
    reference: str = OURS,
) -> Evaluation:
    """Compares `versions` (by name), or a model trained here called `ours`, with every baseline.

    Args:
        kind: demand, next-content or churn.
        run: windows, model settings and test settings.
        inputs: the data.
        versions: trained models; absent, the configured model is trained first.
        reference: the method that differences are taken against.
    """
    started = time.perf_counter()
    if isinstance(run, DemandRun):
        rows, differences = _demand(run, inputs, versions, reference)
    elif isinstance(run, NextContentRun):
        rows, differences = _next_content(run, inputs, versions, reference)
    else:
        rows, differences = _churn(run, inputs, versions, reference)
    return Evaluation(rows, differences, time.perf_counter() - started)


def evaluate_step(
    kind: str, run: DemandRun | NextContentRun | ChurnRun, home: Home, console: Console
) -> tuple[dict[str, Any], str]:
    """Trains the configured model, compares it with every baseline, answers with all rows."""
    inputs = Inputs.find(run.data, home)
    console.note(f"comparing methods for {kind} on {inputs.path}; nothing of the test window is used for tuning")
    found = evaluate(kind, run, inputs)
    value = {
        "model": kind,
        "rows": found.rows,
        "differences": found.differences,
        "seconds": round(found.seconds, 1),
        "code_commit": code_commit(),
        "config_hash": settings_digest(run),
        "data_hash": inputs.digest,
    }
    return value, table(found.overall(), ["model", *SHOWN[kind], "n"])


def _demand(
    run: DemandRun, inputs: Inputs, versions: Mapping[str, Any] | None, reference: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    train, validation, test = run.windows.in_order()
    log = inputs.requests(test[1])
    references = untrained_references(run.model, CounterSettings())
    fitted, held_out = collect_windows(
        log,
        train=train,
        validation=validation,
        settings=run.model,
        seed=run.seed,
        references=[r.mean for r in references],
    )
    _, remainder = fit_prior(fitted, run.model)
    common = {"settings": run.model, "remainder": remainder, "seed": run.seed}
    methods: list[CellForecaster] = [
        *fit_references(references, held_out, **common),  # type: ignore[arg-type]
        *fit_hawkes(fitted, held_out, **common),  # type: ignore[arg-type]
    ]
    for markov in (False, True) if run.boosting_iterations else ():
        methods.append(
            fit_boosting(fitted, held_out, markov=markov, iterations=run.boosting_iterations, **common)  # type: ignore[arg-type]
        )
    if versions is None:
        ours, _ = fit_samples(fitted, held_out, settings=run.model, seed=run.seed)
        versions = {OURS: ours}
    for name, model in versions.items():
        model.name = name
        methods.insert(0, model)
    del fitted, held_out
    scores = score_origins(
        methods,
        log,
        start_us=test[0],
        end_us=test[1],
        horizons_hours=run.model.horizons_hours,
        every_hours=round(run.test_every_hours),
    )
    return (
        metric_rows(scores, start_us=test[0], end_us=test[1]),
        difference_rows(scores, reference=reference, seed=run.seed),
    )


def _churn(
    run: ChurnRun, inputs: Inputs, versions: Mapping[str, Any] | None, reference: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    train, validation, test = run.windows.in_order()
    history = inputs.history(test[1])
    methods: list[Any] = list(
        fit_baselines(history, train=train, validation=validation, settings=run.model, seed=run.seed)
    )
    if versions is None:
        ours, _ = fit_churn(history, train=train, validation=validation, settings=run.model, seed=run.seed)
        versions = {OURS: ours}
    methods = [replace(model, name=name) for name, model in versions.items()] + methods
    rows = evaluate_churn(
        methods,
        history,
        start_us=test[0],
        end_us=test[1],
        every_hours=run.test_every_hours,
        trained_until_us=validation[1],
        reference=reference,
        seed=run.seed,
    )
    differences = [
        {
            "stratum": row["stratum"],
            "model": row["model"],
            "reference": reference,
            "metric": "nll",
            "gain": -row["nll_minus_reference"],
            "low": -row["nll_minus_reference_high"],
            "high": -row["nll_minus_reference_low"],
        }
        for row in rows
        if row["model"] != reference
    ]
    return rows, differences


def _next_content(
    run: NextContentRun, inputs: Inputs, versions: Mapping[str, Any] | None, reference: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    train, validation, test = run.windows.in_order()
    log = inputs.requests(test[1])
    store, lessons = learn(log, train=train, validation=validation, settings=run.model, seed=run.seed)
    if versions is None:
        pooled = linear_weights(lessons, run.model)
        weighting = StaticWeights(weights_by_evidence(lessons, pooled, run.model), run.model.evidence_edges)
        versions = {OURS: NextContentPredictor(OURS, store, weighting)}
    methods: list[Any] = list(baselines(store, lessons, run.model))
    for name, model in versions.items():
        model.name = name
        methods.insert(0, model)
    rows = evaluate_next_content(
        methods,
        log,
        start_us=test[0],
        end_us=test[1],
        n_events=run.test_events,
        window=window_name(*test),
        reference=reference,
        seed=run.seed,
    )
    differences = [
        {"stratum": row["stratum"], "model": row["model"], "reference": reference, "metric": metric}
        | {"gain": row[f"{gain}_gain"], "low": row[f"{gain}_gain_low"], "high": row[f"{gain}_gain_high"]}
        for row in rows
        if row["model"] != reference
        for metric, gain in (("mrr_at_20", "mrr"), ("nll", "nll"))
    ]
    return rows, differences
