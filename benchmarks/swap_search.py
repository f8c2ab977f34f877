"""Local search over swaps: at one node, exchange a copy for another segment, as long as the cost falls.

Node n serves what is best for it while all others' flows stay: with u_k = min(p_n, 1 - others_k, covered_k - others_k),
arcs k of its held segments H and its uplink U,

    V(H) = max sum_k r_k save_kn x_k   with   x_k <= u_k,  sum_k bytes_k x_k <= U,

a fractional knapsack. Dropping `out` and taking `in` is accepted when V(H - out + in) - V(H) exceeds what pushes cost more,
which is the exact change in cost of the flows in hand. With the knapsack's own price mu per byte,

    V(H - out + in) - V(H) <= sum_in r_k u_k (save_k - mu q)^+ - sum_out r_k u_k (save_k - mu q)^+,

so that swaps are looked at best bound first and the rest of the neighbourhood is skipped without loss. Taking without
dropping and dropping without taking are swaps, too. Limited by knapsacks solved. For instances whose POPs hold
everything and never fail: no swap can then miss a requirement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.swap_kernel import State, World, put_flows, sweep
from placement.copies import Copies
from placement.flows import best_flows
from placement.problem import PlacementProblem


@dataclass(frozen=True)
class SwapSettings:
    """How far the search goes."""

    evaluations: int = 5_000_000
    """Most knapsacks solved."""
    evaluations_per_node: int = 2_000
    """Most of them for one swap at one node."""
    sweeps: int = 20


@dataclass(frozen=True)
class SwapReport:
    """Copies after the search, accepted swaps, knapsacks solved, and what was saved by its own account, in m$."""

    copies: Copies
    swaps: int
    evaluations: int
    saved: float


def search_swaps(problem: PlacementProblem, start: Copies, settings: SwapSettings | None = None) -> SwapReport:
    """Improves `start` by swaps, node after node, until a sweep finds none or the work is spent."""
    chosen = settings or SwapSettings()
    if not problem.standing.any():
        raise ValueError("Expected POPs that hold everything: the search does not see requirements.")
    world = _world(problem)
    state = _state(problem, world, start)
    counts, saved = np.zeros(2, np.int64), np.zeros(1)
    limits = (chosen.evaluations, chosen.evaluations_per_node)
    for _ in range(chosen.sweeps):
        before = counts[0]
        sweep(world, state, counts, saved, limits)
        if counts[0] == before or counts[1] >= chosen.evaluations:
            break
    source, slot = np.nonzero(state.held >= 0)
    copies = Copies.sorted(state.held[source, slot].astype(np.int32), source.astype(np.int32))
    return SwapReport(copies, int(counts[0]), int(counts[1]), float(saved[0]))


def _world(problem: PlacementProblem) -> World:
    demand, n_sources = problem.demand, len(problem.sources)
    order = np.lexsort((demand.location, demand.segment))
    order = order[demand.requests[order] > 0]
    segment, location = demand.segment[order].astype(np.int64), demand.location[order].astype(np.int64)
    place_rows = np.argsort(location, kind="stable")
    base = problem.origin_price[order]
    for pop in np.flatnonzero(problem.standing):
        price = problem.serving_price(order, np.full(len(order), pop, np.int32))
        base = np.where(problem.can_serve[location, pop], np.minimum(base, price), base)
    node, reached = np.nonzero(problem.can_serve.T & ~problem.is_pop[:, None])
    domains, domain = np.unique(problem.domain, return_inverse=True)
    members = np.argsort(domain, kind="stable")
    by_source = np.lexsort((problem.current_segment, problem.current_source))
    return World(
        row_start=np.searchsorted(segment, np.arange(len(problem.segments) + 1)),
        location=location,
        segment=segment,
        requests=demand.requests[order],
        base=base,
        size=problem.segments.bytes.astype(np.float64),
        place_start=np.searchsorted(location[place_rows], np.arange(len(problem.locations) + 1)),
        place_rows=place_rows,
        reach_start=np.searchsorted(node, np.arange(n_sources + 1)),
        reach=np.ascontiguousarray(reached),  # a column of nonzero's matrix otherwise, which compiles anew
        request_price=problem.request_price,
        byte_price=problem.byte_price,
        push_price=problem.push_price,
        survival=np.minimum(problem.sources.survival, 1 - 1e-9),
        uplink=problem.usable_uplink_bytes,
        member_start=np.searchsorted(domain[members], np.arange(len(domains) + 1)),
        members=members,
        domain=domain,
        current_start=np.searchsorted(problem.current_source[by_source], np.arange(n_sources + 1)),
        current=problem.current_segment[by_source].astype(np.int64),
        cap=problem.settings.max_copies_per_network,
    )


def _state(problem: PlacementProblem, world: World, start: Copies) -> State:
    n_sources = len(problem.sources)
    room = problem.storage_limit_bytes / world.size.min()
    slots = int(min(len(world.size), room[~problem.is_pop].max()))
    held = np.full((n_sources, slots), -1)
    used = np.zeros(n_sources, np.int64)
    for s, n in zip(start.segment.tolist(), start.source.tolist(), strict=True):
        held[n, used[n]] = s
        used[n] += 1
    width = int(np.diff(world.reach_start).max())
    is_new = ~problem.is_current(start.segment, start.source)
    moved = float(problem.segments.bytes[start.segment[is_new]].sum())
    spare = problem.storage_limit_bytes - np.bincount(
        start.source, weights=world.size[start.segment], minlength=n_sources
    )
    n_rows = len(world.location)
    empty = np.zeros((n_sources, slots, width)), np.zeros(n_rows), np.zeros(n_rows)
    state = State(held, *empty, spare, np.array([problem.movement_limit_bytes - moved]))
    flows = best_flows(problem, start.segment, start.source)
    mesh = ~problem.is_pop[flows.source]
    demand = problem.demand
    keys = demand.segment[flows.row[mesh]].astype(np.int64) * len(problem.locations) + demand.location[flows.row[mesh]]
    rows = np.searchsorted(world.segment * len(problem.locations) + world.location, keys)
    put_flows(world, state, rows, flows.source[mesh], flows.share[mesh])
    return state
