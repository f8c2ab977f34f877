"""Prices, limits and solver choices of one placement, in millidollars (m$), bytes and milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from placement.errors import ProblemError


@dataclass(frozen=True)
class PlacementSettings:
    """Prices, limits and solver choices of one placement."""

    latency_millidollars_per_request_second: float = 0.1
    """What one second of waiting, by one request, is worth, in millidollars."""
    reward_millidollars_per_gb: float = 4.0
    """Paid to the owner of a node for each GB it serves, on top of the source's own egress cost."""
    push_handling_millidollars_per_gb: float = 0.0
    """Price of pushing a GB to a source, on top of the egress of the POP (or origin) that sends it."""
    origin_egress_millidollars_per_gb: float = 50.0
    """Price of a GB served by the origin, or sent by it to fill a POP."""
    origin_rtt_ms: float = 200.0
    """Round-trip time to the origin from anywhere, in milliseconds."""
    origin_fallback_millidollars: float = 100.0
    """Penalty for each segment that falls back to the origin: misses its availability target or its tier-1 copy."""
    failure_detection_ms: float = 250.0
    """Time lost when a chosen source turns out to be gone, until the next source answers, in milliseconds."""
    movement_budget_bytes: int | None = None
    """Most bytes that one plan may push to sources that do not hold them; null for no limit."""
    movement_budget_bytes_per_network: int | None = None
    """Most bytes that one plan may push to the sources of any one network; null for no limit."""
    movement_budget_bytes_per_location: int | None = None
    """Most bytes that one plan may push to the nodes of any one location; null for no limit."""
    availability_target: float = 0.999
    """Least probability that a live copy of each segment exists over the horizon, in [0, 1)."""
    availability_target_by_popularity: tuple[float, ...] | None = None
    """Instead, targets of the head (segments with the first half of the requests), torso (up to 90 %) and tail."""
    require_tier_one_copy: bool = True
    """Whether each segment needs a copy on a POP (or else falls back to the origin)."""
    allow_origin_fallback: bool = True
    """Whether missing the two requirements above is only penalised; false makes them hard, whatever they cost."""
    pops_hold_everything: bool = True
    """Whether POPs are caches of unlimited storage, so that every segment is on every eligible POP already."""
    max_copies_per_network: int = 2
    """Most copies of one segment inside one network (failure domain)."""
    max_copies_by_tier: tuple[int, ...] | None = None
    """Most copies of one segment on tiers 1, 2 and 3; null for no limit."""
    storage_share_by_tier: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Share of the storage of a source of tier 1, 2 and 3 that a plan may fill."""
    uplink_share_by_tier: tuple[float, ...] = (1.0, 0.9, 0.7)
    """Share of the uplink of a source of tier 1, 2 and 3 that a plan may count on: the rest is headroom."""
    uplink_quantile: float | None = None
    """Probability, in [0.5, 1), with which a nearly full uplink must suffice; null plans for mean demand alone."""
    scenarios: int = 0
    """Drawn demands and departures in which plans compete by mean cost and tail; 0 plans for the mean alone."""
    cvar_level: float = 0.9
    """The tail is the mean over the worst 1 - cvar_level of the scenarios, in [0, 1)."""
    cvar_weight_millidollars_per_gb: float = 10.0
    """Price of each GB that no node serves in that tail, on top of the mean cost."""
    minimum_improvement_share: float = 0.001
    """A plan that moves bytes replaces the one that moves none only if it saves at least this share of the cost."""
    candidates_per_location: int = 24
    """Nodes with room left that the greedy looks at for each location, nearest first."""
    solver: Literal["highs", "cp-sat", "gscip"] = "highs"
    """Solver of the whole programme: HiGHS, CP-SAT or SCIP."""
    whole_programme_arcs: int = 600
    """Largest instance, in (segment, location, source) arcs, that is handed to the solver as one programme."""
    exact_flow_arcs: int = 10_000_000
    """Most arcs over held copies that compete for anything whose shares are solved exactly, as a minimum-cost flow."""
    thorough_arcs: int = 50_000
    """Largest graph of the price search, in arcs, beside whose dive plain greedy is tried."""
    relative_gap: float = 0.005
    """Gap at which a plan counts as optimal and the solver may stop."""
    node_limit: int = 2_000
    """Branch-and-bound nodes after which the solver stops: the same on every machine, unlike a time."""
    time_limit_seconds: float = 3_600.0
    """Guard on the time of a placement: steps that are left when it is up are skipped; a plan comes back in any case."""
    price_engine: Literal["own", "pdlp"] = "own"
    """Who finds the prices that prove the lower bound and guide the placement: our own passes, or PDLP of OR-Tools."""
    bound_iterations: int = 1_000
    """Most passes of the price search that proves the bound and guides the placement; PDLP iterates five times for each."""
    bound_arc_visits: int = 5_000_000_000
    """Work of the price search, in arcs looked at (some 30 ns each), after which it stops."""
    starting_candidates: int = 3
    """Sources that each (segment, location) starts with in the price search, on average; others join at their prices."""
    grouped_pairs: int = 200_000_000
    """Smallest instance, in pairs of a (segment, location) and a source within its reach, whose nodes are first grouped."""
    dive_rounds: int = 24
    """Rounds in which the copies of the relaxation are made whole."""
    dive_passes: int = 30
    """Passes of the price search after each of these rounds."""
    restock_arc_visits: int = 4_000_000
    """Work of choosing each source's stock anew, in arcs of the flows solved again (some 1 us each); 0 for none."""
    restock_arc_visits_per_row: int = 100
    """And so many for each (segment, location) asked for, beside: a large instance has more to choose."""
    neighbourhoods: int = 0
    """Times that the copies of a few segments are chosen anew by OR-Tools; 0 for none."""
    threads: int = 2
    """Threads of the price search; the plan is the same on any number of them."""

    def __post_init__(self) -> None:
        problems = _setting_problems(self)
        if problems:
            raise ProblemError("The placement settings cannot be used:", problems)


def _setting_problems(settings: PlacementSettings) -> list[str]:
    nonnegative = [name for name in _FLOATS if not 0 <= getattr(settings, name) < float("inf")]
    problems = [f"Expected {name} >= 0 and finite, got {getattr(settings, name)!r}." for name in nonnegative]
    if not 0 <= settings.availability_target < 1:
        problems.append(f"Expected availability_target in [0, 1), got {settings.availability_target!r}.")
    quantile = settings.uplink_quantile
    if quantile is not None and not 0.5 <= quantile < 1:
        problems.append(f"Expected uplink_quantile in [0.5, 1) or null, got {quantile!r}.")
    if not 0 <= settings.cvar_level < 1:
        problems.append(f"Expected cvar_level in [0, 1), got {settings.cvar_level!r}.")
    targets = settings.availability_target_by_popularity
    if targets is not None and (len(targets) != 3 or not all(0 <= target < 1 for target in targets)):
        wanted = "three numbers in [0, 1) or null"
        problems.append(f"Expected availability_target_by_popularity to be {wanted}, got {targets!r}.")
    for name in (
        "max_copies_per_network",
        "candidates_per_location",
        "threads",
        "starting_candidates",
        "dive_rounds",
        "dive_passes",
    ):
        if getattr(settings, name) < 1:
            problems.append(f"Expected {name} >= 1, got {getattr(settings, name)!r}.")
    for name in ("storage_share_by_tier", "uplink_share_by_tier"):
        value = getattr(settings, name)
        if len(value) != 3 or not all(0 <= share <= 1 for share in value):
            problems.append(f"Expected {name} to be three shares in [0, 1], got {value!r}.")
    caps = settings.max_copies_by_tier
    if caps is not None and (len(caps) != 3 or any(cap < 0 for cap in caps)):
        problems.append(f"Expected max_copies_by_tier to be three numbers >= 0 or null, got {caps!r}.")
    for name in _BUDGETS:
        budget = getattr(settings, name)
        if budget is not None and not budget >= 0:
            problems.append(f"Expected {name} >= 0 or null, got {budget!r}.")
    if settings.solver not in ("highs", "cp-sat", "gscip"):
        problems.append(f"Expected solver to be 'highs', 'cp-sat' or 'gscip', got {settings.solver!r}.")
    if settings.price_engine not in ("own", "pdlp"):
        problems.append(f"Expected price_engine to be 'own' or 'pdlp', got {settings.price_engine!r}.")
    return problems


_BUDGETS = ("movement_budget_bytes", "movement_budget_bytes_per_network", "movement_budget_bytes_per_location")
_FLOATS = (
    "latency_millidollars_per_request_second",
    "reward_millidollars_per_gb",
    "push_handling_millidollars_per_gb",
    "origin_egress_millidollars_per_gb",
    "origin_rtt_ms",
    "origin_fallback_millidollars",
    "failure_detection_ms",
    "scenarios",
    "cvar_weight_millidollars_per_gb",
    "minimum_improvement_share",
    "whole_programme_arcs",
    "exact_flow_arcs",
    "relative_gap",
    "thorough_arcs",
    "node_limit",
    "time_limit_seconds",
    "bound_iterations",
    "bound_arc_visits",
    "grouped_pairs",
    "restock_arc_visits",
    "restock_arc_visits_per_row",
    "neighbourhoods",
)
