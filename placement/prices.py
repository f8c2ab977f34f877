"""The price engine: prices that prove much, and how far the relaxation holds each copy at them.

Passes of `placement/primal_dual.py` over a graph of candidates, certified now and then by `placement/bound.py`, until
they are used up or prove hardly more than before. The graph grows with the prices (column generation): a certificate
looks at every candidate there is, and for each row the one that is worth most above its prices joins. So a graph of a
few candidates for each row proves what the whole one would, in a fraction of its time and memory. The work is counted in
passes and not in seconds, so that the bound repeats. A search may start from the prices of the last one.

Where an instance is too large for that, the passes are over groups of nodes (`placement/node_groups.py`). Each node then
gets the prices that are best for it, given those of the rows (`placement/node_prices.py`), and the candidates are those
that the groups hold, handed out to nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.bound import Bound, Prices, Proof, lawful, prove
from placement.candidates import Candidates
from placement.guard import UNGUARDED, Guard
from placement.keys import find_keys
from placement.node_groups import (
    group_nodes,
    grouped,
    hand_out,
    members_in_turn,
    of_groups,
    of_members,
    sources_for_each_row,
)
from placement.node_prices import fit_node_prices
from placement.primal_dual import PrimalDual
from placement.problem import Float64, Int64, PlacementProblem
from placement.reach import Reach
from placement.response import Offer

CERTIFIED_EVERY, AT_MOST_EVERY = 25, 75
"""Passes between two certificates, and where a certificate is more work than they are."""
PAIRS_PER_ARC = 0.3
"""Time that a certificate takes for one pair of row and source, over that of a pass for one arc."""
NARROWING = 50, 100
"""Passes from which, at each certificate, candidates that are far from worth their prices leave the graph, and the last.

Before the last, only once the prices prove anything: far from settled, they say nothing about who is promising."""
SETTLED, PATIENCE = 5e-5, 2
"""Share of itself by which a certificate must raise the bound, and how many in a row may fail to before the search ends."""
GROUPS_FOR_EACH_ROW = 24
"""Groups and POPs within reach of a demand row, on average, where nodes are grouped."""
FITS, FITTED = 3, 2e-4
"""Times that the prices of every node are made right, and the share of the bound that the next time must add."""
SWINGS = 0.01
"""A certificate that falls by more than this share below the best one shows prices that still swing, and ends nothing."""


@dataclass(frozen=True)
class Groups:
    """The instance over groups of nodes, the guide that its search left, and the group of each source. (N,)"""

    problem: PlacementProblem
    guide: Guide
    group: Int64


@dataclass(frozen=True)
class Guide:
    """What the search leaves behind.

    Attributes:
        bound: the best certified bound, over all candidates, and its prices.
        search: the passes where they stopped: how far each candidate is held, and at which prices.
        groups: what a search over groups of nodes left behind, if there was one.
    """

    bound: Bound
    search: PrimalDual
    groups: Groups | None = None

    @property
    def candidates(self) -> Candidates:
        """The candidates that the search still looked at."""
        return self.search.candidates

    @property
    def share(self) -> Float64:
        """How far each candidate is held, in [0, 1]. (C,)"""
        return np.clip(self.search.state.hold.astype(np.float64), 0.0, 1.0)


def lower_bound(problem: PlacementProblem) -> Bound:
    """The best bound within `bound_iterations` passes and about `bound_arc_visits` arcs looked at."""
    return search_prices(problem).bound


def search_prices(problem: PlacementProblem, *, start: Prices | None = None, guard: Guard = UNGUARDED) -> Guide:
    """Searches prices within `bound_iterations` passes and about `bound_arc_visits` arcs looked at.

    Args:
        problem: the instance.
        start: prices of an instance with the same sources, demand rows and segments.
        guard: ends the search early, and then the bound depends on the machine.
    """
    sources = sources_for_each_row(problem)
    nodes_each = round(sources / GROUPS_FOR_EACH_ROW)
    if sources * len(problem.demand) < problem.settings.grouped_pairs or nodes_each < 2:
        return _search(problem, start, guard)
    return _search_by_groups(problem, group_nodes(problem, nodes_each), start, guard)


def _search(problem: PlacementProblem, start: Prices | None, guard: Guard) -> Guide:
    """Over the sources themselves."""
    settings = problem.settings
    search = PrimalDual(Candidates.of(problem, for_each_row=settings.starting_candidates), threads=settings.threads)
    if start is not None:
        search.begin_at(start)
    best = _bound(problem, search.invite(), search.candidates.rows)
    done = visits = idle = 0
    while done < settings.bound_iterations and visits < settings.bound_arc_visits and not guard.passed:
        passes = min(_passes_to_come(search, done), settings.bound_iterations - done)
        done += passes
        visits += passes * search.candidates.n_arcs
        search.run(passes, guard)
        found = _bound(problem, search.invite(), search.candidates.rows)
        swings = found.value < (1.0 - SWINGS) * best.value
        idle = idle + 1 if not swings and found.value < best.value + SETTLED * abs(best.value) else 0
        best = max(best, found, key=lambda bound: bound.value)
        if idle >= PATIENCE and (done > NARROWING[1] or start is not None):
            break
        early, late = NARROWING
        if done == late or (early <= done < late and found.value > 0):
            search.keep(search.promising())
    return Guide(best, search)


def _search_by_groups(problem: PlacementProblem, group: Int64, start: Prices | None, guard: Guard) -> Guide:
    """Over groups of nodes; then the best prices of each node, and where the copies that groups hold may be."""
    small = grouped(problem, group)
    groups = Groups(small, _search(small, None if start is None else of_groups(start, group), guard), group)
    reach, threads = Reach.of(problem), problem.settings.threads
    proof = _fitted(reach, lawful(problem, reach, of_members(groups.guide.bound.prices, group)), threads, guard)
    if start is not None:
        before = prove(reach, lawful(problem, reach, start), raise_rows=True, threads=threads)
        proof = max(proof, before, key=lambda proof: proof.value)
    best = _bound(problem, proof, reach.demand_row)
    search = _standing(problem, reach, groups)
    search.begin_at(best.prices)
    search.invite()
    return Guide(best, search, groups)


def _standing(problem: PlacementProblem, reach: Reach, groups: Groups) -> PrimalDual:
    """Passes over the current copies and those that groups hold or nearly do.

    Each is held as far by the node that it is handed out to, and may be held by another of its group.
    """
    candidates, state = groups.guide.candidates, groups.guide.search.state
    held = np.flatnonzero(~candidates.graph.stands)
    hold, segment = groups.guide.share[held], candidates.segment[held]
    sent = candidates.sent_bytes(state.share)[held]
    node = hand_out(problem, groups.group, segment, candidates.graph.source[held], hold, sent)
    taken = node >= 0
    mine = problem.copy_keys(segment[taken], node[taken])
    another = members_in_turn(groups.group, candidates.graph.source[held], segment)
    keys = np.unique(np.concatenate([mine, problem.copy_keys(segment, another), _staying(problem)]))
    graph = Candidates.among(reach, *problem.by_segment(keys))
    search = PrimalDual(graph, threads=problem.settings.threads)
    search.state.hold[find_keys(graph.keys, mine)[0]] = hold[taken]
    return search


def _staying(problem: PlacementProblem) -> Int64:
    """Keys of the current copies that may stay where they are."""
    segment, source = np.divmod(problem.current_keys, max(1, len(problem.sources)))
    fits = problem.segments.bytes[segment] <= problem.storage_limit_bytes[source]
    return problem.current_keys[fits & problem.sources.eligible[source] & ~problem.standing[source]]


def _fitted(reach: Reach, offer: Offer, threads: int, guard: Guard) -> Proof:
    """What the best prices of every node prove, with those of the rows raised in between."""
    best = prove(reach, fit_node_prices(reach, offer, threads=threads), raise_rows=True, threads=threads)
    for _ in range(FITS - 1):
        if guard.passed:
            break
        found = prove(reach, fit_node_prices(reach, best.offer, threads=threads), raise_rows=True, threads=threads)
        rise = found.value - best.value
        best = found if rise > 0 else best
        if rise < FITTED * abs(best.value):
            break
    return best


def _passes_to_come(search: PrimalDual, done: int) -> int:
    """Passes until the next certificate, so that large graphs do not spend most of their time on certificates."""
    if done < NARROWING[1]:
        return CERTIFIED_EVERY
    pairs, arcs = search.candidates.reach.n_pairs, max(1, search.candidates.n_arcs)
    return min(AT_MOST_EVERY, max(CERTIFIED_EVERY, round(PAIRS_PER_ARC * pairs / arcs)))


def _bound(problem: PlacementProblem, proof: Proof, rows: Int64) -> Bound:
    n = len(problem.sources)
    once, tangent = np.zeros(len(problem.demand)), np.zeros(len(problem.demand))
    once[rows], tangent[rows] = proof.offer.once, proof.offer.tangent
    source = proof.offer.source
    prices = Prices(source[:n], source[n : 2 * n], float(source[-1]), once, proof.offer.backing, tangent)
    return Bound(max(0.0, proof.value), prices)
