"""Results of a churn model in words, so that a review and a run report say the same in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.churn.track import ChurnTrack
from models.compared import Compared
from models.quantities import NO_BREAK_SPACE, format_number

SPOKEN_STAY = 0.8
"""Chance to stay that the sentence on reliability speaks of: that of the bin nearest to it."""


LEGEND = (
    "The line is the forecast, a dot what was observed with its 95 % interval over nodes, a ring a dot whose interval "
    "does not hold the forecast."
)

TELEMETRY_LIMIT = (
    "No public data set holds telemetry together with when its devices were on and off: where telemetry is modelled, a "
    "gain from it shows that the model finds such an effect, not how large the effect is."
)


def survival_sentence(track: ChurnTrack) -> str:
    """`Of nodes that were up, 82 % were expected to stay 4 h and 80 % [78, 82] did. ...`, of the middle edge."""
    fleet, edge = track.groups[0].stay, track.middle
    if not fleet.known[edge]:
        return "Nothing could be observed: every node was lost from sight before the edges."
    hours = hours_text(track.edges_hours[edge])
    return (
        f"Of nodes that were up, {forecast_text(fleet, edge)} were expected to stay {hours} and "
        f"{observed_text(fleet, edge)} did. {inside_text(fleet, 'edge')}"
    )


def stay_sentence(track: ChurnTrack) -> str:
    """`Of nodes forecast to stay 4 h with 80 %, 78 % [75, 81] did.`, of the bin whose forecast is nearest to 80 %."""
    stay = track.reliability[track.middle].complement()
    if not stay.known.any():
        return "Nothing could be observed at the middle edge."
    gap = np.where(stay.known, np.abs(stay.forecast - SPOKEN_STAY), np.inf)
    nearest = int(np.argmin(gap))
    hours = hours_text(track.edges_hours[track.middle])
    return (
        f"Of nodes forecast to stay {hours} with {forecast_text(stay, nearest)}, {observed_text(stay, nearest)} did. "
        f"{inside_text(stay, 'bin')}"
    )


def inside_text(points: Compared, noun: str) -> str:
    known = int(points.known.sum())
    if not known:
        return "Nothing could be observed."
    return f"The interval holds the forecast at {int(points.inside.sum())} of {counted(known, noun)}."


def observed_text(points: Compared, index: int) -> str:
    """`78 % [75, 81]`."""
    digits = _digits(points, index)
    low, high = (format_number(100 * ends[index], digits) for ends in (points.low, points.high))
    return f"{_per_cent(points.observed[index], digits)} [{low},{NO_BREAK_SPACE}{high}]"


def forecast_text(points: Compared, index: int) -> str:
    """`80 %`, with the decimals of what was observed."""
    return _per_cent(points.forecast[index], _digits(points, index))


def _per_cent(share: float, digits: int) -> str:
    return format_number(100 * share, digits) + NO_BREAK_SPACE + "%"


def _digits(points: Compared, index: int) -> int:
    """More decimals where whole per cents would hide what matters: next to 0 and to 1."""
    shares = (points.forecast[index], points.observed[index])
    nearest = min(min(abs(v), abs(1.0 - v)) for v in shares)
    return 0 if nearest >= 0.1 else 1 if nearest >= 0.01 else 2


def hours_text(hours: float) -> str:
    """`15 min`, `4 h`, `2 d`."""
    if hours < 1.0:
        return f"{format_number(60 * hours)}{NO_BREAK_SPACE}min"
    return f"{format_number(hours, 0 if float(hours).is_integer() else 1)}{NO_BREAK_SPACE}h"


def counted(number: int, noun: str) -> str:
    return f"{format_number(number)} {noun}{'' if number == 1 else 's'}"


def data_facts(world: Mapping[str, Any] | None, *, telemetry: bool) -> tuple[str, ...]:
    """Which of the data that churn reads were measured and which follow a rule; a gap in that is said.

    Args:
        world: what `world.json` says; None where the tables come from no built world.
        telemetry: whether there is a table of it.
    """
    facts = [_sorts(world, "availability", "Sessions")]
    if telemetry:
        facts.append(f"{_sorts(world, 'telemetry', 'Telemetry')} {TELEMETRY_LIMIT}")
    else:
        facts.append("There is no telemetry: the forecasts rest on when devices were on and off alone.")
    return tuple(facts)


def _sorts(world: Mapping[str, Any] | None, table: str, words: str) -> str:
    """`Sessions: measured (start, end); modelled (censored).`"""
    if world is None:
        return f"{words}: as ingested; the tables do not say what was measured (they have no world.json)."
    parts = []
    for sort in ("measured", "modelled"):
        columns = [name.partition(".")[2] or name for name in map(str, world.get(sort, ())) if _is_of(name, table)]
        parts += [f"{sort} ({', '.join(columns)})"] if columns else []
    return f"{words}: {'; '.join(parts)} by world.json." if parts else f"{words}: not listed in world.json."


def _is_of(name: str, table: str) -> bool:
    return name == table or name.startswith((f"{table}.", f"{table} "))
