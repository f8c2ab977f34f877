"""What a rebalance did and what it waits for, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from models.quantities import format_bytes, format_share
from pipelines.jobs import iso
from pipelines.scene import Objects
from placement.plan import Plan
from placement.problem import PlacementProblem
from placement.rebalance.fleet import US_PER_SECOND, recent_returns
from placement.rebalance.memory import Memory
from placement.rebalance.settings import RebalanceSettings

NAMED = 3
SHOWN = 20
"""Reasons and waits that are spelled out; the rest are counted."""


def waits(
    problem: PlacementProblem, plan: Plan, memory: Memory, networks: Objects, settings: RebalanceSettings
) -> list[str]:
    """What is not acted on yet, and why."""
    return [
        *_outages(problem, plan, memory, networks, settings),
        *_returns(memory, settings),
    ]


def _outages(
    problem: PlacementProblem, plan: Plan, memory: Memory, networks: Objects, settings: RebalanceSettings
) -> Iterator[str]:
    out = {away.source for away in memory.away if away.standing == "out"}
    is_out = np.array([source in out for source in problem.sources.source.tolist()], dtype=np.bool_)
    copies = np.bincount(plan.source, minlength=len(is_out))
    for outage in memory.outages:
        mine = is_out & (problem.sources.network == outage.network)
        until = iso(outage.since_us + round(settings.patience_seconds * US_PER_SECOND))
        yield (
            f"network {networks[outage.network]} is out since {iso(outage.since_us)}: its {int(mine.sum())} nodes keep "
            f"{int(copies[mine].sum())} copies, and count as failed from {until} on."
        )


def _returns(memory: Memory, settings: RebalanceSettings) -> Iterator[str]:
    """Sources that came back, those together that wait equally long."""
    together: dict[int, list[str]] = {}
    for back in recent_returns(memory, settings):
        left = back.rebalance + settings.remembered_rebalances - memory.rebalances - 1
        together.setdefault(left, []).append(back.source)
    for left, sources in sorted(together.items()):
        named = ", ".join(sources[:NAMED]) + (f" and {len(sources) - NAMED:,} more" if len(sources) > NAMED else "")
        wait = "the next rebalance pushes" if left == 1 else f"the next {left} rebalances push"
        yield f"{named} came back lately: {wait} nothing to {'it' if len(sources) == 1 else 'them'}."


def summary(manifest: dict[str, Any], *, dry_run: bool) -> str:
    """The new plan as people read it."""
    told = manifest["rebalance"]
    did = "would be" if dry_run else "is"
    before = f", {told['events_before']:,} answered before" if told["events_before"] else ""
    lines = [
        f"Plan {manifest['id']} {did} in force from {told['at']} after {told['of']} ({_events(told['events'])}{before}); "
        f"its window ends {told['window_ends']}.",
        f"Copies: {told['pushed']:,} gained, {told['dropped']:,} lost; {told['rerouted']:,} shares change. To move: "
        f"{format_bytes(manifest['bytes_to_move'])}{_budget(manifest)}; moved in the last 24 hours: "
        f"{format_bytes(told['moved_bytes_24_hours'])}.",
        f"Cost: {told['cost_before_millidollars']:,.1f} m$ before, {told['route_around_millidollars']:,.1f} m$ routed "
        f"around, {manifest['objective_millidollars']:,.1f} m$ with the moves. Bound "
        f"{manifest['bound_millidollars']:,.1f} m$, gap {format_share(manifest['gap'])}.",
        *_few("", told["reasons"]),
        *_few("Waits: ", told["waits"]),
    ]
    lines += _over(told)
    if manifest["status"] == "infeasible":
        lines.append(f"Infeasible: {manifest['reason']}")
    return "\n".join([*lines, *(f"Fallback: {reason}" for reason in manifest["reasons"])])


def nothing(plan: str, told: dict[str, Any]) -> str:
    """Why no plan was written."""
    before = told["events_before"]
    known = f"Answered before: {_events(before)}. Nothing new" if before else "Nothing"
    lines = [
        f"{known} has happened to plan {plan}: nothing to do.",
        f"Moved in the last 24 hours: {format_bytes(told['moved_bytes_24_hours'])}.",
    ]
    return "\n".join([*lines, *_few("Waits: ", told["waits"]), *_over(told)])


def _events(number: int) -> str:
    return "1 event" if number == 1 else f"{number:,} events"


def _over(told: dict[str, Any]) -> Iterator[str]:
    if told["at_us"] > told["window_ends_us"]:
        yield f"The plan's window is over since {told['window_ends']}: forecast and place anew."


def _budget(manifest: dict[str, Any]) -> str:
    budget = manifest["movement_budget_bytes"]
    return "" if budget is None else f" of {format_bytes(budget)} allowed"


def _few(head: str, sentences: list[str]) -> Iterator[str]:
    yield from (f"  - {head}{sentence}" for sentence in sentences[:SHOWN])
    if len(sentences) > SHOWN:
        yield f"  - {head}{len(sentences) - SHOWN:,} more, in the manifest."
