"""Routing around what happened, at once and moving nothing: only rows that events touch are routed anew.

    affected rows = rows that a changed source served or now could, or that have lost their cover
    neighbours    = rows of other segments held at the nodes that could serve those, as many as stay exact

Everything else keeps its shares; the affected rows and their neighbours share what uplink that leaves.
"""

from __future__ import annotations

import numpy as np

from placement.check import flow_rows
from placement.copies import Copies
from placement.coverage import chance_any_is_up
from placement.flows import SMALLEST_SHARE, Flows, delivery_cost
from placement.plan import Plan
from placement.problem import Bool, Float64, Int32, Int64, PlacementProblem
from placement.publish import Incumbent, cost_of
from placement.rebalance.aftermath import Aftermath
from placement.rebalance.excerpt import Leftover

LEAST_IMPROVEMENT = 1e-9
"""Share of the cost that rerouting neighbours must save: below it, they are left alone."""
SERVED_WEIGHT = 0.05
"""What a byte that nodes serve counts as a neighbour beside one that they do not: the latter wants what comes free."""
SLACK = 1e-7
"""Relative excess over a limit that is rounding and not a change."""


def route_around(problem: PlacementProblem, plan: Plan, after: Aftermath, *, exact_arcs: int) -> Incumbent:
    """The copies that live, with new shares where the events touched them; moves nothing."""
    flows = carry_over(problem, plan, after)
    touched = touched_rows(after, after.planned(plan), flows)
    flows = reroute(after.problem, after.copies, flows, touched, exact_arcs=exact_arcs)
    return Incumbent("route around", after.copies, flows, cost_of(after.problem, after.copies, flows))


def carry_over(problem: PlacementProblem, plan: Plan, after: Aftermath) -> Flows:
    """The plan's shares, in rows of the problem after the events; what nobody asks for any more is gone."""
    rows = flow_rows(problem, plan)
    row_kept = after.kept_segment[problem.demand.segment]
    stays = rows >= 0
    stays[stays] = row_kept[rows[stays]]
    row = (np.cumsum(row_kept) - 1)[rows[stays]]
    return sorted_flows(row, plan.flow_source[stays], plan.flow_share[stays])


def sorted_flows(row: Int64, source: np.ndarray, share: Float64) -> Flows:
    order = np.lexsort((source, row))
    return Flows(row[order].astype(np.int64), source[order].astype(np.int32), share[order])


def touched_rows(after: Aftermath, planned: Copies, flows: Flows) -> Bool:
    """Rows whose shares may no longer be lawful or best, (D,)."""
    problem, changed = after.problem, after.changed
    back = changed & after.joined
    if (back & problem.standing).any():  # a POP that holds everything is back for everyone
        return np.ones(len(problem.demand), dtype=np.bool_)
    touched = np.zeros(len(problem.demand), dtype=np.bool_)
    touched[flows.row[changed[flows.source] | _unlawful(problem, flows)]] = True
    better = changed[after.copies.source]
    touched |= rows_in_reach(problem, after.copies.segment[better], after.copies.source[better])
    return touched | changed_rows(problem, planned, after.copies, flows)


def changed_rows(problem: PlacementProblem, old: Copies, new: Copies, flows: Flows) -> Bool:
    """Rows that copies which came could serve, that those which went served, or that have lost their cover, (D,)."""
    keys = copy_keys(problem, new)
    came = ~np.isin(keys, copy_keys(problem, old))
    touched = rows_in_reach(problem, new.segment[came], new.source[came])
    held = np.isin(copy_keys(problem, Copies(problem.demand.segment[flows.row], flows.source)), keys)
    touched[flows.row[~held & ~problem.standing[flows.source]]] = True
    return touched | uncovered_rows(problem, new, flows)


def rows_in_reach(problem: PlacementProblem, segment: Int32, source: Int32) -> Bool:
    """Rows that these copies could serve, (D,)."""
    mine = np.zeros(len(problem.segments), dtype=np.bool_)
    mine[segment] = True
    rows = np.flatnonzero(mine[problem.demand.segment])
    wanted, codes = np.flatnonzero(mine), np.cumsum(mine) - 1
    reached = np.zeros((len(wanted), len(problem.locations)), dtype=np.bool_)
    np.logical_or.at(reached, codes[segment], problem.can_serve[:, source].T)
    touched = np.zeros(len(problem.demand), dtype=np.bool_)
    touched[rows] = reached[codes[problem.demand.segment[rows]], problem.demand.location[rows]]
    return touched


def uncovered_rows(problem: PlacementProblem, copies: Copies, flows: Flows) -> Bool:
    """Rows that nodes serve more than the copies there are can be up for (2'), (D,)."""
    mesh = ~problem.is_pop[flows.source]
    served = np.bincount(flows.row[mesh], weights=flows.share[mesh], minlength=len(problem.demand))
    return np.asarray(served > chance_any_is_up(problem, copies.segment, copies.source) * (1 + SLACK) + SLACK)


def copy_keys(problem: PlacementProblem, copies: Copies) -> Int64:
    """Sorted keys segment * N + source."""
    return problem.copy_keys(copies.segment, copies.source)


def _unlawful(problem: PlacementProblem, flows: Flows) -> Bool:
    """Flows that break reach, survival, their row's whole, or their source's uplink, (F,)."""
    location = problem.demand.location[flows.row]
    total = np.bincount(flows.row, weights=flows.share, minlength=len(problem.demand))
    usable = problem.usable_uplink_bytes
    crowded = sent_bytes(problem, flows) > usable * (1 + SLACK)
    broken = ~problem.can_serve[location, flows.source]
    broken |= flows.share > problem.sources.survival[flows.source] * (1 + SLACK)
    broken |= problem.demand.requests[flows.row] <= 0
    return np.asarray(broken | (total[flows.row] > 1 + SLACK) | crowded[flows.source])


def sent_bytes(problem: PlacementProblem, flows: Flows) -> Float64:
    """Expected bytes that each source sends, (N,)."""
    sent = problem.demand_segment_bytes[flows.row] * problem.demand.requests[flows.row] * flows.share
    return np.asarray(np.bincount(flows.source, weights=sent, minlength=len(problem.sources)), dtype=np.float64)


def reroute(problem: PlacementProblem, copies: Copies, flows: Flows, touched: Bool, *, exact_arcs: int) -> Flows:
    """Shares with the touched rows, and as many neighbours as stay exact, routed anew."""
    if not touched.any():
        return flows
    first = _routed(problem, copies, flows, touched, exact_arcs)
    neighbours = _neighbours(problem, copies, flows, touched, exact_arcs)
    if not neighbours.any():
        return first
    second = _routed(problem, copies, flows, touched | neighbours, exact_arcs)
    cost = delivery_cost(problem, first)
    return second if delivery_cost(problem, second) < cost * (1 - LEAST_IMPROVEMENT) else first


def _routed(problem: PlacementProblem, copies: Copies, flows: Flows, anew: Bool, exact_arcs: int) -> Flows:
    stays = ~anew[flows.row]
    kept = Flows(flows.row[stays], flows.source[stays], flows.share[stays])
    usable = problem.usable_uplink_bytes
    free = np.maximum(0.0, usable - sent_bytes(problem, kept))
    free[np.isfinite(usable) & (free <= SLACK * usable)] = 0.0  # sources that have spent theirs are no candidates
    found = Leftover(np.flatnonzero(anew), free, exact_arcs).flows(problem, copies)
    real = found.share > SMALLEST_SHARE
    return sorted_flows(
        np.concatenate([kept.row, found.row[real]]),
        np.concatenate([kept.source, found.source[real]]),
        np.concatenate([kept.share, found.share[real]]),
    )


def _neighbours(problem: PlacementProblem, copies: Copies, flows: Flows, affected: Bool, exact_arcs: int) -> Bool:
    """Other rows that compete for the same nodes, those with most unmet bytes first, within so many arcs in all, (D,)."""
    segment = problem.demand.segment
    reach = float(problem.can_serve[:, ~problem.is_pop].mean()) if (~problem.is_pop).any() else 0.0
    held = np.bincount(copies.segment, minlength=len(problem.segments))[segment]
    arcs = np.ceil(reach * held) + int(problem.standing.sum())
    room = exact_arcs - int(arcs[affected].sum())
    if room <= 0:
        return np.zeros(len(segment), dtype=np.bool_)
    limited = np.isfinite(problem.usable_uplink_bytes)
    mine = np.zeros(len(problem.segments), dtype=np.bool_)
    mine[segment[affected]] = True
    nodes = np.zeros(len(problem.sources), dtype=np.bool_)
    nodes[copies.source[mine[copies.segment]]] = True
    nodes[flows.source[affected[flows.row]]] = True
    nearby = np.zeros(len(problem.segments), dtype=np.bool_)
    nearby[copies.segment[(nodes & limited)[copies.source]]] = True
    mesh = ~problem.is_pop[flows.source]
    served = np.bincount(flows.row[mesh], weights=flows.share[mesh], minlength=len(segment))
    unmet = np.maximum(0.0, 1.0 - served) + SERVED_WEIGHT
    weight = problem.demand_segment_bytes * problem.demand.requests * unmet
    rows = np.flatnonzero(nearby[segment] & ~affected & (weight > 0))
    rows = rows[np.argsort(-weight[rows], kind="stable")]
    chosen = np.zeros(len(segment), dtype=np.bool_)
    chosen[rows[np.cumsum(arcs[rows]) <= room]] = True
    return chosen
