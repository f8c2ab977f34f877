"""Moves after events: again and again the push that gains most per byte, for the affected segments alone.

The gain of a copy of segment s at source n, given the copies and shares there are, is

    gain(s, n) = sum_k r_k ((base_k - price_kn)^+ new share_kn + (mesh price_k - price_kn)^+ taken share_kn)
                 - price of uplink + penalty, if it mends s - push price_n * bytes_s - loss of what makes room

where `new share` is at most the survival of n, at most what nodes together are then up for less what they serve, and
`taken share` is what they serve now, at the mean price with what their uplink is worth, as far as survival lasts. A move
must gain more than a threshold for each byte; one that takes back a recent move must be worth a multiple of its cost.
As in the greedy, old gains are upper bounds: the best copy of a segment is valued anew when it reaches the top.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np

from placement.copies import Copies, copy_caps, movement_left, pay, spare_storage
from placement.problem import BYTES_PER_GB, Bool, Float64, Int32, Int64, PlacementProblem
from placement.rebalance.evictions import Room
from placement.rebalance.ground import Ground
from placement.rebalance.settings import RebalanceSettings
from placement.rebalance.uplinks import Uplinks
from placement.requirements import missing_requirements


@dataclass(frozen=True)
class Candidates:
    """What may be pushed.

    Attributes:
        lost: copies of each segment that may be replaced, anywhere allowed. (S,)
        asked: segments that may go to the sources that joined. (S,)
        joined: (N,)
        avoided: sources to which nothing goes. (N,)
        returning: keys segment * N + source of recent moves, sorted: what is pushed there must gain a multiple.
    """

    lost: Int64
    asked: Bool
    joined: Bool
    avoided: Bool
    returning: Int64


@dataclass(frozen=True)
class Moves:
    """Pushes in the order they were chosen, and positions in the copies of those that make room, ascending.

    Attributes:
        makes_room_for: the push that each evicted copy makes room for.
        gain: expected net gain of each push, in m$.
    """

    segment: Int32
    source: Int32
    evicted: Int64
    makes_room_for: Int64
    gain: Float64

    def first(self, count: int) -> Moves:
        """The first so many pushes: those that would have been chosen with this limit."""
        mine = self.makes_room_for < count
        return Moves(
            self.segment[:count], self.source[:count], self.evicted[mine], self.makes_room_for[mine], self.gain[:count]
        )


def choose_moves(ground: Ground, room: Room, candidates: Candidates, settings: RebalanceSettings, most: int) -> Moves:
    """The moves worth making within the movement budgets, `most` of them: values hold for few changes at a time."""
    state = _State.of(ground, room, candidates, settings)
    offers = [(-np.inf, s) for s in np.flatnonzero((candidates.lost > 0) | candidates.asked).tolist()]
    heapq.heapify(offers)
    while offers and len(state.pushed) < most:
        s = heapq.heappop(offers)[1]
        best = state.best(s)
        if best is None:
            continue
        density = best.gain / state.size[s]
        if not offers or density >= -offers[0][0]:
            state.push(best)
        heapq.heappush(offers, (-density, s))
    return state.moves()


@dataclass(frozen=True)
class _Push:
    segment: int
    source: int
    gain: float
    evicted: list[int]


@dataclass
class _State:
    """What changes with every push."""

    problem: PlacementProblem
    room: Room
    candidates: Candidates
    settings: RebalanceSettings
    size: Float64  # (S,)
    row_start: Int64  # (S + 1,)
    row: Int64  # rows sorted by segment (D,)
    base_price: Float64  # (D,)
    mesh_share: Float64  # (D,)
    nobody: Float64  # chance that no node holding the row's segment in reach is up (D,)
    uplinks: Uplinks
    mesh_price: Float64  # mean price of a request that nodes serve, with the price of its uplink (D,)
    spare: Float64  # (N,)
    budget: Float64  # bytes that may still move within each budget of the problem (B,)
    network_budget: Float64  # bytes that may still move into each failure domain
    holders: dict[int, list[int]]
    missing: Bool  # segments that miss a requirement (S,)
    targets: Int64  # sources that may receive anything
    caps: Int64
    pushed: list[_Push] = field(default_factory=list)
    replaced: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, ground: Ground, room: Room, candidates: Candidates, settings: RebalanceSettings) -> _State:
        problem, copies = ground.problem, ground.copies
        order = np.lexsort((problem.demand.location, problem.demand.segment))
        uplinks = Uplinks.of(ground)
        is_new = ~problem.is_current(copies.segment, copies.source)
        allowed = problem.sources.eligible & ~problem.standing & ~candidates.avoided & (problem.sources.survival > 0)
        pushed = problem.segments.bytes[copies.segment[is_new]].astype(np.float64)
        into = np.bincount(
            problem.domain[copies.source[is_new]], weights=pushed, minlength=int(problem.domain.max(initial=-1)) + 1
        )
        most = settings.most_bytes_per_network
        state = cls(
            problem=problem,
            room=room,
            candidates=candidates,
            settings=settings,
            size=problem.segments.bytes.astype(np.float64),
            row_start=np.searchsorted(problem.demand.segment[order], np.arange(len(problem.segments) + 1)),
            row=order,
            base_price=ground.base_price.copy(),
            mesh_share=ground.mesh_share.copy(),
            nobody=np.ones(len(problem.demand)),
            uplinks=uplinks,
            mesh_price=_mesh_price(ground, uplinks),
            spare=spare_storage(problem, copies),
            budget=movement_left(problem, copies),
            network_budget=np.asarray((np.inf if most is None else most) - into, dtype=np.float64),
            holders={},
            missing=missing_requirements(problem, copies),
            targets=np.flatnonzero(allowed),
            caps=copy_caps(problem),
        )
        state._hold(copies)
        return state

    def _hold(self, copies: Copies) -> None:
        wanted = np.flatnonzero((self.candidates.lost > 0) | self.candidates.asked)
        starts, ends = np.searchsorted(copies.segment, wanted), np.searchsorted(copies.segment, wanted + 1)
        for s, start, end in zip(wanted.tolist(), starts.tolist(), ends.tolist(), strict=True):
            self.holders[s] = copies.source[start:end].tolist()
            for n in self.holders[s]:
                self._cover(s, n)

    def _cover(self, s: int, n: int) -> None:
        rows = self.row[self.row_start[s] : self.row_start[s + 1]]
        if not self.problem.is_pop[n]:
            reached = self.problem.can_serve[self.problem.demand.location[rows], n]
            self.nobody[rows[reached]] *= 1.0 - self.problem.sources.survival[n]

    def best(self, s: int) -> _Push | None:
        """The most gainful push of segment s that keeps every limit."""
        if 0 < self.candidates.lost[s] <= self.replaced.get(s, 0):
            return None
        nodes = self._allowed(s)
        if not self.missing[s]:  # else a copy that serves nobody may mend what is missing
            nodes = nodes[self._reached(s)[nodes]]
        if not len(nodes):
            return None
        saving, served = self._new_requests(s, nodes)
        value = self.uplinks.value(nodes, served, saving, float(self.size[s]))[0] + self._mending(s, nodes)
        cost = self.problem.push_price[nodes] * self.size[s]
        threshold = self.settings.least_gain_millidollars_per_gb * self.size[s] / BYTES_PER_GB
        back = np.isin(s * len(self.problem.sources) + nodes, self.candidates.returning)
        chosen: _Push | None = None
        for at in np.lexsort((nodes, cost - value)).tolist():
            most = float(value[at] - cost[at])
            if most <= threshold or (chosen is not None and most <= chosen.gain):
                break
            n = int(nodes[at])
            loss, evicted = self.room.cheapest(n, float(self.size[s] - self.spare[n]))
            dear = back[at] and value[at] < self.settings.return_gain_factor * (cost[at] + threshold + loss)
            gain = most - loss
            if gain > threshold and not dear and (chosen is None or gain > chosen.gain):
                chosen = _Push(s, n, gain, evicted)
        return chosen

    def _allowed(self, s: int) -> Int64:
        """Targets that may hold one more copy of s within network, tier and budget limits."""
        problem, held = self.problem, np.array(self.holders[s], dtype=np.int64)
        nodes = self.targets
        if self.candidates.lost[s] == 0:  # only asked for where somebody joined
            nodes = nodes[self.candidates.joined[nodes]]
        network, tier = problem.sources.network, problem.sources.tier
        ok = ~np.isin(nodes, held) & (problem.storage_limit_bytes[nodes] >= self.size[s])
        crowded = (
            np.bincount(network[held][network[held] >= 0], minlength=int(network.max(initial=0)) + 1) >= self.caps[0]
        )
        ok &= ~(crowded[network[nodes]] & (network[nodes] >= 0))
        full = np.bincount(tier[held], minlength=4) >= self.caps
        ok &= ~full[tier[nodes]]
        ok &= self.network_budget[problem.domain[nodes]] >= self.size[s]
        ok &= self.budget[problem.movement_slots[nodes]].min(axis=1) >= self.size[s]
        return np.asarray(nodes[ok])

    def _reached(self, s: int) -> Bool:
        """Sources within reach of anybody who asks for segment s, (N,)."""
        rows = self.row[self.row_start[s] : self.row_start[s + 1]]
        return np.asarray(self.problem.can_serve[self.problem.demand.location[rows]].any(axis=0))

    def _new_requests(self, s: int, nodes: Int64) -> tuple[Float64, Float64]:
        """What a request saves at each node, and how many each would serve: new ones, then those taken, (2 K, n)."""
        problem, rows = self.problem, self.row[self.row_start[s] : self.row_start[s + 1]]
        location, survival = problem.demand.location[rows], problem.sources.survival[nodes]
        price = problem.request_price[np.ix_(location, nodes)] + problem.byte_price[nodes] * self.size[s]
        served, nobody = self.mesh_share[rows][:, None], self.nobody[rows][:, None]
        together = np.where(problem.is_pop[nodes], 1.0, 1.0 - nobody * (1.0 - survival))
        reached = problem.can_serve[np.ix_(location, nodes)]
        saving = np.maximum(
            0.0, np.concatenate([self.base_price[rows], self.mesh_price[rows]])[:, None] - np.tile(price, (2, 1))
        )
        new = np.where(reached, np.clip(np.minimum(survival, together - served), 0.0, 1.0), 0.0)
        taken = np.where(reached, np.clip(np.minimum(survival - new, served), 0.0, 1.0), 0.0)
        share = np.where(saving > 0, np.concatenate([new, taken]), 0.0)
        return saving, np.tile(problem.demand.requests[rows], 2)[:, None] * share

    def _mending(self, s: int, nodes: Int64) -> Float64:
        """The fallback penalty, where one copy at a node meets the requirements of s."""
        problem = self.problem
        if not self.missing[s]:
            return np.zeros(len(nodes))
        best: dict[int, float] = {}
        for n in self.holders[s]:
            domain = int(problem.domain[n])
            best[domain] = max(best.get(domain, 0.0), float(problem.credit[n]))
        known = np.array([best.get(int(domain), 0.0) for domain in problem.domain[nodes]])
        credit = sum(best.values()) - known + np.maximum(known, problem.credit[nodes])
        met = credit + float(problem.credit[problem.standing].sum()) >= problem.required_credit[s]
        if problem.settings.require_tier_one_copy and not problem.standing.any():
            met &= problem.is_pop[nodes] | bool(problem.is_pop[self.holders[s]].any())
        return np.where(met, problem.fallback_price, 0.0)

    def push(self, push: _Push) -> None:
        s, n, problem = push.segment, push.source, self.problem
        if self._mending(s, np.array([n]))[0] > 0:
            self.missing[s] = False
        self._serve(s, n)
        self.spare[n] += self.room.drop(push.evicted) - self.size[s]
        pay(n, float(self.size[s]), problem.movement_slots, self.budget)
        self.network_budget[problem.domain[n]] -= float(self.size[s])
        self._cover(s, n)
        self.holders[s].append(n)
        self.replaced[s] = self.replaced.get(s, 0) + 1
        self.pushed.append(push)

    def _serve(self, s: int, n: int) -> None:
        """What the new copy serves is served, and its uplink is used."""
        rows, nodes = self.row[self.row_start[s] : self.row_start[s + 1]], np.array([n])
        saving, served = self._new_requests(s, nodes)
        _, chosen, load = self.uplinks.value(nodes, served, saving, float(self.size[s]))
        requests = np.tile(self.problem.demand.requests[rows], 2)
        share = np.divide(chosen[:, 0], requests, out=np.zeros(len(requests)), where=requests > 0)
        new, taken = share[: len(rows)], share[len(rows) :]
        if self.problem.is_pop[n]:
            self.base_price[rows] -= saving[: len(rows), 0] * new
        else:
            total = self.mesh_share[rows] + new
            price = self.mesh_price[rows] - saving[len(rows) :, 0]  # at most: where nothing is saved, nothing is taken
            mean = self.mesh_price[rows] * (total - new - taken) + price * (new + taken)
            self.mesh_price[rows] = np.divide(mean, total, out=self.mesh_price[rows], where=total > 0)
            self.mesh_share[rows] = total
        self.uplinks.take(n, float(load[0]))

    def moves(self) -> Moves:
        evicted = sorted((at, i) for i, push in enumerate(self.pushed) for at in push.evicted)
        return Moves(
            segment=np.array([push.segment for push in self.pushed], dtype=np.int32),
            source=np.array([push.source for push in self.pushed], dtype=np.int32),
            evicted=np.array([at for at, _ in evicted], dtype=np.int64),
            makes_room_for=np.array([i for _, i in evicted], dtype=np.int64),
            gain=np.array([push.gain for push in self.pushed]),
        )


def _mesh_price(ground: Ground, uplinks: Uplinks) -> Float64:
    """Mean price of a request that nodes serve of each row, with what its uplink is worth; 0 where none is, (D,)."""
    problem, flows = ground.problem, ground.flows
    mesh, n_rows = ~problem.is_pop[flows.source], len(problem.demand)
    row, source, share = flows.row[mesh], flows.source[mesh], flows.share[mesh]
    price = problem.serving_price(row, source) + uplinks.worth[source] * problem.demand_segment_bytes[row]
    total = np.bincount(row, weights=share, minlength=n_rows)
    paid = np.bincount(row, weights=share * price, minlength=n_rows)
    return np.divide(paid, total, out=np.zeros(n_rows), where=total > 0)
