"""Node groups: nodes of one place that are nearly alike, seen as one node, where a location reaches hundreds of them.

Most of many nodes can stand in for each other, and a price search over all of them spends its passes on who stands in for
whom. A group has the room and the uplink of its nodes together, is up as surely as they are on average, and holds what any
of them holds. So the grouped instance has every segment and every demand row, and a tenth of the sources. Its prices are
close to those of the nodes (`placement/node_prices.py` makes them right for each), and its whole copies are handed out to
the nodes one by one. What is proven is proven over all nodes in any case.

Nodes are in one group only if they have the same location, tier, eligibility and reach; among those, with alike uplink
for their storage first (it decides whether a node keeps what is hot or much that is cold), then with alike survival.
"""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np

from placement.bound import Prices
from placement.problem import Float64, Int32, Int64, PlacementProblem, Sources

SURVIVAL_CLASSES = 2
"""Groups into which nodes with alike uplink for their storage are cut by survival."""


def sources_for_each_row(problem: PlacementProblem) -> float:
    """Sources that reach the location of a demand row, on average, those that need no copy left out."""
    reached = (problem.can_serve & ~problem.sure[None, :]).sum(axis=1)
    return float(reached[problem.demand.location].mean()) if len(problem.demand) else 0.0


def group_nodes(problem: PlacementProblem, nodes_each: int) -> Int64:
    """Group of each source, about `nodes_each` nodes in one, (N,); POPs are groups of their own."""
    ratio = problem.usable_uplink_bytes / np.maximum(problem.storage_limit_bytes, 1.0)
    group, count = np.empty(len(problem.sources), np.int64), 0
    for members in _alike(problem):
        each = 1 if problem.is_pop[members[0]] else nodes_each
        for strip in _cut(members[np.argsort(ratio[members], kind="stable")], SURVIVAL_CLASSES * each):
            for nodes in _cut(strip[np.argsort(problem.sources.survival[strip], kind="stable")], each):
                group[nodes] = count
                count += 1
    return group


def grouped(problem: PlacementProblem, group: Int64) -> PlacementProblem:
    """The instance whose sources are the groups."""
    sources, count = problem.sources, int(group.max(initial=-1)) + 1
    first = np.unique(group, return_index=True)[1]
    weight = np.maximum(problem.storage_limit_bytes, 1.0)
    total = np.bincount(group, weights=weight, minlength=count)

    def mean(values: Float64) -> Float64:
        return np.asarray(np.bincount(group, weights=values * weight, minlength=count) / total)

    survival = np.clip(mean(sources.survival), 0.0, 1.0)
    sends = np.where(sources.survival > 0, sources.uplink_bytes, 0.0) * sources.survival
    sent = np.bincount(group, weights=sends, minlength=count)
    held = np.unique(problem.current_segment.astype(np.int64) * count + group[problem.current_source])
    return replace(
        problem,
        sources=Sources(
            source=sources.source[first],
            tier=sources.tier[first],
            location=sources.location[first],
            network=np.full(count, -1, np.int32),
            storage_bytes=np.bincount(group, weights=sources.storage_bytes, minlength=count).astype(np.int64),
            uplink_bytes=sent / np.where(survival > 0, survival, 1.0),
            survival=survival,
            egress_cost_per_gb=mean(sources.egress_cost_per_gb),
            eligible=sources.eligible[first],
            lat=sources.lat[first],
            lon=sources.lon[first],
        ),
        rtt_ms=np.stack([mean(row.astype(np.float64)) for row in problem.rtt_ms]).astype(np.float32),
        reach=np.ascontiguousarray(problem.reach[:, first]),
        current_segment=(held // count).astype(np.int32),
        current_source=(held % count).astype(np.int32),
    )


def of_members(prices: Prices, group: Int64) -> Prices:
    """The prices of groups as those of their nodes."""
    return replace(prices, storage=prices.storage[group], uplink=prices.uplink[group])


def of_groups(prices: Prices, group: Int64) -> Prices:
    """The mean prices of the nodes of each group."""
    count = np.maximum(1, np.bincount(group))
    return replace(
        prices,
        storage=np.bincount(group, weights=prices.storage) / count,
        uplink=np.bincount(group, weights=prices.uplink) / count,
    )


def hand_out(
    problem: PlacementProblem, group: Int64, segment: Int32, groups: Int32, hold: Float64, sent: Float64
) -> Int32:
    """The node that takes each copy of a group, (C,); -1 where none has room.

    Args:
        problem: the instance with the nodes.
        group: of each source. (N,)
        segment: of each copy, ascending. (C,)
        groups: that hold it. (C,)
        hold: how far. (C,)
        sent: bytes that it sends there. (C,)

    A node that holds the segment already goes before the others, copies that send most before others, and each goes to the
    node that it leaves least full.
    """
    sources = problem.sources
    taken: Int32 = _hand_out(
        (segment, groups, hold, sent, np.argsort(-sent, kind="stable")),
        (np.searchsorted(segment, np.arange(len(problem.segments) + 1)), problem.segments.bytes.astype(np.float64)),
        (group, *_members(group)),
        problem.by_segment(problem.current_keys),
        (problem.storage_limit_bytes * sources.eligible, problem.usable_uplink_bytes),
        (sources.network, problem.settings.max_copies_per_network),
    )
    return taken


def members_in_turn(group: Int64, groups: Int32, turn: Int32) -> Int32:
    """Of each of these groups the member whose turn it is, (C,)."""
    start, node = _members(group)
    chosen: Int32 = node[start[groups] + turn % np.diff(start)[groups]].astype(np.int32)
    return chosen


def _members(group: Int64) -> tuple[Int64, Int64]:
    """Where the sources of each group begin, and the sources."""
    node = np.argsort(group, kind="stable")
    return np.searchsorted(group[node], np.arange(int(group.max(initial=-1)) + 2)), node


def _alike(problem: PlacementProblem) -> list[Int64]:
    """The sources of each location, tier, eligibility and reach."""
    sources = problem.sources
    reach = np.packbits(problem.reach.T, axis=1)
    rest = np.column_stack([sources.location, sources.tier, sources.eligible]).astype(np.int32)
    keys = np.ascontiguousarray(np.concatenate([rest.view(np.uint8).reshape(len(sources), -1), reach], axis=1))
    _, kind = np.unique(keys.view([("", np.void, keys.shape[1])]).ravel(), return_inverse=True)
    order = np.argsort(kind, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(kind[order])) + 1)


def _cut(members: Int64, each: int) -> list[Int64]:
    """Parts of about so many members, alike in number."""
    return np.array_split(members, max(1, round(len(members) / each)))


@numba.njit(cache=True)
def _hand_out(copies, segments, members, holders, limits, networks) -> Int32:  # type: ignore[no-untyped-def]
    (segment, groups, hold, sent, order), (first, size), (group, start, node) = copies, segments, members
    (current_start, current), (room, uplink), (network, most) = holders, limits, networks
    taken, stored, load = np.full(len(segment), np.int32(-1)), np.zeros(len(room)), np.zeros(len(room))
    for holding in (True, False):
        for c in order:
            s = segment[c]
            begin, end = start[groups[c]], start[groups[c] + 1]
            if holding:
                begin, end = current_start[s], current_start[s + 1]
            best, least = -1, np.inf
            for at in range(begin, end):
                n = current[at] if holding else node[at]
                if group[n] != groups[c] or taken[c] >= 0 or stored[n] + hold[c] * size[s] > room[n]:
                    continue
                full = (load[n] + sent[c]) / max(uplink[n], 1.0)
                if not holding:
                    full = max(full, (stored[n] + hold[c] * size[s]) / room[n])
                if full < least and not _crowded(taken, hold, c, (first[s], first[s + 1]), n, network, most):
                    best, least = n, full
            if best >= 0:
                taken[c] = best
                stored[best] += hold[c] * size[s]
                load[best] += sent[c]
    return taken


@numba.njit(cache=True)
def _crowded(taken: Int32, hold: Float64, c: int, span, n: int, network: Int32, most: int) -> bool:  # type: ignore[no-untyped-def]
    """Whether node n has another of the segment's copies, or its network is too full for copy c."""
    in_network = hold[c]
    for other in range(span[0], span[1]):
        if taken[other] == n:
            return True
        if taken[other] >= 0 and network[n] >= 0 and network[taken[other]] == network[n]:
            in_network += hold[other]
    return bool(in_network > most + 1e-9)
