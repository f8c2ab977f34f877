"""Tiny worlds for the rebalance, easy to do by hand, and random events for small random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from placement.copies import keep_current
from placement.flows import best_flows
from placement.instances import InstanceSettings, random_instance
from placement.plan import Plan
from placement.problem import Demand, PlacementProblem, PlacementSettings, Segments, Sources
from placement.publish import Incumbent, cost_of, judged, published
from placement.rebalance.events import (
    ContentExpired,
    Event,
    NetworkOutage,
    NodeDraining,
    NodeFailed,
    NodeJoined,
    NodeOverloaded,
    OutageEnded,
    SurvivalChanged,
)

GB = 10**9
BUSY = InstanceSettings(segments=60, locations=4, nodes=16, pops=2)


def hand_world(
    held: Sequence[tuple[str, str]], *, networks: Sequence[int] = (0, 1), room_gb: int = 2, budget: int | None = None
) -> tuple[PlacementProblem, Plan]:
    """A POP and nodes n0, n1, ...; segments a and b of 1 GB, asked for 10 and 1 times from one location.

    The POP bills 20 m$/GB, nodes get 4 m$/GB, waiting is free: a request moved from POP to node saves 16 m$, and a push
    costs 20 m$.
    """
    n = 1 + len(networks)
    names = ["pop", *(f"n{at}" for at in range(len(networks)))]
    sources = Sources(
        source=np.array(names, dtype=object),
        tier=np.array([1] + [2] * (n - 1), dtype=np.int8),
        location=np.zeros(n, np.int32),
        network=np.array([-1, *networks], dtype=np.int32),
        storage_bytes=np.array([100 * GB] + [room_gb * GB] * (n - 1)),
        uplink_bytes=np.array([np.inf] + [100.0 * GB] * (n - 1)),
        survival=np.ones(n),
        egress_cost_per_gb=np.array([0.02] + [0.0] * (n - 1)),
        eligible=np.ones(n, np.bool_),
        lat=np.zeros(n),
        lon=np.zeros(n),
    )
    pairs = sorted(("ab".index(segment), names.index(source)) for segment, source in held)
    copies = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    problem = PlacementProblem(
        segments=Segments(np.array(["a", "b"], dtype=object), np.zeros(2, np.int32), np.array([GB, GB])),
        locations=np.array(["here"], dtype=object),
        sources=sources,
        demand=Demand(np.array([0, 1], dtype=np.int32), np.zeros(2, np.int32), np.array([10.0, 1.0])),
        rtt_ms=np.full((1, n), 10.0, dtype=np.float32),
        reach=np.ones((1, n), np.bool_),
        current_segment=copies[:, 0],
        current_source=copies[:, 1],
        settings=PlacementSettings(
            latency_millidollars_per_request_second=0.0,
            uplink_share_by_tier=(1.0, 1.0, 1.0),
            movement_budget_bytes=budget,
        ),
    )
    return problem, plan_of(problem)


def busy_world(seed: int) -> tuple[PlacementProblem, Plan]:
    """A random instance of 16 nodes with scarce uplink, and the plan that keeps its current copies."""
    problem = lawful(random_instance(BUSY, seed=seed))
    return problem, plan_of(problem)


def lawful(problem: PlacementProblem) -> PlacementProblem:
    """The problem holding only those of its current copies that keep every hard limit."""
    kept = keep_current(problem)
    return replace(problem, current_segment=kept.segment, current_source=kept.source)


def busiest_node(problem: PlacementProblem, plan: Plan) -> str:
    mesh = ~problem.is_pop[plan.flow_source]
    return str(problem.sources.source[np.bincount(plan.flow_source[mesh]).argmax()])


def plan_of(problem: PlacementProblem) -> Plan:
    """The judged plan that keeps what is held now."""
    copies = keep_current(problem)
    flows = best_flows(problem, copies.segment, copies.source)
    return judged(problem, published(problem, Incumbent("kept", copies, flows, cost_of(problem, copies, flows)), 0.0))


def copies_of(problem: PlacementProblem, plan: Plan) -> list[tuple[str, str]]:
    contents, sources = problem.segments.content[plan.segment], problem.sources.source[plan.source]
    return list(zip(contents.tolist(), sources.tolist(), strict=True))


def random_events(problem: PlacementProblem, rng: np.random.Generator, count: int) -> list[Event]:
    """Valid events of every kind, failures most; one for each node, network and segment at most."""
    sources = problem.sources.source.tolist()
    networks = np.unique(problem.sources.network[problem.sources.network >= 0]).tolist()
    nodes = rng.permutation(len(sources))[:count].tolist()
    events: list[Event] = []
    for n in nodes:
        kind = rng.integers(0, 9)
        if kind <= 3:
            events.append(NodeFailed(sources[n]))
        elif kind == 4:
            events.append(NodeDraining(sources[n], float(rng.uniform(0, 90_000))))
        elif kind == 5:
            events.append(NodeOverloaded(sources[n], float(rng.uniform(0, 1e9))))
        elif kind == 6:
            events.append(SurvivalChanged(sources[n], float(rng.uniform(0, 1))))
        else:
            events.append(NodeJoined(sources[n], kept_copies=bool(rng.random() < 0.7)))
    if networks and rng.random() < 0.2:
        network = int(rng.choice(networks))
        events.append(NetworkOutage(network) if rng.random() < 0.5 else OutageEnded(network))
    if len(problem.segments) > 4 and rng.random() < 0.2:
        events.append(ContentExpired(str(rng.choice(problem.segments.content))))
    return events
