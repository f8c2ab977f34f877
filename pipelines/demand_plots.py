"""The pictures of a demand review: what the candidate forecast, whether its laws fit, where it errs, what it learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.bar_tables import BarRow, bar_table
from models.charts import ReliabilityPoint, reliability, reliability_sentence
from models.demand.prior import DemandPrior, prior_column_names
from models.demand.track import DemandTrack, SeriesTrack
from models.events import HOUR_US, Float64
from models.panels import Panel, panels
from models.quantities import NO_BREAK_SPACE, clean_text, format_count, format_number
from models.time_charts import BandSeries, line_with_band, outside_sentence
from pipelines.forecast_track import band
from pipelines.pictures import WIDTH, Picture, Pictures

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
ERROR_METRIC = "scaled_pinball"
STRATA = ("all", "head", "torso", "tail", "new content", "new cell")
"""Those that every comparison has, in the order in which they are shown; further ones follow."""
ROLES = {
    "busiest": "Busiest cell",
    "new": "Busiest cell of a new content",
    "middle": "Cell in the middle: half of the requests go to busier ones",
    "total": "All requests of the busiest location",
}
_LONGEST_NAME = 40
_PRIOR_WORDS = {
    "own": "own cell",
    "content": "content × share of the place",
    "affinity": "content × its own share there",
    "flow:cell": "sessions under way, to this cell",
    "flow:content": "sessions under way × share",
}


def demand_pictures(
    title: str,
    followed: DemandTrack,
    prior: DemandPrior,
    rows: Sequence[Mapping[str, Any]],
    *,
    opponent: str,
    ours: str,
) -> Pictures:
    """Draws a review.

    Args:
        title: of the page.
        followed: the candidate over the test window.
        prior: the candidate's.
        rows: metrics of the whole window, one row a (horizon, model, stratum).
        opponent: what it is compared with, as the rows call it.
        ours: what the rows call the candidate.
    """
    drawn = [forecast_picture(followed), laws_picture(followed.positions)]
    errors = errors_picture(rows, opponent=opponent, ours=ours)
    return Pictures(title, tuple(p for p in (*drawn, errors, prior_picture(prior)) if p is not None))


def forecast_picture(followed: DemandTrack) -> Picture:
    """Forecast, interval and outcome of the chosen cells and of one total."""
    start_us, step_us = followed.start_us, followed.step_hours * HOUR_US
    parts = [_series_panel(cell, _cell_band(cell, start_us, step_us)) for cell in followed.cells]
    parts.append(_series_panel(followed.total, _total_band(followed.total, start_us, step_us)))
    known = [p for p in parts if p is not None]
    sentence = (
        f"The blue line is expected, the band holds 80{NO_BREAK_SPACE}% by the forecast, dots are what came, rings lie "
        "outside the band. The band of a total comes from its errors of the day before."
    )
    length = f"{followed.step_hours}{NO_BREAK_SPACE}h ahead"
    return Picture(
        "forecast",
        f"Forecast and outcome, {length}",
        sentence,
        panels(known, width=WIDTH, label="Forecast and outcome."),
    )


def _series_panel(series: SeriesTrack, shown: BandSeries | None) -> Panel | None:
    if shown is None:
        return None
    where = " in ".join(_short(name) for name in (series.content, series.location) if name)
    title = f"{ROLES[series.role]}: {where}"
    drawing = line_with_band(shown, width=WIDTH, unit="requests", label=title, height=150)
    return Panel(title, outside_sentence(shown.misses, shown.known), drawing)


def _cell_band(series: SeriesTrack, start_us: int, step_us: int) -> BandSeries | None:
    """Where the cell was not forecast, 0 was expected of it; such a bin counts only if something came."""
    unknown = ~np.isfinite(series.mean)
    if unknown.all():
        return None
    mean, low, high = (_floats(np.nan_to_num(v)) for v in (series.mean, series.low, series.high))
    actual = np.where(unknown & (series.actual == 0), np.nan, series.actual)
    return BandSeries(start_us, mean, low, high, _floats(actual), step_us)


def _total_band(series: SeriesTrack, start_us: int, step_us: int) -> BandSeries:
    # A bin that was not observed teaches nothing: it counts as forecast right.
    shown = band(start_us, series.mean, np.where(np.isfinite(series.actual), series.actual, series.mean))
    return BandSeries(start_us, shown.mean, shown.low, shown.high, _floats(series.actual), step_us)


def laws_picture(positions: Mapping[int, Float64]) -> Picture | None:
    """Share of outcomes at or below each forecast quantile, by horizon; randomised within the jumps of the counts."""
    seen = {hours: at for hours, at in positions.items() if len(at)}
    if not seen:
        return None
    columns = max(2, min(3, len(seen)))
    width = (WIDTH - 18 * (columns - 1)) / columns
    parts = []
    for hours, at in seen.items():
        points = [ReliabilityPoint(level, float((at <= level).mean()), len(at)) for level in LEVELS]
        inside = float(((at >= 0.1) & (at <= 0.9)).mean())
        axes = {"horizontal": "quantile of the forecast", "vertical": "outcomes at or below it"}

        drawing = reliability(points, width=width, label=f"{hours} h", radius=4.0, **axes)
        sentence = (
            f"{reliability_sentence(points)} {_per_cent(inside)} inside the 80{NO_BREAK_SPACE}% interval.".replace(
                "stated and observed", "Forecast and outcome"
            )
        )
        parts.append(Panel(f"{hours}{NO_BREAK_SPACE}h, {format_count(len(at))} outcomes", sentence, drawing))
    sentence = (
        "On the diagonal the forecast's probabilities are honest; above it, forecasts are too high, below it, too low; "
        "an S that is flat in the middle means that intervals are too narrow. Cells that expect at least half a request."
    )
    drawing = panels(parts, width=WIDTH, columns=columns, label="Reliability of quantiles by horizon.")
    return Picture("quantiles", "Are the probabilities honest?", sentence, drawing)


def errors_picture(rows: Sequence[Mapping[str, Any]], *, opponent: str, ours: str) -> Picture | None:
    """Error of candidate and opponent by stratum and horizon; strata without this error are left out."""
    found = {
        (row["stratum"], row["horizon_hours"], row["model"]): row.get(ERROR_METRIC)
        for row in rows
        if row["model"] in (ours, opponent)
    }
    horizons = sorted({hours for _, hours, _ in found})
    names = [s for s in STRATA if any(key[0] == s for key in found)]
    names += sorted({stratum for stratum, _, _ in found} - set(STRATA))
    table = [
        BarRow(_short(name), tuple((found.get((name, h, ours)), found.get((name, h, opponent))) for h in horizons))
        for name in names
    ]
    table = [row for row in table if any(v is not None for case in row.values for v in case)]
    if not table:
        return None
    lost = [
        f"{name} at {h}{NO_BREAK_SPACE}h"
        for name in names
        for h in horizons
        if (found.get((name, h, ours)) or 0.0) > (found.get((name, h, opponent)) or np.inf)
    ]
    result = (
        f"The candidate errs more than {opponent} in: {', '.join(lost)}." if lost else f"Nowhere more than {opponent}."
    )
    sentence = f"Scaled pinball loss, smaller is better. {result}"
    drawing = bar_table(
        table,
        [f"{h}{NO_BREAK_SPACE}h" for h in horizons],
        series=("candidate", _short(opponent)),
        width=WIDTH,
        label=f"Error by stratum. {sentence}",
        write=lambda v: format_number(v, 3),
    )
    return Picture("errors", f"Error by stratum, beside {_short(opponent)}", sentence, drawing)


def prior_picture(prior: DemandPrior) -> Picture:
    """What each term of the prior contributes, by horizon."""
    names = prior_column_names(prior.half_lives_hours)
    rows = [
        BarRow(_term_words(name), tuple((float(value),) for value in prior.coefficients[:, index]))
        for index, name in enumerate(names)
    ]
    sentence = (
        "Each bar is the weight of one estimate of the coming demand; a rate is decayed with the half-life named."
    )
    drawing = bar_table(
        rows,
        [f"{hours}{NO_BREAK_SPACE}h" for hours in prior.horizons_hours],
        series=("weight",),
        width=WIDTH,
        label=f"Weights of the prior. {sentence}",
        write=lambda v: format_number(v, 2 if v else 0),
    )
    return Picture("prior", "What the prior has learnt", sentence, drawing)


def _term_words(name: str) -> str:
    """`own:0.5h` reads `own cell, 0.5 h`; a term without words keeps its name."""
    if name in _PRIOR_WORDS:
        return _PRIOR_WORDS[name]
    part, _, detail = name.partition(":")
    words = _PRIOR_WORDS.get(part, part)
    hours = f"{detail[:-1]}{NO_BREAK_SPACE}h" if detail.endswith("h") else detail
    return f"{words}, {hours}" if detail else words


def _short(name: str) -> str:
    text = clean_text(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _per_cent(share: float) -> str:
    return f"{format_number(100 * share)}{NO_BREAK_SPACE}%"


def _floats(values: Float64) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
