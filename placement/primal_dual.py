"""First-order solution of the relaxed programme: shares and copies against prices, block by block of segments.

The relaxation lets copies be held in part. With prices as multipliers it is the saddle point

    max_{y, x} min_{prices}  sum_k r_k gain_kn x_kn - sum_sn push_sn y_sn + prices . (limits - use)
    0 <= x_kn <= p_n y_sn,  0 <= y_sn <= 1,   sum_n x_kn <= 1 - e^-W_k   with its tangent at t_k

One pass moves every candidate along its reduced saving, projected exactly onto its own constraints (a candidate and its
arcs, by a few Newton steps on one piecewise linear equation), and then every price along its violation (Chambolle and
Pock 2011, A first-order primal-dual algorithm for convex problems with applications to imaging). Two things make it
fast. The step of each variable and each price suits its own scale (Pock and Chambolle 2011, Diagonal preconditioning):
a row is worth r_k max gain, a candidate the geometric mean of what it could save and of what its bytes are worth. And the
passes are averaged with where they began, twice as far (Halpern's iteration; Lu and Yang 2024, Restarted Halpern PDHG for
linear programming), beginning anew when the distance between two passes has fallen, with the weight between primal and
dual steps taken from how far each has moved. The tangents follow the copies from pass to pass.

Prices are certified by `placement/bound.py`, whatever happens here. Work is counted in passes and blocks are summed in
order, so that the same input gives the same bytes on any number of threads.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numba
import numpy as np

from placement.bound import Prices, certified_rows
from placement.candidates import BLOCKS, Candidates, Graph
from placement.problem import Bool, Float32, Float64, Int8

FREE, HELD, BARRED = 0, 1, -1
FIRST_TANGENT, LEAST_TANGENT, MOST_TANGENT = 2.5, 0.5, 8.0
TANGENT_RATE = 0.05
WORTH_FLOOR = 8.0
"""Least worth of a candidate in its own steps, in mean savings per byte: else the many that save little slow all down."""
CHECK_EVERY = 10
ENOUGH, SOME, LONGEST = 0.2, 0.8, 0.36
"""A round ends when the distance fell to `ENOUGH` of its first, or to `SOME` and rises, or at this share of all passes."""
PROMISING, LEAST_PROMISING = 0.6, 1e-4
"""Share of its price that a candidate may fall short of, and share of it that must be held, to be looked at further."""


class State(NamedTuple):
    """Where the passes are. `share` and `hold` are primal, `row` and `backing` prices in m$ for a whole row or segment."""

    share: Float32  # (A,)
    hold: Float32  # (C,)
    row: Float64  # (R,)
    backing: Float64  # (S,)

    def copied(self) -> State:
        return State(self.share.copy(), self.hold.copy(), self.row.copy(), self.backing.copy())


class Steps(NamedTuple):
    """Inverse primal steps, and dual steps, before the weight between them."""

    row_worth: Float64  # (R,)
    hold_inverse: Float64  # (C,)
    row: Float64  # (R,)
    backing: Float64  # (S,)
    source: Float64  # in m$ for a whole limit (2 N + 1,)


class PrimalDual:
    """Passes over the candidates; `fixed` may hold or bar copies between them."""

    def __init__(self, candidates: Candidates, *, threads: int = 1) -> None:
        self.candidates, self.threads = candidates, threads
        graph = candidates.graph
        n_rows, n_segments = len(graph.requests), len(graph.size)
        self.fixed: Int8 = np.where(graph.stands, HELD, FREE).astype(np.int8)
        self.tangent = np.full(n_rows, FIRST_TANGENT)
        self.source_prices = np.zeros(len(candidates.limits))
        self.state = State(
            np.zeros(candidates.n_arcs, np.float32),
            graph.stands.astype(np.float32),
            np.zeros(n_rows),
            np.zeros(n_segments),
        )
        self.weight = 1.0
        self._row_worth = np.maximum(graph.requests * candidates.best_gain, 1e-9)
        row_bytes = float(graph.requests @ np.repeat(graph.size, np.diff(graph.row_start)))
        self.saving_per_byte = float(self._row_worth.sum()) / max(row_bytes, 1e-300)
        """Mean over all bytes asked for, in m$."""
        self._steps = self._fitting_steps()
        self._begin()

    def run(self, passes: int, *, follow: bool = True) -> None:
        """So many passes; the last one is plain, so that `state` is within the copies' own constraints.

        Args:
            passes: of which some may be plain ones between rounds.
            follow: whether the tangents follow the copies.
        """
        self._begin()
        done = first = last = 0.0
        for at in range(passes):
            distance = self._pass((done + 1) / (done + 2), plain=False, follow=follow)
            done += 1
            first = first or distance
            if done % CHECK_EVERY == 0:
                fell = distance <= ENOUGH * first or (distance <= SOME * first and 0 < last < distance)
                if fell or done >= LONGEST * (at + 1):
                    self._pass(1.0, plain=True, follow=False)
                    self._reweigh()
                    self._steps = self._fitting_steps()
                    self._begin()
                    done = first = last = 0.0
                else:
                    last = distance
        self._pass(1.0, plain=True, follow=False)

    def begin_at(self, prices: Prices) -> None:
        """Starts from prices of the demand rows, segments and sources that the candidates belong to."""
        rows = self.candidates.rows
        limited = self.candidates.limits > 0
        self.source_prices = np.where(limited, np.concatenate([prices.storage, prices.uplink, [prices.movement]]), 0.0)
        self.state.row[:] = prices.once[rows] * self.candidates.graph.requests
        self.state.backing[:] = np.minimum(prices.backing, self.candidates.graph.backing_limit)
        if prices.tangent is not None:
            self.tangent[:] = np.clip(prices.tangent[rows], LEAST_TANGENT, MOST_TANGENT)

    def bound(self, candidates: Candidates | None = None) -> float:
        """What the present prices prove; the whole graph must be given where some candidates were left out."""
        graph = candidates or self.candidates
        once = np.maximum(self.state.row, 0.0) / graph.graph.requests
        backing = np.clip(self.state.backing, 0.0, graph.graph.backing_limit)
        prices = np.maximum(self.source_prices, 0.0)
        return certified_rows(graph, prices, once, self.tangent, backing, threads=self.threads)

    def promising(self) -> Bool:
        """Candidates that are held a little, are held now, or may yet become worth their prices. (C,)"""
        graph, worth = self.candidates.graph, np.empty(len(self.candidates))
        _worth(graph, self.source_prices, self.state.row, self.state.backing, self.tangent, worth)
        price = graph.push + graph.size[self.candidates.segment] * np.maximum(self.source_prices[graph.source], 0.0)
        price += graph.moved * max(float(self.source_prices[-1]), 0.0)
        near = worth > (1.0 - PROMISING) * price
        return np.asarray(near | (self.state.hold > LEAST_PROMISING) | (graph.moved == 0.0))

    def keep(self, kept: Bool) -> None:
        """Goes on with these candidates alone."""
        arcs = np.repeat(kept, np.diff(self.candidates.graph.arc_start))
        self.candidates = self.candidates.where(kept)
        self.fixed = self.fixed[kept]
        self.state = self.state._replace(share=self.state.share[arcs], hold=self.state.hold[kept])
        self._steps = self._fitting_steps()
        self._begin()

    def copy(self) -> PrimalDual:
        """The same passes to go on from, without touching these."""
        other = copy.copy(self)
        other.state = self.state.copied()
        other.fixed, other.tangent = self.fixed.copy(), self.tangent.copy()
        return other

    def _begin(self) -> None:
        """A new round starts here."""
        self._anchor = self.state.copied()
        self._source_anchor = self.source_prices.copy()

    def _pass(self, share_of_pass: float, *, plain: bool, follow: bool) -> float:
        """One pass; how far it moved."""
        limits, n_sources = self.candidates.limits, len(self.candidates.graph.survival)
        use, moved = np.zeros((BLOCKS, len(limits))), np.zeros(BLOCKS)
        rate = TANGENT_RATE if follow else 0.0
        arrays = (self.source_prices, self.tangent, self.fixed)

        def work(block: int, first: int, end: int) -> None:
            options = (self.weight, share_of_pass, plain, rate)
            graph = self.candidates.graph
            moved[block] = _move(
                graph, first, end, self.state, self._anchor, self._steps, arrays, options, use[block], n_sources
            )

        self.candidates.for_each_block(work, self.threads)
        limited = limits > 0
        violation = np.divide(use.sum(axis=0), limits, out=np.ones_like(limits), where=limited) - 1.0
        step, old = self._steps.source * self.weight, self.source_prices * limits
        new = np.where(limited, np.maximum(0.0, old + step * violation), 0.0)
        distance = float(moved.sum()) + float(((new - old)[limited] ** 2 / step[limited]).sum())
        prices = np.divide(new, limits, out=np.zeros_like(limits), where=limited)
        if not plain:
            prices = share_of_pass * (2 * prices - self.source_prices) + (1 - share_of_pass) * self._source_anchor
        self.source_prices = prices
        return float(np.sqrt(distance))

    def _fitting_steps(self) -> Steps:
        candidates, graph = self.candidates, self.candidates.graph
        sums = np.zeros(len(candidates.limits)), np.zeros(len(graph.requests)), np.zeros(len(graph.size))
        hold_inverse = np.empty(len(candidates))
        _fit_steps(graph, candidates.limits, self._row_worth, self.tangent, self.saving_per_byte, hold_inverse, *sums)
        floor = 1e-30
        return Steps(
            self._row_worth,
            hold_inverse,
            self._row_worth / np.maximum(sums[1], floor),
            1.0 / np.maximum(sums[2], floor),
            1.0 / np.maximum(sums[0], floor),
        )

    def _reweigh(self) -> None:
        """Brings the primal and the dual distance of the last round closer together."""
        state, anchor, steps, limits = self.state, self._anchor, self._steps, self.candidates.limits
        graph = self.candidates.graph
        primal = float(((state.hold - anchor.hold).astype(np.float64) ** 2) @ steps.hold_inverse)
        primal += _share_distance(graph, state.share, anchor.share, steps.row_worth)
        dual = float((state.row - anchor.row) ** 2 @ (1.0 / steps.row))
        dual += float((state.backing - anchor.backing) ** 2 @ (1.0 / steps.backing))
        dual += float(((self.source_prices - self._source_anchor) * limits) ** 2 @ (1.0 / steps.source))
        if primal > 0 and dual > 0:
            self.weight = float(np.sqrt(np.sqrt(dual / primal) * self.weight))


@numba.njit(cache=True)
def _fit_steps(  # type: ignore[no-untyped-def]
    graph: Graph, limits, row_worth, tangent, saving_per_byte, hold_inverse, by_source, by_row, by_segment
) -> None:
    """Sums of squared scaled coefficients by limit, row and segment, and the inverse step of each candidate."""
    n_sources = len(graph.survival)
    for s in range(len(graph.size)):
        size = graph.size[s]
        value = size * saving_per_byte
        for c in range(graph.copy_start[s], graph.copy_start[s + 1]):
            n, saved, entries = graph.source[c], 0.0, 1.0
            for a in range(graph.arc_start[c], graph.arc_start[c + 1]):
                saved += graph.requests[graph.arc_row[a]] * graph.arc_gain[a]
            worth = max(np.sqrt(saved * value), WORTH_FLOOR * value, 1e-12)
            if limits[n] > 0:
                by_source[n] += (size / limits[n]) ** 2 / worth
                entries += 1.0
            if graph.moved[c] > 0 and limits[2 * n_sources] > 0:
                by_source[2 * n_sources] += (graph.moved[c] / limits[2 * n_sources]) ** 2 / worth
                entries += 1.0
            if graph.is_backing[n]:
                by_segment[s] += 1.0 / worth
            for a in range(graph.arc_start[c], graph.arc_start[c + 1]):
                k = graph.arc_row[a]
                by_row[k] += 1.0 + row_worth[k] * (np.exp(-tangent[k]) * graph.credit[n]) ** 2 / worth
                if limits[n_sources + n] > 0:
                    sent = graph.requests[k] * size / limits[n_sources + n]
                    by_source[n_sources + n] += sent**2 / row_worth[k]
                entries += 1.0
            hold_inverse[c] = entries * worth


@numba.njit(cache=True)
def _worth(graph: Graph, source_prices, row, backing, tangent, worth) -> None:  # type: ignore[no-untyped-def]
    """What each candidate would save at the present prices of uplink and rows."""
    n_sources = len(graph.survival)
    for s in range(len(graph.size)):
        for c in range(graph.copy_start[s], graph.copy_start[s + 1]):
            n = graph.source[c]
            sending = graph.size[s] * source_prices[n_sources + n]
            worth[c] = backing[s] if graph.is_backing[n] else 0.0
            for a in range(graph.arc_start[c], graph.arc_start[c + 1]):
                k = graph.arc_row[a]
                gain = graph.requests[k] * (graph.arc_gain[a] - sending) - row[k]
                worth[c] += max(0.0, row[k]) * np.exp(-tangent[k]) * graph.credit[n]
                worth[c] += max(0.0, gain) * graph.survival[n]


@numba.njit(cache=True)
def _share_distance(graph: Graph, share: Float32, anchor: Float32, row_worth: Float64) -> float:
    total = 0.0
    for a in range(len(share)):
        total += 2.0 * row_worth[graph.arc_row[a]] * (share[a] - anchor[a]) ** 2
    return total


@numba.njit(cache=True, nogil=True)
def _move(  # type: ignore[no-untyped-def]
    graph: Graph, first: int, end: int, state: State, anchor: State, steps: Steps, arrays, options, use, n_sources: int
) -> float:
    """Moves the segments [first, end) by one pass, adds their extrapolated use to `use`; the squared distance."""
    source_prices, tangent, fixed = arrays
    weight, beta, plain, follow = options
    # Bare arrays: reading a field costs more than the arithmetic of the innermost loops.
    arc_start, arc_row, arc_gain, requests = graph.arc_start, graph.arc_row, graph.arc_gain, graph.requests
    source, survival, credit = graph.source, graph.survival, graph.credit
    share, hold, row, row_worth = state.share, state.hold, state.row, steps.row_worth
    longest = np.int64(1)
    for c in range(graph.copy_start[first], graph.copy_start[end]):
        longest = max(longest, arc_start[c + 1] - arc_start[c])
    wish, distance = np.empty(longest), 0.0
    for s in range(first, end):
        size, rows = graph.size[s], graph.row_start[s]
        n_rows = graph.row_start[s + 1] - rows
        flat, served, held = np.empty(n_rows), np.zeros(n_rows), np.zeros(n_rows)
        for at in range(n_rows):
            flat[at] = np.exp(-tangent[rows + at])
        backed = 0.0
        for c in range(graph.copy_start[s], graph.copy_start[s + 1]):
            n, a0, a1 = source[c], arc_start[c], arc_start[c + 1]
            p, w = survival[n], credit[n]
            sending = size * source_prices[n_sources + n]
            slope = -graph.push[c] - size * source_prices[n] - graph.moved[c] * source_prices[2 * n_sources]
            if graph.is_backing[n]:
                slope += state.backing[s]
            most = 0.0
            for a in range(a0, a1):
                k = arc_row[a]
                slope += row[k] * flat[k - rows] * w
                inverse = 2.0 * row_worth[k] * weight
                wish[a - a0] = share[a] + (requests[k] * (arc_gain[a] - sending) - row[k]) / inverse
                most = max(most, wish[a - a0])
            inverse_hold = steps.hold_inverse[c] * weight
            low, high = 1.0 if fixed[c] == 1 else 0.0, 0.0 if fixed[c] == -1 else 1.0
            wished = hold[c] + slope / inverse_hold
            y = min(max(wished, low), high)
            if most > p * y:
                y = _projected(wished, inverse_hold, wish, a0, a1, arc_row, row_worth, weight, p, low, high, y)
            ahead = 2.0 * y - hold[c]
            distance += inverse_hold * (y - hold[c]) ** 2
            if not graph.stands[c]:
                use[n] += size * ahead
                use[2 * n_sources] += graph.moved[c] * ahead
            if graph.is_backing[n]:
                backed += ahead
            sent = 0.0
            for a in range(a0, a1):
                k = arc_row[a]
                x = min(max(wish[a - a0], 0.0), p * y)
                further = 2.0 * x - share[a]
                distance += 2.0 * row_worth[k] * weight * (x - share[a]) ** 2
                served[k - rows] += further
                held[k - rows] += w * ahead
                sent += requests[k] * further
                share[a] = x if plain else beta * further + (1.0 - beta) * anchor.share[a]
            use[n_sources + n] += size * sent
            hold[c] = y if plain else beta * ahead + (1.0 - beta) * anchor.hold[c]
        for at in range(n_rows):
            k = rows + at
            step = steps.row[k] * weight
            over = served[at] - (1.0 - flat[at] * (1.0 + tangent[k])) - flat[at] * held[at]
            price = max(0.0, row[k] + step * over)
            distance += (price - row[k]) ** 2 / step
            row[k] = price if plain else beta * (2.0 * price - row[k]) + (1.0 - beta) * anchor.row[k]
            if follow > 0:
                credit_here = min(max(held[at], LEAST_TANGENT), MOST_TANGENT)
                tangent[k] += follow * (credit_here - tangent[k])
        if graph.backing_limit[s] > 0:
            step = steps.backing[s] * weight
            price = min(max(0.0, state.backing[s] + step * (1.0 - backed)), graph.backing_limit[s])
            distance += (price - state.backing[s]) ** 2 / step
            ahead = 2.0 * price - state.backing[s]
            state.backing[s] = price if plain else beta * ahead + (1.0 - beta) * anchor.backing[s]
    return distance


@numba.njit(cache=True, nogil=True)
def _projected(  # type: ignore[no-untyped-def]
    wished, inverse_hold, wish, a0, a1, arc_row, row_worth, weight, p, low, high, y
):
    """The copy nearest to what it and its arcs wish: inverse (y - wished) = sum_a inverse_a p (wish_a - p y)^+."""
    for _ in range(20):
        top, bottom = inverse_hold * wished, inverse_hold
        for a in range(a0, a1):
            if wish[a - a0] > p * y:
                inverse = 2.0 * row_worth[arc_row[a]] * weight
                top += inverse * p * wish[a - a0]
                bottom += inverse * p * p
        better = min(max(top / bottom, low), high)
        if abs(better - y) < 1e-7:
            return better
        y = better
    return y
