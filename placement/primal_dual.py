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

import numpy as np

from placement.bound import Prices, Proof, prove
from placement.candidates import Candidates
from placement.guard import UNGUARDED, Guard
from placement.passes import (
    LEAST_TANGENT,
    MOST_TANGENT,
    State,
    Steps,
    fit_steps,
    move,
    share_distance,
    worth_of,
)
from placement.problem import Bool, Int8, Int64
from placement.reach import BLOCKS
from placement.response import Known, Offer

FREE, HELD, BARRED = 0, 1, -1
FIRST_TANGENT = 2.5
TANGENT_RATE = 0.05
CHECK_EVERY = 10
ENOUGH, SOME, LONGEST = 0.2, 0.8, 0.36
"""A round ends when the distance fell to `ENOUGH` of its first, or to `SOME` and rises, or at this share of all passes."""
PROMISING, LEAST_PROMISING = 0.6, 1e-4
"""Share of its price that a candidate may fall short of, and share of it that must be held, to be looked at further."""


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
        self.row_worth = np.maximum(graph.requests * candidates.reach.best_gain, 1e-9)
        row_bytes = float(graph.requests @ np.repeat(graph.size, np.diff(graph.row_start)))
        self.saving_per_byte = float(self.row_worth.sum()) / max(row_bytes, 1e-300)
        """Mean over all bytes asked for, in m$."""
        self._steps = self._fitting_steps()
        self._begin()

    def run(self, passes: int, guard: Guard = UNGUARDED) -> None:
        """So many passes and a plain one at last, so that `state` is within the copies' own constraints."""
        self._begin()
        done = first = last = 0.0
        for at in range(passes):
            if guard.passed:
                break
            distance = self._pass((done + 1) / (done + 2), plain=False)
            done += 1
            first = first or distance
            if done % CHECK_EVERY == 0:
                fell = distance <= ENOUGH * first or (distance <= SOME * first and 0 < last < distance)
                if fell or done >= LONGEST * (at + 1):
                    self._pass(1.0, plain=True)
                    self._reweigh()
                    self._steps = self._fitting_steps()
                    self._begin()
                    done = first = last = 0.0
                else:
                    last = distance
        self._pass(1.0, plain=True)

    def begin_at(self, prices: Prices) -> None:
        """Starts from prices of the demand rows, segments and sources that the candidates belong to."""
        rows = self.candidates.rows
        limited = self.candidates.limits > 0
        self.source_prices = np.where(limited, np.concatenate([prices.storage, prices.uplink, [prices.movement]]), 0.0)
        self.state.row[:] = prices.once[rows] * self.candidates.graph.requests
        self.state.backing[:] = np.minimum(prices.backing, self.candidates.graph.backing_limit)
        if prices.tangent is not None:
            self.tangent[:] = np.clip(prices.tangent[rows], LEAST_TANGENT, MOST_TANGENT)

    def invite(self) -> Proof:
        """What the present prices prove with those of the rows raised; candidates worth more than that join."""
        graph = self.candidates.graph
        known = Known(graph.copy_start, graph.source)
        proof = prove(self.candidates.reach, self._offer(), known, raise_rows=True, threads=self.threads)
        if len(proof.underpriced):
            self._join(proof.underpriced)
        return proof

    def _join(self, keys: Int64) -> None:
        self.candidates, old = self.candidates.joined_by(keys)
        arcs = np.repeat(old, np.diff(self.candidates.graph.arc_start))
        share, hold = np.zeros(len(arcs), np.float32), np.zeros(len(old), np.float32)
        fixed = np.where(self.candidates.graph.stands, HELD, FREE).astype(np.int8)
        share[arcs], hold[old], fixed[old] = self.state.share, self.state.hold, self.fixed
        self.fixed, self.state = fixed, self.state._replace(share=share, hold=hold)
        self._steps = self._fitting_steps()
        self._begin()

    def _offer(self) -> Offer:
        once = np.maximum(self.state.row, 0.0) / self.candidates.graph.requests
        backing = np.clip(self.state.backing, 0.0, self.candidates.graph.backing_limit)
        return Offer(np.maximum(self.source_prices, 0.0), once, self.tangent, backing)

    def promising(self) -> Bool:
        """Candidates that are held a little, are held now, or may yet become worth their prices. (C,)"""
        graph, worth = self.candidates.graph, np.empty(len(self.candidates))
        worth_of(graph, self.source_prices, self.state.row, self.state.backing, self.tangent, worth)
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

    def _pass(self, share_of_pass: float, *, plain: bool) -> float:
        """One pass; how far it moved."""
        limits, n_sources = self.candidates.limits, len(self.candidates.graph.survival)
        use, moved = np.zeros((BLOCKS, len(limits))), np.zeros(BLOCKS)
        rate = 0.0 if plain else TANGENT_RATE
        arrays = (self.source_prices, self.tangent, self.fixed)

        def work(block: int, first: int, end: int) -> None:
            options = (self.weight, share_of_pass, plain, rate)
            graph = self.candidates.graph
            moved[block] = move(
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
        by_source = np.zeros((BLOCKS, len(candidates.limits)))
        by_row, by_segment = np.zeros(len(graph.requests)), np.zeros(len(graph.size))
        hold_inverse = np.empty(len(candidates))

        def work(block: int, first: int, end: int) -> None:
            worths = (self.row_worth, self.tangent, self.saving_per_byte)
            sums = (hold_inverse, by_source[block], by_row, by_segment)
            fit_steps(graph, first, end, candidates.limits, *worths, *sums)

        candidates.for_each_block(work, self.threads)
        floor = 1e-30
        return Steps(
            self.row_worth,
            hold_inverse,
            self.row_worth / np.maximum(by_row, floor),
            1.0 / np.maximum(by_segment, floor),
            1.0 / np.maximum(by_source.sum(axis=0), floor),
        )

    def _reweigh(self) -> None:
        """Brings the primal and the dual distance of the last round closer together."""
        state, anchor, steps, limits = self.state, self._anchor, self._steps, self.candidates.limits
        graph = self.candidates.graph
        primal = float(((state.hold - anchor.hold).astype(np.float64) ** 2) @ steps.hold_inverse)
        moved = np.zeros(BLOCKS)

        def work(block: int, first: int, end: int) -> None:
            moved[block] = share_distance(graph, first, end, state.share, anchor.share, steps.row_worth)

        self.candidates.for_each_block(work, self.threads)
        primal += float(moved.sum())
        dual = float((state.row - anchor.row) ** 2 @ (1.0 / steps.row))
        dual += float((state.backing - anchor.backing) ** 2 @ (1.0 / steps.backing))
        dual += float(((self.source_prices - self._source_anchor) * limits) ** 2 @ (1.0 / steps.source))
        if primal > 0 and dual > 0:
            self.weight = float(np.sqrt(np.sqrt(dual / primal) * self.weight))
