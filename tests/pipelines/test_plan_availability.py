"""How many segments of a plan are live often enough, counted three ways, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.churn.frailty import Dependence
from models.churn.joint import JointSurvival
from pipelines.planning import Copies, NodeOutlook, PlanningSettings, SegmentDemand, availability_counts, instance
from placement.plan import Plan
from placement.problem import PlacementSettings
from placement.solve import solve
from placement.tiers import TierSettings
from tests.pipelines.tiny_scene import FAR, NEAR, NOW_US, POP, tiny_scene

HOURS = 6.0
TOGETHER = JointSurvival((HOURS,), (Dependence(network_variance=2.0),))


def counts(
    *copies: tuple[int, int], network: tuple[int, int], target: float, pop: bool = False
) -> tuple[int, int, int]:
    """Segments live by (networks once, together, independent); nodes of survival 0.9, copies of (segment, source).

    Without the POP, which would be live anyway: it is not eligible.
    """
    scene = tiny_scene(network=np.array([-1, *network], dtype=np.int32))
    outlook = NodeOutlook(np.full(3, 0.9), np.array([1.0, 0.9, 0.9]), np.ones(3, dtype=np.bool_))
    demand = SegmentDemand(np.array([0, 1]), np.array([0, 0]), np.array([9.0, 9.0]))
    settings = PlanningSettings(
        placement=PlacementSettings(availability_target=target), tiers=TierSettings(minimum_storage_bytes=0)
    )
    planned = instance(scene, demand, outlook, Copies.none(), settings=settings, at_us=NOW_US)
    eligible = planned.problem.sources.eligible.copy()
    eligible[POP] = pop
    problem = replace(planned.problem, sources=replace(planned.problem.sources, eligible=eligible))
    planned = replace(planned, problem=problem)
    segment, source = (np.array(part, dtype=np.int32) for part in zip(*copies, strict=True))
    plan: Plan = replace(
        solve(problem, seed=0), segment=segment, source=source, moved=np.ones(len(segment), dtype=np.bool_)
    )
    found = availability_counts(planned, plan, TOGETHER, horizon_hours=HOURS)
    assert (found.target, found.segments) == (target, 2)
    return found.networks_once, found.together, found.independent


def test_availability_counts__two_copies_in_one_network() -> None:
    """Segment 0 on both nodes, segment 1 on one. 0.9 each: one copy 0.9, two independent ones 0.99.

    In one network with θ = 2: both stay with (1 + 2 · 2c)^(−1/2), c = (0.9⁻² − 1) / 2, that is 0.8250, so one of them
    with 1.8 − 0.8250 = 0.9750. A network counted once leaves 0.9.
    """
    copies = ((0, NEAR), (0, FAR), (1, NEAR))
    assert counts(*copies, network=(0, 0), target=0.89) == (2, 2, 2)
    assert counts(*copies, network=(0, 0), target=0.97) == (0, 1, 1)
    assert counts(*copies, network=(0, 0), target=0.98) == (0, 0, 1)


def test_availability_counts__two_copies_in_two_networks() -> None:
    """Without a fleet frailty networks are independent, as the programme assumes: 0.99 by all three."""
    copies = ((0, NEAR), (0, FAR), (1, FAR))
    assert counts(*copies, network=(0, 1), target=0.985) == (1, 1, 1)


def test_availability_counts__pops_are_live_anyway() -> None:
    """A POP that holds everything makes every segment live, whatever the nodes do."""
    assert counts((0, NEAR), network=(0, 1), target=0.99, pop=True) == (2, 2, 2)
