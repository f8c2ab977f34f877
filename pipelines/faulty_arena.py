"""An arena after its faults: what truly happens is changed for every row, what models see as far as they would notice.

    slow nodes       the world's uplinks; no model and no router is told
    absences         the world's up-intervals, and sessions and heartbeats: monitoring notices them
    lying monitor    sessions and what the router believes; the world stays as it is
    flash crowd      the requests and the log
    no log           the log alone

Faults are applied in the order of the run, those of what is seen after those of what happens. Each draws from the run's
seed and its own place in the list, so that a fault more at the end leaves the others as they were; draws of two faults
are independent, and may name the same node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from models.events import HOUR_US
from pipelines.arena import Arena
from pipelines.config import ReplayRun, microseconds
from pipelines.errors import InputError
from pipelines.faults import (
    AnyFault,
    DeadNodes,
    FlashCrowd,
    LyingMonitor,
    MassDeparture,
    NetworkCut,
    NoLog,
    SlowNodes,
)
from pipelines.faulty_demand import MINUTE_US, Crowd, asked_the_day_before, unasked, with_crowd, without_log
from pipelines.faulty_history import with_absence, with_presence
from pipelines.scene import Int64
from placement.uplinks import UplinkSchedule

EXAMPLES = 3
"""Ids that a message names of those that would have done."""


def with_faults(arena: Arena, run: ReplayRun) -> Arena:
    """The arena after the run's faults.

    Raises:
        InputError: a sentence for every fault that names what the tables lack.
    """
    mistakes = [mistake for at, fault in enumerate(run.faults) for mistake in _mistakes(arena, fault, f"faults.{at}")]
    if mistakes:
        raise InputError.listing("the faults", mistakes)
    in_order = sorted(enumerate(run.faults), key=lambda pair: isinstance(pair[1], LyingMonitor | NoLog))
    for at, fault in in_order:
        arena = _after(arena, fault, run, np.random.default_rng([run.seed, at]))
    return arena


def _mistakes(arena: Arena, fault: AnyFault, path: str) -> Iterator[str]:
    if isinstance(fault, NetworkCut) and fault.network:
        yield from _unknown(fault.network, arena.scene.networks.tolist(), f"{path}.network", "network")
    if isinstance(fault, FlashCrowd):
        if fault.location:
            yield from _unknown(fault.location, arena.scene.locations.tolist(), f"{path}.location", "location")
        start_us = microseconds(fault.start)
        asked = len(asked_the_day_before(arena.log, start_us))
        if asked < max(fault.rank, 1):
            yield f"{path}.rank: {fault.rank} asks for more contents than the {asked} of the day before; lower it."
        if fault.rank == 0 and len(unasked(arena, start_us)) == 0:
            yield f"{path}.rank: 0 asks for a new content, but all had been asked for before; give a rank from 1 on."


def _unknown(wanted: str, known: list[str], path: str, what: str) -> Iterator[str]:
    if wanted not in known:
        some = ", ".join(repr(str(name)) for name in sorted(known)[:EXAMPLES])
        yield f"{path}: the tables have no {what} {wanted!r}; they have {len(known)}, such as {some}."


def _after(arena: Arena, fault: AnyFault, run: ReplayRun, rng: np.random.Generator) -> Arena:
    scene, start_us = arena.scene, microseconds(fault.start)
    nodes = np.arange(scene.n_pops, len(scene.source), dtype=np.int64)
    match fault:
        case SlowNodes():
            slow = _drawn(nodes, fault.share, rng)
            return _slowed(arena, slow, fault.factor, start_us, microseconds(fault.end))
        case DeadNodes():
            return _absent(arena, _drawn(nodes, fault.share, rng), start_us, microseconds(fault.end))
        case NetworkCut():
            return _absent(arena, _network(arena, fault.network), start_us, start_us + round(fault.minutes * MINUTE_US))
        case MassDeparture():
            up = nodes[arena.world.uptime.up_us(start_us, start_us + 1)[nodes] > 0]
            return _absent(arena, _drawn(up, fault.share, rng), start_us, start_us + round(fault.hours * HOUR_US))
        case LyingMonitor():
            order = _drawn(nodes, fault.up_share + fault.down_share, rng)
            n_up = min(round(fault.up_share * len(nodes)), len(order))
            return _misseen(arena, order[:n_up], order[n_up:], start_us, microseconds(fault.end))
        case FlashCrowd():
            place = int(scene.location_codes(np.array([fault.location], dtype=object))[0]) if fault.location else -1
            crowd = Crowd(start_us, start_us + round(fault.minutes * MINUTE_US), fault.factor, fault.rank, place)
            return with_crowd(arena, crowd, segment_seconds=run.segment_seconds, rng=rng)
        case NoLog():
            return without_log(arena, start_us, microseconds(fault.end))


def _drawn(nodes: Int64, share: float, rng: np.random.Generator) -> Int64:
    return rng.permutation(nodes)[: round(share * len(nodes))]


def _network(arena: Arena, network: str) -> Int64:
    """Nodes of a network; of the one with most of them where it has no name."""
    codes = arena.scene.network
    if network:
        code = int(np.flatnonzero(arena.scene.networks == network)[0])
    else:
        code = int(np.argmax(np.bincount(codes[codes >= 0])))
    return np.flatnonzero(codes == code).astype(np.int64)


def _slowed(arena: Arena, nodes: Int64, factor: float, start_us: int, end_us: int) -> Arena:
    world = arena.world
    uplinks = UplinkSchedule.constant(world.n_sources) if world.uplinks is None else world.uplinks
    return replace(arena, world=replace(world, uplinks=uplinks.slowed(nodes, factor, start_us, end_us)))


def _absent(arena: Arena, nodes: Int64, start_us: int, end_us: int) -> Arena:
    world = replace(arena.world, uptime=arena.world.uptime.without(nodes, start_us, end_us))
    return replace(arena, world=world, history=with_absence(arena.history, _rows(arena, nodes), start_us, end_us))


def _misseen(arena: Arena, up: Int64, down: Int64, start_us: int, end_us: int) -> Arena:
    """Monitoring sees some nodes up and others down, whatever they do."""
    believed = arena.world.monitored.including(up, start_us, end_us).without(down, start_us, end_us)
    history = with_presence(arena.history, _rows(arena, up), start_us, end_us)
    history = with_absence(history, _rows(arena, down), start_us, end_us)
    return replace(arena, world=replace(arena.world, believed=believed), history=history)


def _rows(arena: Arena, nodes: Int64) -> Int64:
    """Positions of nodes in the session history."""
    return arena.history.index_of(arena.scene.source[nodes])
