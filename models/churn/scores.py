"""Scores of survival forecasts, and how sure their differences are.

With ŝ_b the forecast survival at edge b, y_b whether the node was still up, k_b whether that is known, and w_b the
width of the bin that ends at b:

    Brier_b  Σ k_b (ŝ_b − y_b)² / Σ k_b            IBS   Σ_b w_b Brier_b / Σ_b w_b
    IBSS     1 − IBS / IBS of the marginal curve m_b = Σ k_b y_b / Σ k_b, whose Brier score is m_b (1 − m_b)
    C        share of comparable pairs in which the node that left first had the lower survival at that edge

Differences of two methods are resampled over nodes: rows of one node stand or fall together, and every method meets
the same resampled fleet. Gerds and Schumacher, "Consistent estimation of the expected Brier score" (2006); Antolini,
Boracchi and Biganzoli, "A time-dependent discrimination index for survival data" (2005).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import expit, logit

from models.calibration import calibration_slope, expected_calibration_error
from models.churn.outcomes import Outcomes, log_likelihood
from models.events import Float64, Int64

_PAIRS = 200_000
_REPLICATES = 1000
_DRAWS_AT_ONCE = 4_000_000
_LOGIT_STEP = 1 / 64
_LOGIT_LIMIT = 16.0


def edge_name(hours: float) -> str:
    """`5min`, `4h`: how an edge is called in the name of a score."""
    return f"{hours * 60:.4g}min" if hours < 1.0 else f"{hours:g}h"


def losses(survival: Float64, outcomes: Outcomes) -> Float64:
    """−log P(outcome) of each row, in nats. (n,)"""
    return -log_likelihood(survival, outcomes.low, outcomes.high)


def survival_scores(survival: Float64, outcomes: Outcomes, *, seed: int = 0) -> dict[str, float]:
    """nll, ibs, ibss, concordance, and ECE and calibration slope of P(gone by the edge), by edge and over all edges.

    `ece` is the mean over edges; `calibration_slope` pools the edges. A score over nothing is nan.
    """
    alive, known = outcomes.alive(), outcomes.known()
    ibs, skill = integrated_brier_skill(survival, outcomes)
    gone, probability = 1.0 - alive, 1.0 - survival
    by_edge: dict[str, float] = {}
    errors = []
    for b, hours in enumerate(outcomes.edges_hours):
        seen = known[:, b]
        error = expected_calibration_error(probability[seen, b], gone[seen, b]) if seen.any() else float("nan")
        errors.append(error)
        by_edge[f"ece_{edge_name(hours)}"] = error
        by_edge[f"calibration_slope_{edge_name(hours)}"] = _slope(probability[seen, b], gone[seen, b])
    return {
        "nll": float(losses(survival, outcomes).mean()),
        "ibs": ibs,
        "ibss": skill,
        "concordance": concordance(survival, outcomes, seed=seed),
        "ece": float(np.nanmean(errors)) if np.isfinite(errors).any() else float("nan"),
        "calibration_slope": _slope(probability[known], gone[known]),
        **by_edge,
    }


def integrated_brier_skill(survival: Float64, outcomes: Outcomes) -> tuple[float, float]:
    """IBS, and its skill over the marginal curve of the same rows; nan where it is not defined."""
    alive, known = outcomes.alive(), outcomes.known()
    squares, upright, counted = (np.sum(known * v, axis=0) for v in ((survival - alive) ** 2, alive, 1.0))
    ibs, marginal = _integrated(squares, upright, counted, outcomes.edges_hours)
    return float(ibs), float(1.0 - ibs / marginal) if marginal > 0 else float("nan")


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


def paired_differences(
    survival: Mapping[str, Sequence[Float64]],
    outcomes: Outcomes,
    references: Mapping[str, str],
    *,
    seed: int = 0,
    replicates: int = _REPLICATES,
) -> dict[str, dict[str, float]]:
    """Differences of IBSS and NLL of every method from every reference, with 95 % intervals over nodes.

    A method is the mean of its seeds. Where method and reference have equally many, their differences seed by seed
    also give a standard deviation, the noise of training that an interval over nodes does not hold.

    Args:
        survival: by method, one array a seed. Each (n, B)
        outcomes: (n)
        references: method by the name that the columns get.
        seed: of the resampling.
        replicates: resampled fleets.

    Returns:
        By method `ibss_minus_NAME`, `nll_minus_NAME`, each also with `_low`, `_high` and `_seed_sd`.
    """
    point, drawn = _resampled(survival, outcomes, seed=seed, replicates=replicates)
    alone = {name: [_ibss_and_nll(one, outcomes) for one in runs] for name, runs in survival.items()}
    found: dict[str, dict[str, float]] = {}
    for name in survival:
        row: dict[str, float] = {}
        for label, reference in references.items():
            between = _seed_deviation(alone[name], alone[reference])
            for k, score in enumerate(("ibss", "nll")):
                key = f"{score}_minus_{label}"
                row[key] = float(point[name][k] - point[reference][k])
                spread = drawn[name][:, k] - drawn[reference][:, k]
                spread = spread[np.isfinite(spread)]
                ends = np.quantile(spread, [0.025, 0.975]) if len(spread) else (float("nan"), float("nan"))
                # A skill is a ratio: of few nodes, the value of all may lie outside what resampling them gives.
                row[f"{key}_low"], row[f"{key}_high"] = min(float(ends[0]), row[key]), max(float(ends[1]), row[key])
                row[f"{key}_seed_sd"] = between[k]
        found[name] = row
    return found


def _resampled(
    survival: Mapping[str, Sequence[Float64]], outcomes: Outcomes, *, seed: int, replicates: int
) -> tuple[dict[str, Float64], dict[str, Float64]]:
    """(IBSS, NLL) of every method on all nodes, (2,), and on each resampled fleet, (replicates, 2)."""
    _, code = np.unique(outcomes.node, return_inverse=True)
    alive, known = outcomes.alive(), outcomes.known()
    bins = alive.shape[1]
    columns = [*(known * alive).T, *known.T.astype(np.float64), np.ones(len(outcomes))]
    common = _by_node(columns, code)
    own = []
    for runs in survival.values():
        squares = np.mean([known * (one - alive) ** 2 for one in runs], axis=0)
        nll = np.mean([losses(one, outcomes) for one in runs], axis=0)
        own.append(_by_node([*squares.T, nll], code))
    stacked = np.column_stack([common, *own])
    totals = np.vstack([stacked.sum(axis=0), _node_bootstrap(stacked, replicates=replicates, seed=seed)])
    upright, counted, rows = totals[:, :bins], totals[:, bins : 2 * bins], totals[:, 2 * bins]
    point, drawn = {}, {}
    for i, name in enumerate(survival):
        first = 2 * bins + 1 + i * (bins + 1)
        ibs, marginal = _integrated(totals[:, first : first + bins], upright, counted, outcomes.edges_hours)
        with np.errstate(divide="ignore", invalid="ignore"):
            both = np.column_stack([1.0 - ibs / marginal, totals[:, first + bins] / rows])
        point[name], drawn[name] = both[0], both[1:]
    return point, drawn


def _node_bootstrap(values: Float64, *, replicates: int, seed: int) -> Float64:
    """Column sums of `values` (nodes, k) over fleets of as many nodes drawn with replacement. (replicates, k)."""
    nodes = len(values)
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // nodes)
    sums = np.empty((replicates, values.shape[1]))
    for first in range(0, replicates, at_once):
        size = min(at_once, replicates - first)
        drawn = rng.integers(0, nodes, size=(size, nodes)) + nodes * np.arange(size)[:, None]
        weight = np.bincount(drawn.ravel(), minlength=size * nodes).reshape(size, nodes)
        sums[first : first + size] = weight.astype(np.float64) @ values
    return sums


def _integrated(squares: Float64, upright: Float64, counted: Float64, edges_hours: Float64) -> tuple[Float64, Float64]:
    """IBS and that of the marginal curve from sums over rows, edges last; an edge that nobody reached is left out."""
    widths = np.where(counted > 0, np.diff(edges_hours, prepend=0.0), 0.0)
    each = np.maximum(counted, 1.0)
    share = upright / each
    with np.errstate(divide="ignore", invalid="ignore"):
        total = widths.sum(axis=-1)
        ibs = np.sum(widths * squares / each, axis=-1) / total
        marginal = np.sum(widths * share * (1.0 - share), axis=-1) / total
    return np.asarray(ibs), np.asarray(marginal)


def _ibss_and_nll(survival: Float64, outcomes: Outcomes) -> tuple[float, float]:
    return integrated_brier_skill(survival, outcomes)[1], float(losses(survival, outcomes).mean())


def _seed_deviation(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> Float64:
    """Standard deviation over seeds of the difference; nan with a single seed, a method without seeds is a constant."""
    if max(len(one), len(other)) < 2:
        return np.full(2, np.nan)
    return np.asarray(np.std(np.asarray(one) - np.asarray(other), axis=0, ddof=1), dtype=np.float64)


def _by_node(columns: Sequence[Float64], code: Int64) -> Float64:
    return np.column_stack([np.bincount(code, weights=column) for column in columns])


def _slope(probability: Float64, gone: Float64) -> float:
    """Calibration slope on forecasts grouped in steps of 1/64 of a logit, which moves it by less than it is known."""
    if not len(probability):
        return float("nan")
    limits = expit(np.array([-_LOGIT_LIMIT, _LOGIT_LIMIT]))
    step = np.rint(logit(np.clip(probability, *limits)) / _LOGIT_STEP).astype(np.int64)
    cells, code = np.unique(step, return_inverse=True)
    weight = np.concatenate([np.bincount(code, weights=w) for w in (gone, 1.0 - gone)]).astype(np.float64)
    grouped = np.tile(expit(cells * _LOGIT_STEP), 2)
    return calibration_slope(grouped, np.repeat([1.0, 0.0], len(cells)), weight=weight)[0]
