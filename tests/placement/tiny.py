"""Tiny placement problems that are easy to do by hand, and the brute force that solves them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from placement.copies import Copies
from placement.flows import best_flows, delivery_cost
from placement.instances import InstanceSettings, random_instance
from placement.problem import Demand, Float64, PlacementProblem, PlacementSettings, Segments, Sources
from placement.requirements import missing_requirements

GB = 10**9


def hand_problem(settings: PlacementSettings | None = None, **columns: Float64) -> PlacementProblem:
    """One location, two segments of 1 GB asked for 10 and 1 times, a POP and one node with room for both.

    The POP bills 20 m$/GB, the node's owner gets 4 m$/GB, waiting is free: a request moved from POP to node saves 16 m$.
    """
    sources = Sources(
        source=np.array(["pop", "node"], dtype=object),
        tier=np.array([1, 2], dtype=np.int8),
        location=np.zeros(2, np.int32),
        network=np.array([-1, 0], dtype=np.int32),
        storage_bytes=np.array([100 * GB, 2 * GB]),
        uplink_bytes=columns.get("uplink_bytes", np.array([np.inf, 100.0 * GB])),
        survival=columns.get("survival", np.ones(2)),
        egress_cost_per_gb=np.array([0.02, 0.0]),
        eligible=np.ones(2, np.bool_),
        lat=np.zeros(2),
        lon=np.zeros(2),
    )
    free_waiting = PlacementSettings(latency_millidollars_per_request_second=0.0, uplink_share_by_tier=(1.0, 1.0, 1.0))
    return PlacementProblem(
        segments=Segments(np.array(["a", "b"], dtype=object), np.zeros(2, np.int32), np.array([GB, GB])),
        locations=np.array(["here"], dtype=object),
        sources=sources,
        demand=Demand(np.array([0, 1], dtype=np.int32), np.zeros(2, np.int32), np.array([10.0, 1.0])),
        rtt_ms=np.array([[30.0, 10.0]], dtype=np.float32),
        reach=np.ones((1, 2), np.bool_),
        current_segment=np.zeros(0, np.int32),
        current_source=np.zeros(0, np.int32),
        settings=settings or free_waiting,
    )


def tiny_problem(seed: int, *, sure: bool = False, **options: object) -> PlacementProblem:
    """3 segments, 2 locations, 1 POP and 3 nodes: 512 sets of copies."""
    shape = InstanceSettings(
        segments=3, locations=2, nodes=3, pops=1, rows_per_segment=2.0, storage_share=0.6, movement_share=0.4
    )
    problem = random_instance(shape, seed=seed)
    chosen = PlacementSettings(**{**vars(problem.settings), "relative_gap": 1e-6, **options})
    sources = replace(problem.sources, survival=np.ones(4)) if sure else problem.sources
    return replace(problem, settings=chosen, sources=sources)


def cost_of(problem: PlacementProblem, copies: Copies) -> float:
    flows = best_flows(problem, copies.segment, copies.source)
    is_new = ~problem.is_current(copies.segment, copies.source)
    push = (problem.segments.bytes[copies.segment] * problem.push_price[copies.source])[is_new].sum()
    missing = int(missing_requirements(problem, copies).sum())
    return delivery_cost(problem, flows) + float(push) + missing * problem.fallback_price


def brute_force(problem: PlacementProblem) -> float:
    """The cheapest of all sets of copies that keep the hard limits."""
    pairs = [(s, n) for s in range(len(problem.segments)) for n in np.flatnonzero(~problem.is_pop).tolist()]
    best = np.inf
    for held in product([False, True], repeat=len(pairs)):
        chosen = np.array([pair for pair, kept in zip(pairs, held, strict=True) if kept], dtype=np.int32).reshape(-1, 2)
        copies = Copies(chosen[:, 0], chosen[:, 1])
        if keeps_hard_limits(problem, copies):
            best = min(best, cost_of(problem, copies))
    return best


def keeps_hard_limits(problem: PlacementProblem, copies: Copies) -> bool:
    sizes = problem.segments.bytes[copies.segment]
    used = np.bincount(copies.source, weights=sizes, minlength=len(problem.sources))
    is_new = ~problem.is_current(copies.segment, copies.source)
    pushed, networks = sizes[is_new].sum(), problem.sources.network[copies.source[is_new]]
    into = np.bincount(networks[networks >= 0], weights=sizes[is_new][networks >= 0].astype(np.float64))
    per_network = problem.settings.movement_budget_bytes_per_network
    per_location = problem.settings.movement_budget_bytes_per_location
    there = np.where(problem.is_pop, -1, problem.sources.location)[copies.source[is_new]]
    at_place = np.bincount(there[there >= 0], weights=sizes[is_new][there >= 0].astype(np.float64))
    domains = copies.segment * 1000 + problem.sources.network[copies.source]
    crowded = np.unique(domains, return_counts=True)[1].max(initial=0) > problem.settings.max_copies_per_network
    banned = not problem.sources.eligible[copies.source].all()
    return bool(
        (used <= problem.storage_limit_bytes).all()
        and (pushed <= problem.movement_limit_bytes)
        and into.max(initial=0) <= (np.inf if per_network is None else per_network)
        and at_place.max(initial=0) <= (np.inf if per_location is None else per_location)
        and not crowded
        and not banned
    )
