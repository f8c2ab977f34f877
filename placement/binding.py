"""The limits that bind, in words, and what a little more of each would save.

    saving of 1 GB more  =  10^9 x price,    price of a place  =  sum_n limit_n price_n / sum_n limit_n

over the sources n of the place, as if the GB were shared out as the present room is. The prices are those that prove the
lower bound: marginal, of a relaxation, and so an estimate. A place is named only where the plan itself has used up the
limit of a source there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from placement.bound import Prices
from placement.copies import Copies, movement_left, spare_storage
from placement.flows import Flows
from placement.margins import limits_with_margin
from placement.problem import BYTES_PER_GB, Bool, Float64, PlacementProblem
from placement.requirements import missing_requirements

PLACES_NAMED = 3
"""Most valuable locations that are named for one limit."""
WORTH_NAMING = 0.01
"""A place is named when its price is at least this share of the dearest place's."""
BUSY_SHARE = 0.999
"""Share of the usable uplink from which a source has none left."""


def binding_sentences(
    problem: PlacementProblem, copies: Copies, flows: Flows, prices: Prices | None = None
) -> tuple[str, ...]:
    """Sentences about the limits with less room left than an ordinary segment needs, dearest places first."""
    sentences = [*_movement(problem, copies, prices), *_storage(problem, copies, prices)]
    sentences += [*_uplink(problem, flows, prices), *_left_out(problem, copies)]
    return tuple(sentences)


def sent_bytes(problem: PlacementProblem, flows: Flows) -> Float64:
    """Bytes that each source is expected to send, (N,)."""
    sent = problem.demand_segment_bytes[flows.row] * problem.demand.requests[flows.row] * flows.share
    return np.asarray(np.bincount(flows.source, weights=sent, minlength=len(problem.sources)), dtype=np.float64)


def _movement(problem: PlacementProblem, copies: Copies, prices: Prices | None) -> Iterator[str]:
    left, budget = movement_left(problem, copies), problem.movement_limit_bytes
    settings, slots = problem.settings, problem.movement_slots[problem.sources.eligible]
    for places, at, limit in (
        ("networks", 1, settings.movement_budget_bytes_per_network),
        ("locations", 2, settings.movement_budget_bytes_per_location),
    ):
        there = np.unique(slots[:, at])
        there = there[there < len(left) - 1]
        spent = int((left[there] < _ordinary_bytes(problem)).sum())
        if spent:
            yield f"Movement: {spent} of {len(there)} {places} have no room left in their {limit} bytes."
    if left[0] >= _ordinary_bytes(problem):
        return
    yield f"Movement: {budget - left[0]:.0f} of {budget:.0f} bytes are used."
    if prices is not None and prices.movement > 0:
        saved = money(prices.movement * BYTES_PER_GB)
        yield f"Movement binds: 1 GB more would save about {saved} over the horizon."


def _storage(problem: PlacementProblem, copies: Copies, prices: Prices | None) -> Iterator[str]:
    holding = problem.sources.eligible & ~problem.standing
    full = holding & (spare_storage(problem, copies) < _ordinary_bytes(problem))
    nodes = holding & ~problem.is_pop
    if (full & nodes).any():
        yield f"Storage: {int((full & nodes).sum())} of {int(nodes.sum())} nodes are full."
    if prices is not None:
        limit = np.where(holding, problem.storage_limit_bytes, 0.0)
        for place, saved in _dearest_places(problem, prices.storage, limit, full):
            yield f"Storage in {place} binds: 1 GB more saves about {saved} over the horizon."


def _uplink(problem: PlacementProblem, flows: Flows, prices: Prices | None) -> Iterator[str]:
    load, usable = sent_bytes(problem, flows), limits_with_margin(problem, flows.row, flows.source, flows.share)
    busy = problem.sources.eligible & (load > BUSY_SHARE * usable) & (load > 0)
    if busy.any():
        yield f"Uplink: {int(busy.sum())} of {int(problem.sources.eligible.sum())} sources have none left."
    if (usable < problem.usable_uplink_bytes).any():
        tight, quantile = int((usable < problem.usable_uplink_bytes).sum()), problem.settings.uplink_quantile
        yield f"Uplink: {tight} sources keep room for their load to suffice with probability {quantile:g}."
    if prices is not None:
        limit = np.where(problem.sources.eligible & np.isfinite(usable), usable, 0.0)
        for place, saved in _dearest_places(problem, prices.uplink, limit, busy):
            yield f"Uplink in {place} binds: 1 GB more to send saves about {saved} over the horizon."


def _left_out(problem: PlacementProblem, copies: Copies) -> Iterator[str]:
    large = int(problem.unplaceable.sum())
    if large:
        yield f"Storage: {large} segments are larger than the room of every eligible node and stay on tier 1."
    missing = int(missing_requirements(problem, copies).sum())
    if missing:
        yield f"Requirements: {missing} segments fall back to the origin."


def _dearest_places(
    problem: PlacementProblem, price: Float64, limit: Float64, used_up: Bool
) -> Iterator[tuple[str, str]]:
    """Names and savings of the dearest places with a source whose limit is used up."""
    places = np.where(problem.sources.location >= 0, problem.sources.location, len(problem.locations))
    size = len(problem.locations) + 1
    room = np.bincount(places, weights=limit, minlength=size)
    value = np.bincount(places, weights=limit * price, minlength=size) / np.maximum(room, 1.0)
    value = np.where(np.bincount(places, weights=used_up, minlength=size) > 0, value, 0.0)
    names = [*map(str, problem.locations), "no location"]
    for at in np.argsort(-value, kind="stable")[:PLACES_NAMED].tolist():
        if value[at] > WORTH_NAMING * value.max():
            yield names[at], money(float(value[at]) * BYTES_PER_GB)


def _ordinary_bytes(problem: PlacementProblem) -> float:
    """Size of the mean segment; 0 without segments, so that nothing binds."""
    sizes = problem.segments.bytes
    return max(1.0, float(sizes.mean())) if len(sizes) else 0.0


def money(millidollars: float) -> str:
    """Two significant digits: an estimate must not look like a measurement."""
    digits = 1 - int(np.floor(np.log10(max(millidollars, 1e-9))))
    return f"{round(millidollars, digits):,.{max(0, digits)}f} m$"
