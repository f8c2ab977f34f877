"""Every method in one prequential harness: ours, the registry's versions, every baseline; one row a metric set.

All methods are fitted on the train window, tuned on the validation window and compared on the test window; the harness
shows none of them anything later than each origin.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.churn.baselines import fit_baselines
from models.churn.evaluation import BEST_MARKOV_PEER
from models.churn.evaluation import evaluate as evaluate_churn
from models.churn.training import fit_churn
from models.counters import CounterSettings
from models.demand.baselines import fit_hawkes, fit_references, untrained_references
from models.demand.boosting import fit_boosting
from models.demand.comparison import difference_rows
from models.demand.evaluation import metric_rows, score_origins
from models.demand.forecaster import CellForecaster
from models.demand.track import DemandFollower, DemandTrack
from models.demand.training import collect_windows, fit_prior, fit_samples
from models.events import RequestLog, window_name
from models.next_content.baselines import PEERS, baselines, fit_peers
from models.next_content.evaluation import Method
from models.next_content.evaluation import score as score_next_content
from models.next_content.scores import Scores, over_seeds
from models.next_content.training import fit_next_content, learn
from pipelines.config import ChurnRun, DemandRun, NextContentRun
from pipelines.console import Console, table
from pipelines.home import Home
from pipelines.inputs import Inputs
from pipelines.provenance import code_commit, settings_digest

OURS = "ours"
DECIDING_METRIC = "nll"
"""A proper score: it rewards honest probabilities and cannot be gamed by forecasting medians."""
SHOWN = {
    "demand": ["horizon_hours", "wape", "rmse", "nll", "scaled_pinball", "interval_80_pit", "top20_captured"],
    "next-content": ["recall_at_1", "recall_at_20", "mrr_at_20", "nll", "ece_top1", "coverage", "milliseconds"],
    "churn": ["nll", "ibs", "ibss", "concordance", "ece", "calibration_slope"],
}


@dataclass(frozen=True)
class Evaluation:
    """Scores of all methods.

    Attributes:
        rows: one a (window, model, stratum), for demand also horizon, with every metric; the whole window first.
        differences: gain of each model over the reference with its interval; positive is better. For demand also the
            ratio of its metric to the reference's.
        seconds: what the whole comparison took.
        track: the demand version that was to be followed, hour by hour over the test window.
    """

    rows: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    seconds: float
    track: DemandTrack | None = None

    def overall(self, *, horizon_hours: int | None = None) -> list[dict[str, Any]]:
        """The rows over everything, for one horizon where there are several."""
        return [
            row
            for row in self.whole(self.rows)
            if row["stratum"] == "all" and (horizon_hours is None or row.get("horizon_hours") == horizon_hours)
        ]

    def whole(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of `rows` or `differences` that are about the whole test window, and not about a part of it."""
        window = self.rows[0].get("window", "") if self.rows else ""
        return [row for row in rows if row.get("window", window) == window]


def evaluate(
    kind: str,
    run: DemandRun | NextContentRun | ChurnRun,
    inputs: Inputs,
    *,
    versions: Mapping[str, Any] | None = None,
    reference: str = OURS,
    followed: str = "",
) -> Evaluation:
    """Compares `versions` (by name), or a model trained here called `ours`, with every baseline.

    Args:
        kind: demand, next-content or churn.
        run: windows, model settings and test settings.
        inputs: the data.
        versions: trained models; absent, the configured model is trained first.
        reference: the method that differences are taken against.
        followed: name of the version to follow over the test window as well; demand only.
    """
    started = time.perf_counter()
    track = None
    if isinstance(run, DemandRun):
        rows, differences, track = _demand(run, inputs, versions, reference, followed)
    elif isinstance(run, NextContentRun):
        rows, differences = _next_content(run, inputs, versions, reference)
    else:
        rows, differences = _churn(run, inputs, versions, reference)
    return Evaluation(rows, differences, time.perf_counter() - started, track)


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
    run: DemandRun, inputs: Inputs, versions: Mapping[str, Any] | None, reference: str, followed: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], DemandTrack | None]:
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
    follower = DemandFollower(versions[followed], log, window=test, seed=run.seed) if followed else None
    scores = score_origins(
        methods,
        log,
        start_us=test[0],
        end_us=test[1],
        horizons_hours=run.model.horizons_hours,
        every_hours=round(run.test_every_hours),
        follower=follower,
    )
    return (
        metric_rows(scores, start_us=test[0], end_us=test[1], part_hours=run.test_window_hours),
        difference_rows(scores, reference=reference, seed=run.seed),
        None if follower is None else follower.track(),
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
        until_us=test[1],
        trained_until_us=validation[1],
        reference=reference,
        references=[BEST_MARKOV_PEER, *(["boosting"] if run.model.boosting_iterations else [])],
        seed=run.seed,
    )
    return rows, [difference for row in rows if row["model"] != reference for difference in _gains(row, reference)]


def _gains(row: Mapping[str, Any], reference: str) -> Iterator[dict[str, Any]]:
    """What a row of the churn comparison gains on the reference, positive where it is better."""
    for metric, sign in (("nll", -1.0), ("ibss", 1.0)):
        key = f"{metric}_minus_reference"
        low, high = sorted((sign * row[f"{key}_low"], sign * row[f"{key}_high"]))
        named = {"stratum": row["stratum"], "model": row["model"], "reference": reference, "metric": metric}
        yield named | {"gain": sign * row[key], "low": low, "high": high}


def _next_content(
    run: NextContentRun, inputs: Inputs, versions: Mapping[str, Any] | None, reference: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Trained versions have one seed; a model trained here, and the peers beside it, are trained once for each."""
    log = inputs.requests(run.windows.us("test")[1])
    if versions is not None:
        scores = _next_content_scores(run, log, _with_peers(run, log, versions))
    else:
        seeds = [replace(run, seed=run.seed + number) for number in range(run.seeds)]
        scores = over_seeds([_next_content_scores(run, log, _ours_with_peers(one, log)) for one in seeds])
    rows = scores.rows(reference=reference, seed=run.seed)
    differences = [
        {"window": row["window"], "stratum": row["stratum"], "model": row["model"], "reference": reference}
        | {"metric": metric, "gain": row[f"{gain}_gain"]}
        | {"low": row[f"{gain}_gain_low"], "high": row[f"{gain}_gain_high"]}
        for row in rows
        if row["model"] != reference
        for metric, gain in (("mrr_at_20", "mrr"), ("nll", "nll"))
    ]
    return rows, differences


def _next_content_scores(run: NextContentRun, log: RequestLog, methods: Sequence[Method]) -> Scores:
    """All methods on the same questions, whatever the seed that they were trained with."""
    start_us, end_us = run.windows.us("test")
    return score_next_content(
        methods,
        log,
        start_us=start_us,
        end_us=end_us,
        n_events=run.test_events,
        window_hours=run.test_window_hours,
        window=window_name(start_us, end_us),
        seed=run.seed,
    )


def _ours_with_peers(run: NextContentRun, log: RequestLog) -> list[Method]:
    train, validation, _ = run.windows.in_order()
    ours, _ = fit_next_content(log, train=train, validation=validation, settings=run.model, seed=run.seed)
    return _with_peers(run, log, {OURS: ours})


def _with_peers(run: NextContentRun, log: RequestLog, versions: Mapping[str, Any]) -> list[Method]:
    """Trained models beside peers fitted here; static mixtures need counters alone, of their own."""
    train, validation, _ = run.windows.in_order()
    for name, model in versions.items():
        model.name = name
    further = tuple(name for name in run.peers if name in PEERS)
    mixtures = tuple(name for name in run.peers if name not in PEERS)
    methods: list[Method] = [*versions.values()]
    if mixtures:
        counters = replace(run.model, sequence_network=False, lesson_events=1)
        memory, _, held_out = learn(log, train=train, validation=validation, settings=counters, seed=run.seed)
        methods += baselines(memory.store, held_out.lessons, run.model, which=mixtures)
    return methods + fit_peers(
        log, train=train, validation=validation, settings=run.model, which=further, seed=run.seed
    )
