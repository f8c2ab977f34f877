"""One pass over a block of segments: every candidate along its reduced saving, then every price along its violation.

For a candidate with copy y and shares x_a, wished for by steps of their own, the nearest feasible point solves

    inverse_y (y - wish_y) = sum_a inverse_a p (wish_a - p y)^+,    x_a = min(wish_a^+, p y)

and a price moves by its step times what is used, seen twice as far ahead, less what is there. Used by
`placement/primal_dual.py`, which says where steps and averages come from.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from placement.candidates import Graph
from placement.problem import Float32, Float64

LEAST_TANGENT, MOST_TANGENT = 0.5, 8.0
WORTH_FLOOR = 8.0
"""Least worth of a candidate in its own steps, in mean savings per byte: else the many that save little slow all down."""


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


@numba.njit(cache=True, nogil=True)
def fit_steps(  # type: ignore[no-untyped-def]
    graph: Graph, first, end, limits, row_worth, tangent, saving_per_byte, hold_inverse, by_source, by_row, by_segment
) -> None:
    """For the segments [first, end): sums of squared scaled coefficients by limit, row and segment, and inverse steps."""
    n_sources = len(graph.survival)
    for s in range(first, end):
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
def worth_of(graph: Graph, source_prices, row, backing, tangent, worth) -> None:  # type: ignore[no-untyped-def]
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


@numba.njit(cache=True, nogil=True)
def share_distance(graph: Graph, first: int, end: int, share: Float32, anchor: Float32, row_worth: Float64) -> float:
    """Squared distance of the shares of the segments [first, end)."""
    total = 0.0
    for a in range(graph.arc_start[graph.copy_start[first]], graph.arc_start[graph.copy_start[end]]):
        total += 2.0 * row_worth[graph.arc_row[a]] * (share[a] - anchor[a]) ** 2
    return total


@numba.njit(cache=True, nogil=True)
def move(  # type: ignore[no-untyped-def]
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
