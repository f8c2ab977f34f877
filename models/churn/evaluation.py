"""Rolling-origin comparison of churn models: every method, the same origins, nodes and outcomes.

At each origin every method sees `history.before(origin)` through its own `forecast`; a row is a node that looked up.

    NLL    −log P(outcome), interval-censored where the departure lies between two sightings
    IBS    Brier score of P(still up) averaged over the horizon, edges weighted by the width of their bin
    IBSS   1 − IBS / IBS of the stratum's own marginal curve (a reference that knows the outcome frequencies)
    C      share of comparable pairs in which the node that left first had the lower survival at that edge
    ECE    expected calibration error of P(gone by the edge), mean over edges; calibration slope pooled over edges
    availability Brier       P(up at the edge) of all nodes, up or down, averaged over edges
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.calibration import block_bootstrap_interval, calibration_slope, expected_calibration_error
from models.churn.baselines import ForecastsChurn
from models.churn.history import Objects, SessionHistory
from models.churn.outcomes import Outcomes, concatenate, log_likelihood, outcomes_at
from models.events import HOUR_US, Bool, Float64
from models.metrics import integrated_brier

_PAIRS = 200_000


@dataclass(frozen=True)
class ScoredRows:
    """Outcomes of all origins with each method's survival for them.

    Attributes:
        outcomes: (rows)
        survival: by method. (rows, B)
        availability_brier: by method, per node and origin, up or down: mean over the edges that are known.
        all_nodes: node index of each row of `availability_brier`.
    """

    outcomes: Outcomes
    survival: Mapping[str, Float64]
    availability_brier: Mapping[str, Float64]
    all_nodes: np.ndarray[tuple[int], np.dtype[np.int64]]


def evaluate(
    methods: Sequence[ForecastsChurn],
    history: SessionHistory,
    *,
    start_us: int,
    end_us: int,
    every_hours: float = 6.0,
    until_us: int | None = None,
    trained_until_us: int | None = None,
    window: str = "test",
    reference: str | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row a method and stratum; strata are all, each device class, and nodes first seen after training.

    Args:
        methods: forecasters with equal edges and different names.
        history: sessions, outcomes included; each method sees only what preceded its origin.
        start_us: first origin.
        end_us: origins lie before this instant.
        every_hours: spacing of origins.
        until_us: outcomes are known until here; the end of the log when absent.
        trained_until_us: nodes first seen at or after it form the stratum "unseen".
        window: name of the window, repeated in each row.
        reference: method that paired differences are taken against; the first when absent.
        seed: of the pairs sampled for C and of the bootstrap over nodes.

    Returns:
        Rows of `window, model, stratum, n, departures, nll, ibs, ibss, concordance, ece, calibration_slope,
        availability_brier, nll_minus_reference, nll_minus_reference_low, nll_minus_reference_high`.
    """
    _check_methods(methods)
    scored = score_rows(methods, history, start_us=start_us, end_us=end_us, every_hours=every_hours, until_us=until_us)
    reference = reference or methods[0].name
    rows = []
    for stratum, members in _strata(history, trained_until_us).items():
        chosen = members[scored.outcomes.node]
        if not chosen.any():
            continue
        part = scored.outcomes.take(chosen)
        against = _losses(scored.survival[reference][chosen], part)
        for method in methods:
            survival = scored.survival[method.name][chosen]
            brier = scored.availability_brier[method.name][members[scored.all_nodes]]
            rows.append(
                {
                    "window": window,
                    "model": method.name,
                    "stratum": stratum,
                    **_scores(survival, part, seed),
                    "availability_brier": float(np.nanmean(brier)) if np.isfinite(brier).any() else float("nan"),
                    **_paired(_losses(survival, part), against, part, seed),
                }
            )
    return rows


def score_rows(
    methods: Sequence[ForecastsChurn],
    history: SessionHistory,
    *,
    start_us: int,
    end_us: int,
    every_hours: float,
    until_us: int | None = None,
) -> ScoredRows:
    """Forecasts of every method at every origin, beside what happened."""
    edges = methods[0].edges_hours
    parts: list[Outcomes] = []
    survival: dict[str, list[Float64]] = {m.name: [] for m in methods}
    brier: dict[str, list[Float64]] = {m.name: [] for m in methods}
    for at_us in range(start_us, end_us, round(every_hours * HOUR_US)):
        outcomes = outcomes_at(history, at_us=at_us, edges_hours=edges, until_us=until_us)
        parts.append(outcomes)
        up, known = _states(history, at_us, edges, until_us)
        for method in methods:
            forecast = method.forecast(history, at_us=at_us)
            survival[method.name].append(forecast.survival[outcomes.node])
            brier[method.name].append(_mean_square(forecast.availability, up, known))
    if not sum(map(len, parts)):
        raise ValueError(f"No node was up at any origin in [{start_us}, {end_us}); choose a window inside the history.")
    return ScoredRows(
        concatenate(parts),
        {name: np.concatenate(v) for name, v in survival.items()},
        {name: np.concatenate(v) for name, v in brier.items()},
        np.tile(np.arange(len(history)), len(parts)),
    )


def concordance(survival: Float64, outcomes: Outcomes, *, seed: int = 0, pairs: int = _PAIRS) -> float:
    """Time-dependent concordance over sampled comparable pairs; equal survival counts one half, no pair is nan.

    A pair is comparable when one node was gone by an edge that the other certainly passed.
    """
    gone = np.flatnonzero(outcomes.high > 0)
    if not len(gone):
        return float("nan")
    rng = np.random.default_rng(seed)
    first, second = rng.choice(gone, pairs), rng.integers(0, len(outcomes), pairs)
    edge = outcomes.high[first]
    comparable = outcomes.low[second] >= edge
    first, second, edge = first[comparable], second[comparable], edge[comparable] - 1
    if not len(first):
        return float("nan")
    difference = survival[second, edge] - survival[first, edge]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def _scores(survival: Float64, outcomes: Outcomes, seed: int) -> dict[str, float]:
    alive, known = outcomes.alive(), outcomes.known()
    ibs = integrated_brier(survival, alive, outcomes.edges_hours, known=known)
    counted = np.maximum(known.sum(axis=0), 1)
    marginal = np.broadcast_to((alive * known).sum(axis=0) / counted, alive.shape)
    marginal_ibs = integrated_brier(marginal, alive, outcomes.edges_hours, known=known)
    gone, probability = 1.0 - alive, 1.0 - survival
    seen = np.flatnonzero(known.any(axis=0))
    errors = [expected_calibration_error(probability[known[:, b], b], gone[known[:, b], b]) for b in seen]
    slope, _ = calibration_slope(probability[known], gone[known]) if len(seen) else (float("nan"), 0.0)
    return {
        "n": len(outcomes),
        "departures": int(np.sum(outcomes.high > 0)),
        "nll": float(_losses(survival, outcomes).mean()),
        "ibs": ibs,
        "ibss": 1.0 - ibs / marginal_ibs if marginal_ibs > 0 else float("nan"),
        "concordance": concordance(survival, outcomes, seed=seed),
        "ece": float(np.mean(errors)) if errors else float("nan"),
        "calibration_slope": slope,
    }


def _losses(survival: Float64, outcomes: Outcomes) -> Float64:
    return -log_likelihood(survival, outcomes.low, outcomes.high)


def _paired(losses: Float64, against: Float64, outcomes: Outcomes, seed: int) -> dict[str, float]:
    difference = losses - against
    low, high = block_bootstrap_interval(difference, outcomes.node, seed=seed)
    return {
        "nll_minus_reference": float(difference.mean()),
        "nll_minus_reference_low": low,
        "nll_minus_reference_high": high,
    }


def _states(history: SessionHistory, at_us: int, edges: Float64, until_us: int | None) -> tuple[Bool, Bool]:
    """Whether each node was up at each edge, and where that is known: not for nodes still unseen. (n, B)."""
    instants = [at_us + round(e * HOUR_US) for e in edges]
    up = np.column_stack([history.up_at(t) for t in instants])
    known = np.column_stack([history.known_at(t) & (until_us is None or t < until_us) for t in instants])
    return up, known & (history.observed_from_us < at_us)[:, None]


def _mean_square(availability: Float64, up: Bool, known: Bool) -> Float64:
    square = np.where(known, (availability - up) ** 2, 0.0).sum(axis=1)
    counted = known.sum(axis=1)
    return np.where(counted > 0, square / np.maximum(counted, 1), np.nan)


def _strata(history: SessionHistory, trained_until_us: int | None) -> dict[str, Bool]:
    strata = {"all": np.ones(len(history), dtype=np.bool_)}
    names: Objects = np.unique(history.device_class.astype(str)).astype(object)
    if len(names) > 1:
        strata |= {f"class:{name}": history.device_class == name for name in names}
    if trained_until_us is not None:
        strata["unseen"] = history.observed_from_us >= trained_until_us
    return strata


def _check_methods(methods: Sequence[ForecastsChurn]) -> None:
    names = [m.name for m in methods]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"Expected at least one method and different names, got {names!r}.")
    if any(not np.array_equal(m.edges_hours, methods[0].edges_hours) for m in methods):
        raise ValueError(f"Expected equal edges_hours, got {[m.edges_hours.tolist() for m in methods]!r}.")
