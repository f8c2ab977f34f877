"""Churn under a change: what recalibration does to skill and calibration, before and after departures multiply.

    python benchmarks/churn_drift.py [--change 2x-at-once ...] [--nodes 12000] [--svg FOLDER] [--json]

`real` is the change that the relays made themselves on 4 February 2026; all others are made from real sessions by
`models/churn/drift.py`: strengths x speeds, one class alone, and a third of the nodes alone. The model is trained before
the change. Methods differ in what happens after training: nothing, a common shift a day, shift and slope a day.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_expit

from benchmarks.churn_worlds import instant_us, relay_history, without_places
from models.churn.drift import RegimeChange, departure_rate, intensified
from models.churn.features import node_features
from models.churn.forecaster import ChurnForecaster
from models.churn.history import Objects, SessionHistory
from models.churn.matured import MaturedOrigins
from models.churn.operation import RecalibrationSettings
from models.churn.outages import with_outages
from models.churn.outcomes import Outcomes, concatenate, outcomes_at
from models.churn.recalibrated import RecalibratedForecaster, composed
from models.churn.recalibration import calibrated_logits
from models.churn.scores import survival_scores
from models.churn.settings import ALWAYS_ON_EDGES_HOURS, ChurnSettings
from models.churn.training import fit_churn
from models.events import DAY_US, HOUR_US, Float64
from models.panels import Panel, as_image, panels
from models.svg import Scale, colour, drawing, line, nice_ticks, path_through, tag, text_at
from models.timeline import Timeline

SPEEDS_HOURS = {"at-once": 0.0, "in-a-day": 24.0, "in-five-days": 120.0}
STRENGTHS = (0.5, 1.5, 2.0, 4.0)
CHANGES = (
    "real",
    *(f"{factor:g}x-{speed}" for factor in STRENGTHS for speed in SPEEDS_HOURS),
    "4x-some-at-once",
    "4x-one-class-at-once",
)
METHODS = ("without", "shift", "recalibrated")
SHOWN = ("nll", "ibss", "ece", "calibration_slope")
SETTLING_US = 3 * DAY_US


@dataclass(frozen=True)
class Windows:
    """Instants of one experiment, microseconds since 1970."""

    train: tuple[int, int]
    validation: tuple[int, int]
    scored: tuple[int, int]
    change_us: int


REAL = ("2025-12-14", "2026-01-18", "2026-01-28", "2026-01-29", "2026-02-04", "2026-02-27")
MADE = {
    "development": ("2025-12-14", "2026-02-16", "2026-03-01", "2026-03-03", "2026-03-07", "2026-03-25"),
    "final": ("2025-12-14", "2026-04-15", "2026-05-01", "2026-05-04", "2026-05-10", "2026-05-31"),
}
"""Training from and until, chosen until, scored from, change, scored until."""


def windows(instants: tuple[str, ...]) -> Windows:
    train, until, chosen, scored, change, end = map(instant_us, instants)
    return Windows((train, until), (until, chosen), (scored, end), change)


def regime_changes(history: SessionHistory, change_us: int, seed: int) -> dict[str, RegimeChange]:
    """Strengths x speeds for all nodes; twice the departures of one class, and of a third of the nodes."""
    found = {
        f"{factor:g}x-{speed}": RegimeChange(change_us, factor, hours)
        for factor in STRENGTHS
        for speed, hours in SPEEDS_HOURS.items()
    }
    some = np.random.default_rng(seed).random(len(history)) < 1 / 3
    found["4x-some-at-once"] = RegimeChange(change_us, 4.0, among=some)
    classes, counts = np.unique(history.device_class.astype(str), return_counts=True)
    rarest = str(classes[int(np.argmin(counts))])
    found["4x-one-class-at-once"] = RegimeChange(change_us, 4.0, among=history.device_class == rarest)
    return found


def sampled(history: SessionHistory, nodes: int, seed: int) -> SessionHistory:
    if nodes >= len(history):
        return history
    chosen = np.sort(np.random.default_rng(seed).choice(len(history), nodes, replace=False))
    return history.select(history.nodes[chosen])


@dataclass(frozen=True)
class Scored:
    """Survival of each method for the rows of all origins, and the drift monitor day by day."""

    outcomes: Outcomes
    device_class: Objects
    survival: dict[str, Float64]
    told: list[dict[str, Any]]

    def scores(self, method: str, since_us: int, until_us: int, device_class: str = "") -> dict[str, float]:
        at = self.outcomes.at_us
        kept = (at >= since_us) & (at < until_us)
        if device_class:
            kept &= self.device_class == device_class
        if not kept.any():
            return dict.fromkeys(SHOWN, float("nan"))
        found = survival_scores(self.survival[method][kept], self.outcomes.take(kept))
        return {name: found[name] for name in SHOWN}


def scored(base: ChurnForecaster, history: SessionHistory, scored_us: tuple[int, int], *, every_hours: float) -> Scored:
    """Each method at every origin; the statistics and raw logits of an origin are computed once."""
    methods = _methods(base)
    parts: list[Outcomes] = []
    survival: dict[str, list[Float64]] = {name: [] for name in METHODS}
    told: dict[int, dict[str, Any]] = {}
    for at_us in range(*scored_us, round(every_hours * HOUR_US)):
        outcomes = outcomes_at(history, at_us=at_us, edges_hours=base.edges_hours)
        features = node_features(history, at_us=at_us, population=base.population, settings=base.settings)
        of = history.device_class[outcomes.node]
        raw = base.raw_logits(features.take(outcomes.node), of)
        parts.append(outcomes)
        for name in METHODS:
            calibration = dict(base.calibration)
            if name in methods:
                now = methods[name].recalibration(history, at_us)
                calibration = composed(now.calibration, calibration)
                if name == "recalibrated":
                    told[now.at_us] = now.to_json()
            logits = calibrated_logits(raw, of, calibration)
            survival[name].append(np.exp(np.cumsum(log_expit(-logits), axis=1)))
    together = concatenate(parts)
    return Scored(
        together,
        history.device_class[together.node],
        {name: np.concatenate(v) for name, v in survival.items()},
        [told[t] for t in sorted(told)],
    )


def _methods(base: ChurnForecaster) -> dict[str, RecalibratedForecaster]:
    full = RecalibrationSettings()
    shared = MaturedOrigins(base, full.origin_every_hours, full.nodes_each)
    return {
        "shift": RecalibratedForecaster(base, replace(full, slope=False), origins=shared),
        "recalibrated": RecalibratedForecaster(base, full, origins=shared),
    }


def rows_of(name: str, found: Scored, when: Windows) -> list[dict[str, Any]]:
    """One row a phase, method and device class."""
    start_us, end_us = when.scored
    settled_us = when.change_us + SETTLING_US
    phases = {
        "before": (start_us, when.change_us),
        "first days": (when.change_us, settled_us),
        "after": (settled_us, end_us),
    }
    return [
        {"change": name, "phase": phase, "method": m, "class": c or "all", **found.scores(m, *bounds, c)}
        for phase, bounds in phases.items()
        for c in ("", *sorted(set(found.device_class.astype(str))))
        for m in METHODS
    ]


def by_day(found: Scored, when: Windows) -> dict[str, dict[str, list[float]]]:
    """Scores of each day's origins, by method."""
    days = range(when.scored[0], when.scored[1], DAY_US)
    daily = {m: [found.scores(m, d, d + DAY_US) for d in days] for m in METHODS}
    return {m: {k: [row[k] for row in rows] for k in SHOWN} for m, rows in daily.items()}


# ---- the picture

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 860.0, 170.0, 46.0, 22.0, 26.0
_GOALS = {"ece": (0.0, 0.02), "calibration_slope": (0.9, 1.1)}
_LEAST = {"calibration_slope": 0.5}
"""Where an axis begins, if not at 0; lower where a value is."""
_TITLES = {
    "ece": ("Expected calibration error by day", "Lower is better; the goal is at most 0.02, shaded"),
    "calibration_slope": (
        "Calibration slope by day",
        "1 is calibrated, below 1 over-confident; the goal is 0.9 to 1.1, shaded",
    ),
    "ibss": ("Integrated Brier skill by day", "Over the day's own marginal curve; higher is better"),
}


def picture(name: str, daily: dict[str, dict[str, list[float]]], when: Windows) -> str:
    """ECE, slope and skill by day, without and with recalibration, the change marked."""
    parts = [
        Panel(title, f"{note}. {_mean_sentence(daily, score, when)}", _lines(daily, score, when))
        for score, (title, note) in _TITLES.items()
    ]
    return as_image(panels(parts, width=_WIDTH, label=f"Churn model under the change {name!r}."))


def _mean_sentence(daily: dict[str, dict[str, list[float]]], score: str, when: Windows) -> str:
    first = (when.change_us + SETTLING_US - when.scored[0]) // DAY_US
    plain, ours = (float(np.nanmean(daily[m][score][first:])) for m in ("without", "recalibrated"))
    return f"Mean from the third day after it: {plain:.3f} without, {ours:.3f} with recalibration."


def _lines(daily: dict[str, dict[str, list[float]]], score: str, when: Windows) -> str:
    days = len(daily["without"][score])
    time_axis = Timeline(when.scored[0], days, DAY_US)
    x = time_axis.scale(_LEFT, _WIDTH - 4)
    shown = [v for m in ("without", "recalibrated") for v in daily[m][score] if np.isfinite(v)]
    low, high = _GOALS.get(score, (0.0, 0.0))
    ticks = nice_ticks(max(high, *shown, 0.01), low=min(_LEAST.get(score, 0.0), *shown))
    y = Scale(ticks[0], ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    parts = [tag("rect", x=_LEFT, y=y(high), width=_WIDTH - 4 - _LEFT, height=y(low) - y(high), fill=colour("allowed"))]
    parts += time_axis.axis(_LEFT, _WIDTH - 4, top=_TOP, bottom=_HEIGHT - _BOTTOM)
    for tick in ticks:
        parts.append(line(_LEFT, y(tick), _WIDTH - 4, y(tick), stroke=colour("grid")))
        parts.append(text_at(_LEFT - 6, y(tick) + 4, f"{tick:g}", text_anchor="end"))
    changed = x((when.change_us - when.scored[0]) / DAY_US)
    parts.append(line(changed, _TOP, changed, _HEIGHT - _BOTTOM, stroke=colour("bad"), stroke_dasharray="4 3"))
    parts.append(text_at(changed, 11, "the change", text_anchor="middle"))
    for k, (method, stroke) in enumerate((("without", "other"), ("recalibrated", "ours"))):
        points = [(x(i + 0.5), y(v)) for i, v in enumerate(daily[method][score]) if np.isfinite(v)]
        parts.append(tag("path", d=path_through(points), fill="none", stroke=colour(stroke), stroke_width=1.8))
        right = _WIDTH - 4 - 100 * (1 - k)
        parts.append(text_at(right, 11, method, fill=colour(stroke), font_weight="700", text_anchor="end"))
    return drawing(_WIDTH, _HEIGHT, _TITLES[score][0], parts)


# ---- the run


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    final = arguments.stage == "final"
    whole = without_places(relay_history(until_us=None if final else instant_us("2026-05-01")))
    history = sampled(whole, arguments.nodes, arguments.seed)
    settings = ChurnSettings(edges_hours=ALWAYS_ON_EDGES_HOURS)
    rows: list[dict[str, Any]] = []
    told: dict[str, Any] = {}
    trained: dict[tuple[int, int], ChurnForecaster] = {}
    for name in arguments.change:
        when = windows(REAL if name == "real" else MADE[arguments.stage])
        if when.train not in trained:
            trained[when.train], _ = fit_churn(
                history, train=when.train, validation=when.validation, settings=settings, seed=arguments.seed
            )
        started = time.process_time()
        change = None if name == "real" else regime_changes(history, when.change_us, arguments.seed)[name]
        world = with_outages(history if change is None else intensified(history, change, seed=arguments.seed))
        found = scored(trained[when.train], world, when.scored, every_hours=arguments.every_hours)
        rows += rows_of(name, found, when)
        told[name] = {
            "rate_ratio": _ratio(history, world, when),
            "cpu_seconds": time.process_time() - started,
            "by_day": by_day(found, when),
            "recalibrations": found.told,
        }
        if arguments.svg:
            arguments.svg.mkdir(parents=True, exist_ok=True)
            (arguments.svg / f"{name}.svg").write_text(picture(name, told[name]["by_day"], when), encoding="utf-8")
    return {"nodes": len(history), "seed": arguments.seed, "rows": rows, "changes": told}


def _ratio(history: SessionHistory, world: SessionHistory, when: Windows) -> float:
    """Departures per hour up after the change over those of the unchanged sessions; for the real one over before it."""
    if len(world.start_us) == len(history.start_us):
        (n, hours), (m, before) = (
            departure_rate(history, start_us=a, end_us=b)
            for a, b in ((when.change_us, when.scored[1]), (when.train[0], when.change_us))
        )
    else:
        since_us, until_us = when.change_us + SETTLING_US, when.scored[1]
        (n, hours), (m, before) = (departure_rate(h, start_us=since_us, end_us=until_us) for h in (world, history))
    return (n / hours) / (m / before)


def show(result: dict[str, Any]) -> None:
    print(f"{result['nodes']} nodes, seed {result['seed']}")
    print(f"{'change':22} {'phase':11} {'class':11} {'method':13} " + " ".join(f"{c[:9]:>9}" for c in SHOWN))
    for row in result["rows"]:
        figures = " ".join(f"{row[c]:9.4f}" for c in SHOWN)
        print(f"{row['change']:22} {row['phase']:11} {row['class']:11} {row['method']:13} {figures}")
    for name, told in result["changes"].items():
        lives = [r["half_life_days"] for r in told["recalibrations"]]
        print(f"{name}: rate x {told['rate_ratio']:.2f}, {told['cpu_seconds']:.0f} CPU s, half-lives {lives}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--change", nargs="+", default=["real", "2x-at-once"], choices=CHANGES)
    parser.add_argument("--stage", choices=("development", "final"), default="development")
    parser.add_argument("--nodes", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every-hours", type=float, default=7.0)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = run(arguments)
    if arguments.json:
        json.dump(result, sys.stdout)
    else:
        show(result)


if __name__ == "__main__":
    main()
