"""The linear relaxation of the placement programme for some of its segments, as sparse arrays.

Sets, data and constraint numbers are those of `placement/formulation.py`. Sources that need no copy, never fail and have
no uplink limit take what is left of any row, so they need no variables: base_k is the price of the cheapest of them, or of
the origin. With u_kn = x_kn / p_n and save_kn = base_k - c_kn > 0,

    min  sum_k r_k base_k - sum_kn r_k p_n save_kn u_kn + sum_sn g_n q_s new_sn y_sn + h sum_s z_s,  all in [0, 1]

(1)  sum_n p_n u_kn <= 1                          (2)  u_kn <= y_sn
(3)  sum_s q_s y_sn <= C_n                        (4)  sum_k q_s r_k p_n u_kn <= U_n
(5)  sum_sn q_s new_sn y_sn <= B                  (7)  sum_{n in P} y_sn + z_s >= 1
(2') sum_{n in M} p_n u_kn <= 1 - e^-t + e^-t (sum_{n in M} w_n y_sn - t)    and    (8)  sum_{n in f} y_sn <= k_f

The certificate of `placement/bound.py` keeps one tangent (2') of each row, which stands for several, and drops (8): with
(8) the optimum is higher, but the prices prove less.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from placement.formulation import TANGENTS
from placement.problem import Bool, Float64, Int64, PlacementProblem

UNIT_BYTES = 1e8
"""Rows (3) to (5) count in units of so many bytes: first-order solvers want factors near one."""


@dataclass(frozen=True)
class Limits:
    """Limits in bytes: storage (N,), uplink (N,) and movement; infinite where there are none."""

    storage: Float64
    uplink: Float64
    movement: float

    @classmethod
    def of(cls, problem: PlacementProblem) -> Limits:
        return cls(problem.storage_limit_bytes, problem.usable_uplink_bytes, problem.movement_limit_bytes)


@dataclass(frozen=True)
class Columns:
    """The variables: u for each arc (U,), then y for each copy that may be held (Y,), then z (Z,).

    Attributes:
        arc_row: demand row of each u; sorted. (U,)
        arc_source: its source. (U,)
        arc_save: m$ that one request saves over the row's base price. (U,)
        arc_copy: which y it needs; -1 where the source holds everything. (U,)
        copy_segment: segment of each y; sorted by (segment, source). (Y,)
        copy_source: its source. (Y,)
        copy_is_new: whether it must be pushed. (Y,)
        backed: segment of each z. (Z,)
    """

    arc_row: Int64
    arc_source: Int64
    arc_save: Float64
    arc_copy: Int64
    copy_segment: Int64
    copy_source: Int64
    copy_is_new: Bool
    backed: Int64

    @property
    def u(self) -> Int64:
        return np.arange(len(self.arc_row))

    @property
    def y(self) -> Int64:
        return len(self.arc_row) + np.arange(len(self.copy_segment))

    @property
    def z(self) -> Int64:
        return len(self.arc_row) + len(self.copy_segment) + np.arange(len(self.backed))

    def __len__(self) -> int:
        return len(self.arc_row) + len(self.copy_segment) + len(self.backed)

    def served(self, problem: PlacementProblem) -> Float64:
        """Requests that u = 1 serves, r_k p_n, (U,)."""
        return problem.demand.requests[self.arc_row] * problem.sources.survival[self.arc_source]

    def pushed_bytes(self, problem: PlacementProblem) -> Float64:
        """Bytes that y = 1 moves, q_s new_sn, (Y,)."""
        return np.asarray(problem.segments.bytes[self.copy_segment] * self.copy_is_new, dtype=np.float64)


@dataclass(frozen=True)
class Relaxation:
    """min cost x + constant with lower <= matrix x <= upper and x in [0, 1].

    Attributes:
        matrix: (rows, columns)
        rows: where the rows of each numbered constraint are.
        demand_row: demand row of each row of (1).
        covered_row: demand row of each row of (2') at one tangent; none without (2').
    """

    columns: Columns
    cost: Float64
    constant: float
    matrix: sparse.csc_array
    lower: Float64
    upper: Float64
    rows: dict[str, slice]
    demand_row: Int64
    covered_row: Int64

    def within(self, limits: Limits) -> Float64:
        """Upper bounds of the rows under other limits on (3), (4) and (5)."""
        upper = self.upper.copy()
        upper[self.rows["3"]], upper[self.rows["4"]] = limits.storage / UNIT_BYTES, limits.uplink / UNIT_BYTES
        upper[self.rows["5"]] = limits.movement / UNIT_BYTES
        return upper


@dataclass
class _Rows:
    """Constraints gathered so far."""

    count: int = 0
    at: list[Int64] = field(default_factory=list)
    column: list[Int64] = field(default_factory=list)
    factor: list[Float64] = field(default_factory=list)
    lower: list[Float64] = field(default_factory=list)
    upper: list[Float64] = field(default_factory=list)
    named: dict[str, slice] = field(default_factory=dict)

    def add(self, name: str, upper: Float64, *terms: tuple[Int64, Int64, Float64], least: float = -np.inf) -> None:
        """Rows with these bounds; a term is (row among them, column, factor)."""
        for at, column, factor in terms:
            self.at.append(self.count + at)
            self.column.append(column)
            self.factor.append(factor)
        self.lower.append(np.full(len(upper), least))
        self.upper.append(upper)
        self.named[name] = slice(self.count, self.count + len(upper))
        self.count += len(upper)

    def matrix(self, n_columns: int) -> sparse.csc_array:
        entries = (np.concatenate(self.factor), (np.concatenate(self.at), np.concatenate(self.column)))
        return sparse.csc_array(sparse.coo_array(entries, shape=(self.count, n_columns)))


def relax(
    problem: PlacementProblem, segments: Bool | None = None, *, coverage: bool = False, spread: bool = False
) -> Relaxation:
    """The relaxation for the chosen segments (S,), by default all, under all limits; (2') and (8) on demand."""
    chosen = np.ones(len(problem.segments), dtype=np.bool_) if segments is None else segments
    sure = problem.standing & (problem.sources.survival >= 1) & ~np.isfinite(problem.usable_uplink_bytes)
    base = _base_price(problem, sure)
    columns = _columns(problem, chosen, sure, base)
    demand_row, row = np.unique(columns.arc_row, return_inverse=True)
    rows = _Rows()
    up = problem.sources.survival[columns.arc_source]
    rows.add("1", np.ones(len(demand_row)), (row, columns.u, up))
    _serve_what_is_held(rows, columns)
    _limits(problem, rows, columns)
    _tier_one(problem, rows, columns)
    covered = _coverage(problem, rows, columns, row) if coverage else np.zeros(0, np.int64)
    if spread:
        _spread(problem, rows, columns)
    return Relaxation(
        columns=columns,
        cost=_cost(problem, columns),
        constant=float((problem.demand.requests * base)[chosen[problem.demand.segment]].sum()),
        matrix=rows.matrix(len(columns)),
        lower=np.concatenate(rows.lower),
        upper=np.concatenate(rows.upper),
        rows=rows.named,
        demand_row=demand_row,
        covered_row=demand_row[covered],
    )


def _base_price(problem: PlacementProblem, sure: Bool) -> Float64:
    """Price of each row's request at the cheapest sure source, or the origin, (D,)."""
    base, rows = problem.origin_price.copy(), np.arange(len(problem.demand))
    for n in np.flatnonzero(sure):
        price = problem.serving_price(rows, np.full(len(rows), n, dtype=np.int32))
        base = np.where(problem.can_serve[problem.demand.location, n], np.minimum(base, price), base)
    return np.asarray(base)


def _columns(problem: PlacementProblem, chosen: Bool, sure: Bool, base: Float64) -> Columns:
    demand, n_sources = problem.demand, max(1, len(problem.sources))
    asked = np.flatnonzero(chosen[demand.segment] & (demand.requests > 0))
    row, source = _pairs(problem.can_serve & ~sure[None, :], asked, demand.location[asked])
    save = base[row] - problem.serving_price(row, source.astype(np.int32))
    kept = (save > 0) & (problem.standing[source] | _fits(problem, demand.segment[row], source))
    row, source, save = row[kept], source[kept], save[kept]
    keys = demand.segment[row].astype(np.int64) * n_sources + source
    needed = ~problem.standing[source]
    backed, backing = _backing(problem, chosen)
    copies = np.unique(np.concatenate([keys[needed], backing]))
    return Columns(
        arc_row=row,
        arc_source=source,
        arc_save=save,
        arc_copy=np.where(needed, np.searchsorted(copies, keys), -1),
        copy_segment=copies // n_sources,
        copy_source=copies % n_sources,
        copy_is_new=~problem.is_current(copies // n_sources, copies % n_sources),
        backed=backed,
    )


def _pairs(may_serve: Bool, rows: Int64, location: np.ndarray) -> tuple[Int64, Int64]:
    """All (row, source) with the source in reach of the row's location, by row."""
    at, source = np.nonzero(may_serve)
    starts = np.searchsorted(at, np.arange(len(may_serve) + 1))
    count = np.diff(starts)[location]
    first = np.repeat(starts[location] - np.cumsum(count) + count, count)
    return np.repeat(rows, count), source[first + np.arange(count.sum())]


def _fits(problem: PlacementProblem, segment: np.ndarray, source: np.ndarray) -> Bool:
    room = problem.sources.eligible[source] & (problem.segments.bytes[segment] <= problem.storage_limit_bytes[source])
    return np.asarray(room)


def _backing(problem: PlacementProblem, chosen: Bool) -> tuple[Int64, Int64]:
    """Segments that need a tier-1 copy, and the keys segment * N + POP of the copies that would do."""
    if not problem.settings.require_tier_one_copy or problem.standing.any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    backed, pops = np.flatnonzero(chosen), np.flatnonzero(problem.is_pop)
    segment, pop = np.repeat(backed, len(pops)), np.tile(pops, len(backed))
    keys = segment * len(problem.sources) + pop
    return backed, keys[_fits(problem, segment, pop)]


def _cost(problem: PlacementProblem, columns: Columns) -> Float64:
    push = columns.pushed_bytes(problem) * problem.push_price[columns.copy_source]
    fallback = np.full(len(columns.backed), problem.settings.origin_fallback_millidollars)
    return np.concatenate([-columns.served(problem) * columns.arc_save, push, fallback])


def _serve_what_is_held(rows: _Rows, columns: Columns) -> None:
    """(2) Only what is held is served."""
    held = np.flatnonzero(columns.arc_copy >= 0)
    at, one = np.arange(len(held)), np.ones(len(held))
    rows.add("2", np.zeros(len(held)), (at, columns.u[held], one), (at, columns.y[columns.arc_copy[held]], -one))


def _limits(problem: PlacementProblem, rows: _Rows, columns: Columns) -> None:
    """(3) Storage, (4) uplink and (5) movement."""
    limits = Limits.of(problem)
    size = problem.segments.bytes[columns.copy_segment] / UNIT_BYTES
    rows.add("3", limits.storage / UNIT_BYTES, (columns.copy_source, columns.y, size))
    row, source = columns.arc_row, columns.arc_source
    sent = columns.served(problem) * problem.demand_segment_bytes[row] / UNIT_BYTES
    limited = np.isfinite(limits.uplink[source])
    rows.add("4", limits.uplink / UNIT_BYTES, (source[limited], columns.u[limited], sent[limited]))
    one_row = np.zeros(len(columns.y), np.int64)
    pushed = columns.pushed_bytes(problem) / UNIT_BYTES
    rows.add("5", np.array([limits.movement / UNIT_BYTES]), (one_row, columns.y, pushed))


def _tier_one(problem: PlacementProblem, rows: _Rows, columns: Columns) -> None:
    """(7) A copy on tier 1, or the fallback."""
    backing = np.flatnonzero(problem.is_pop[columns.copy_source]) if len(columns.backed) else np.zeros(0, np.int64)
    at = np.searchsorted(columns.backed, columns.copy_segment[backing])
    z, free = np.arange(len(columns.backed)), np.full(len(columns.backed), np.inf)
    rows.add("7", free, (at, columns.y[backing], np.ones(len(at))), (z, columns.z, np.ones(len(z))), least=1.0)


def _coverage(problem: PlacementProblem, rows: _Rows, columns: Columns, row: Int64) -> Int64:
    """(2') Nodes together serve only while one of them is up; the rows of (1) that several nodes serve."""
    mesh = np.flatnonzero(~problem.is_pop[columns.arc_source])
    several = np.bincount(row[mesh], minlength=len(row)) > 1
    mesh = mesh[several[row[mesh]]]
    covered, at = np.unique(row[mesh], return_inverse=True)
    source, y = columns.arc_source[mesh], columns.arc_copy[mesh]
    for t in TANGENTS:
        slope = float(np.exp(-t))
        served = (at, columns.u[mesh], problem.sources.survival[source])
        rows.add(
            f"2'[{t}]",
            np.full(len(covered), 1 - slope - slope * t),
            served,
            (at, columns.y[y], -slope * problem.credit[source]),
        )
    return np.asarray(covered)


def _spread(problem: PlacementProblem, rows: _Rows, columns: Columns) -> None:
    """(8) Copies of a segment are spread over networks."""
    network = problem.sources.network[columns.copy_source].astype(np.int64)
    known = np.flatnonzero(network >= 0)
    key = columns.copy_segment[known] * (int(network.max(initial=0)) + 1) + network[known]
    _, at, count = np.unique(key, return_inverse=True, return_counts=True)
    limit = np.full(len(count), float(problem.settings.max_copies_per_network))
    rows.add("8", limit, (at, columns.y[known], np.ones(len(known))))
