"""Rolling-origin comparison of churn models: every method, the same origins, nodes and outcomes.

At each origin every method sees `history.before(origin)` through its own `forecast`; a row is a node that looked up.
Several methods of one name are the seeds of one method: their scores are averaged, and how much they differ is told.
Origins at which the observer himself was away are left out: nobody's state is known there.

The scores are those of `models.churn.scores`, and of all nodes, up or down,

    availability Brier       (P(up at the edge) − up)², averaged over the edges at which the state is known
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.churn.baselines import MARKOV_PEERS, ForecastsChurn
from models.churn.edge_calibration import uncertainty
from models.churn.history import SessionHistory
from models.churn.outages import with_outages
from models.churn.outcomes import Outcomes, concatenate, outcomes_at
from models.churn.scores import integrated_brier_skill, paired_differences, survival_scores
from models.churn.strata import Stratum, strata_of
from models.events import HOUR_US, Bool, Float64, Int64

BEST_MARKOV_PEER = "best_markov_peer"
"""Reference: the Markov peer with the highest IBSS on the rows that are scored, with hindsight."""
_JUDGED_DEPARTURES = 30
_HOLE_HOURS = 12.0
_HOLE_EVENTS = 20.0


@dataclass(frozen=True)
class ScoredRows:
    """Outcomes of all origins with each method's survival for them.

    Attributes:
        outcomes: (rows)
        survival: by method, one array a seed. Each (rows, B)
        availability_brier: by method and seed, per node and origin, up or down: mean over the edges that are known.
        all_nodes: node index of each row of `availability_brier`.
        all_at_us: origin of each row of `availability_brier`.
    """

    outcomes: Outcomes
    survival: Mapping[str, tuple[Float64, ...]]
    availability_brier: Mapping[str, tuple[Float64, ...]]
    all_nodes: Int64
    all_at_us: Int64

    def take(self, rows: Bool, all_rows: Bool) -> ScoredRows:
        """The chosen rows, and the chosen rows of the availability."""
        return ScoredRows(
            self.outcomes.take(rows),
            {name: tuple(one[rows] for one in runs) for name, runs in self.survival.items()},
            {name: tuple(one[all_rows] for one in runs) for name, runs in self.availability_brier.items()},
            self.all_nodes[all_rows],
            self.all_at_us[all_rows],
        )

    def between(self, start_us: int, end_us: int) -> ScoredRows:
        """Rows of the origins in [start, end)."""
        return self.take(
            (self.outcomes.at_us >= start_us) & (self.outcomes.at_us < end_us),
            (self.all_at_us >= start_us) & (self.all_at_us < end_us),
        )


def pool(parts: Sequence[ScoredRows], nodes: Sequence[Int64]) -> ScoredRows:
    """Rows of several folds below each other; `nodes` gives each fold's nodes their index in the whole history."""
    outcomes = concatenate([part.outcomes for part in parts])
    index = np.concatenate([at[part.outcomes.node] for part, at in zip(parts, nodes, strict=True)])
    return ScoredRows(
        Outcomes(outcomes.at_us, index, outcomes.low, outcomes.high, outcomes.followed_hours, outcomes.edges_hours),
        _below_each_other([part.survival for part in parts]),
        _below_each_other([part.availability_brier for part in parts]),
        np.concatenate([at[part.all_nodes] for part, at in zip(parts, nodes, strict=True)]),
        np.concatenate([part.all_at_us for part in parts]),
    )


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
    references: Sequence[str] = (),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row a method and stratum.

    Args:
        methods: forecasters with equal edges; those of one name are its seeds, equally many for all that have several.
        history: sessions, outcomes included; each method sees only what preceded its origin.
        start_us: first origin.
        end_us: origins lie before this instant.
        every_hours: spacing of origins.
        until_us: outcomes are known until here; the end of the log when absent.
        trained_until_us: nodes first seen at or after it form the stratum "unseen".
        window: name of the window, repeated in each row.
        reference: method that paired differences are taken against; the first when absent.
        references: further ones; `BEST_MARKOV_PEER` stands for the best of them.
        seed: of the pairs sampled for C and of the bootstrap over nodes.

    Returns:
        See `comparison_rows`.
    """
    scored = score_rows(methods, history, start_us=start_us, end_us=end_us, every_hours=every_hours, until_us=until_us)
    return comparison_rows(
        scored,
        strata_of(history, trained_until_us=trained_until_us),
        window=window,
        references={"reference": reference or methods[0].name, **{name: name for name in references}},
        seed=seed,
    )


def score_rows(
    methods: Sequence[ForecastsChurn],
    history: SessionHistory,
    *,
    start_us: int,
    end_us: int,
    every_hours: float,
    until_us: int | None = None,
) -> ScoredRows:
    """Forecasts of every method at every origin at which the fleet was observed, beside what happened."""
    _check_methods(methods)
    edges, history = methods[0].edges_hours, with_outages(history)
    origins = _outside(observation_holes(history), range(start_us, end_us, round(every_hours * HOUR_US)))
    outcomes: list[Outcomes] = []
    survival: list[list[Float64]] = [[] for _ in methods]
    brier: list[list[Float64]] = [[] for _ in methods]
    for at_us in origins:
        outcomes.append(outcomes_at(history, at_us=at_us, edges_hours=edges, until_us=until_us))
        up, known = _states(history, at_us, edges, until_us)
        for i, method in enumerate(methods):
            forecast = method.forecast(history, at_us=at_us)
            survival[i].append(forecast.survival[outcomes[-1].node])
            brier[i].append(_mean_square(forecast.availability, up, known))
    if not sum(map(len, outcomes)):
        raise ValueError(
            f"No node was up at any observed origin in [{start_us}, {end_us}); choose a window inside the history."
        )
    return ScoredRows(
        concatenate(outcomes),
        _by_name(methods, survival),
        _by_name(methods, brier),
        np.tile(np.arange(len(history)), len(outcomes)),
        np.repeat(np.asarray(origins, dtype=np.int64), len(history)),
    )


def comparison_rows(
    scored: ScoredRows,
    strata: Mapping[str, Stratum],
    *,
    window: str = "test",
    references: Mapping[str, str],
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row a method and stratum, "all" with the worst of the device classes beside it.

    Args:
        scored: the rows.
        strata: which rows belong to each, by name; see `strata_of`.
        window: name of the window.
        references: method, or `BEST_MARKOV_PEER`, by the name that the columns of its differences get.
        seed: of the pairs sampled for C and of the bootstrap over nodes.

    Returns:
        Rows of `window, model, stratum, n, nodes, departures, seeds`, the scores of `survival_scores` with their
        `uncertainty`, `availability_brier`, `nll_sd` and `ibss_sd` over seeds, and for each reference what
        `paired_differences` gives: `ibss_minus_NAME` and `nll_minus_NAME` with `_low`, `_high`, `_seed_sd`. Rows of
        "all" also have `ece_worst_class` and `calibration_slope_worst_class`.
    """
    chosen = {name: reference for name, reference in references.items() if reference != BEST_MARKOV_PEER}
    best = best_markov_peer(scored)
    if best and len(chosen) < len(references):
        chosen |= {name: best for name, reference in references.items() if reference == BEST_MARKOV_PEER}
    unknown = sorted(set(chosen.values()) - set(scored.survival))
    if unknown:
        raise ValueError(f"Expected references among {sorted(scored.survival)!r}, got {unknown!r}.")
    rows = []
    for stratum, member in strata.items():
        part = scored.take(
            member(scored.outcomes.node, scored.outcomes.at_us), member(scored.all_nodes, scored.all_at_us)
        )
        if len(part.outcomes):
            rows += [
                {"window": window, "model": name, "stratum": stratum, **scores}
                for name, scores in _scores(part, chosen, seed).items()
            ]
    return _with_worst_classes(rows)


def best_markov_peer(scored: ScoredRows) -> str:
    """The Markov peer with the highest IBSS over all rows; "" where there is none."""
    found = {
        name: float(np.mean([integrated_brier_skill(one, scored.outcomes)[1] for one in scored.survival[name]]))
        for name in MARKOV_PEERS
        if name in scored.survival
    }
    return max(found, key=lambda name: found[name], default="")


def observation_holes(history: SessionHistory) -> list[tuple[int, int]]:
    """[from, until) in which nobody was seen to come or go though 20 would have, and for 12 h at least.

    A whole fleet does not keep still by chance; its observer was away.
    """
    instants = np.unique(np.concatenate([history.start_us, history.end_us, history.end_upper_us]))
    if len(instants) < 2:
        return []
    seen = len(history.start_us) + int(np.sum(~history.censored))
    expected = seen / (instants[-1] - instants[0])
    gaps = np.diff(instants)
    still = np.flatnonzero((gaps >= _HOLE_HOURS * HOUR_US) & (gaps * expected >= _HOLE_EVENTS))
    return [(int(instants[i]), int(instants[i + 1])) for i in still]


def _outside(holes: Sequence[tuple[int, int]], origins: range) -> list[int]:
    return [at_us for at_us in origins if not any(first < at_us < last for first, last in holes)]


def _scores(part: ScoredRows, references: Mapping[str, str], seed: int) -> dict[str, dict[str, float]]:
    """Columns of each method on these rows."""
    differences = paired_differences(part.survival, part.outcomes, references, seed=seed)
    return {
        name: {
            "n": len(part.outcomes),
            "nodes": len(np.unique(part.outcomes.node)),
            "departures": int(np.sum(part.outcomes.high > 0)),
            "seeds": len(runs),
            **_over_seeds([_scored(one, part.outcomes, seed) for one in runs]),
            "availability_brier": float(np.mean([_mean(one) for one in part.availability_brier[name]])),
            **differences[name],
        }
        for name, runs in part.survival.items()
    }


def _scored(survival: Float64, outcomes: Outcomes, seed: int) -> dict[str, float]:
    scores = survival_scores(survival, outcomes, seed=seed)
    return scores | uncertainty(outcomes, survival, scores["calibration_slope"])


def _over_seeds(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over seeds, and the standard deviation of NLL and IBSS; nan where there is one seed."""
    mean = {key: float(np.mean([row[key] for row in scores])) for key in scores[0]}
    several = len(scores) > 1
    deviation = {
        f"{key}_sd": float(np.std([row[key] for row in scores], ddof=1)) if several else float("nan")
        for key in ("nll", "ibss")
    }
    return mean | deviation


def _with_worst_classes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds to the rows of "all" the calibration of the class that has the worst; of all where there is one class."""
    for row in (row for row in rows if row["stratum"] == "all"):
        classes = [
            other
            for other in rows
            if other["model"] == row["model"]
            and other["stratum"].startswith("class:")
            and other["departures"] >= _JUDGED_DEPARTURES
        ] or [row]
        slopes = [other["calibration_slope"] for other in classes]
        row["ece_worst_class"] = max(other["ece"] for other in classes)
        row["calibration_slope_worst_class"] = max(slopes, key=lambda slope: abs(slope - 1.0))
    return rows


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


def _mean(values: Float64) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _by_name(methods: Sequence[ForecastsChurn], parts: Sequence[list[Float64]]) -> dict[str, tuple[Float64, ...]]:
    """The seeds of each method together, in the order in which the names first occur."""
    names = dict.fromkeys(method.name for method in methods)
    joined = [np.concatenate(part) for part in parts]
    return {name: tuple(joined[i] for i, m in enumerate(methods) if m.name == name) for name in names}


def _below_each_other(parts: Sequence[Mapping[str, tuple[Float64, ...]]]) -> dict[str, tuple[Float64, ...]]:
    def joined(name: str) -> Iterator[Float64]:
        for runs in zip(*(part[name] for part in parts), strict=True):
            yield np.concatenate(runs)

    return {name: tuple(joined(name)) for name in parts[0]}


def _check_methods(methods: Sequence[ForecastsChurn]) -> None:
    names = [m.name for m in methods]
    if not names:
        raise ValueError("Expected at least one method, got none.")
    seeds = {name: names.count(name) for name in names if names.count(name) > 1}
    if len(set(seeds.values())) > 1:
        raise ValueError(f"Expected equally many seeds of every method that has several, got {seeds!r}.")
    if any(not np.array_equal(m.edges_hours, methods[0].edges_hours) for m in methods):
        raise ValueError(f"Expected equal edges_hours, got {[m.edges_hours.tolist() for m in methods]!r}.")
