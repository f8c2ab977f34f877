"""Is P(at least k of n replicas stay) as forecast: sets drawn at each origin, forecasts by tenths against what happened.

A set is drawn about a survival u: nodes whose own forecasts lie next to it, n from 2 to 8, k from 1 to n. Half of the u
are those of the nodes, half are even in (0, 1), so that the forecasts of sets reach every tenth although most nodes
stay. Four kinds:

    within    all nodes in one network          across    no two in one network          mixed    half and half
    single    one node, k = 1: no dependence enters, so a gap here is the forecasts' own

Sets of one origin, and of origins within a horizon of each other, share nodes and departures, and so do sets of one
network at any time. An interval resamples both: blocks b of consecutive origins as long as the longest horizon, and
networks g, with counts N_b and M_g drawn with replacement,

    mean* = Σ_s N_b(s) M_g(s) x_s / Σ_s N_b(s) M_g(s)

A set of several networks counts to that of its first replica. (Owen 2007, the pigeonhole bootstrap: a little wide.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.churn.joint import JointSurvival, ReplicaSets
from models.churn.joint_fitting import states_at_edges
from models.churn.outcomes import Outcomes
from models.events import HOUR_US, Bool, Float64, Int64

KINDS = ("within", "across", "mixed", "single")
TENTHS = 10
_REPLICATES = 1000
_SAFE = 0.95
_FLOOR = 1e-6


@dataclass(frozen=True)
class SetDraw:
    """How replica sets are drawn."""

    sets_per_origin: int = 60
    """Sets of each kind drawn at an origin and edge."""
    most_replicas: int = 8
    """Largest set; the smallest has 2."""
    seed: int = 0
    """Seed of the draw."""

    def __post_init__(self) -> None:
        if self.sets_per_origin < 1 or self.most_replicas < 2:
            raise ValueError(
                f"Expected sets_per_origin >= 1 and most_replicas >= 2, got {self.sets_per_origin!r} and "
                f"{self.most_replicas!r}."
            )


@dataclass(frozen=True)
class DrawnSets:
    """Sets as rows of the outcomes: those of set s are `row[offsets[s]:offsets[s + 1]]`.

    Attributes:
        row: (m,)
        offsets: (sets + 1,)
        wanted: k of each set. (sets,)
    """

    row: Int64
    offsets: Int64
    wanted: Int64


@dataclass(frozen=True)
class SetForecasts:
    """Forecasts of drawn sets beside what happened.

    Attributes:
        methods: P(at least k stay) by method. (sets,) each
        kind: place in `KINDS`. (sets,)
        happened: 1 where at least k stayed. (sets,)
        block: consecutive origins that share departures. (sets,)
        network: that of the first replica; of its own where unknown. (sets,)
    """

    methods: Mapping[str, Float64]
    kind: Int64
    happened: Float64
    block: Int64
    network: Int64

    def of_kind(self, kind: str) -> Bool:
        """Sets of a kind; "all" is every kind but single."""
        single = self.kind == KINDS.index("single")
        return np.asarray(~single if kind == "all" else self.kind == KINDS.index(kind), dtype=np.bool_)


def forecast_sets(
    methods: Mapping[str, JointSurvival],
    outcomes: Outcomes,
    survival: Float64,
    network: Int64,
    *,
    draw: SetDraw | None = None,
) -> SetForecasts:
    """Draws sets at every origin and edge and forecasts each by every method.

    Args:
        methods: what is compared, by name; `JointSurvival.independent()` shows what correlation is worth.
        outcomes: of the nodes that were up at the origins.
        survival: each node's own forecast. (n, B)
        network: code of each row's network, -1 where unknown. (n,)
        draw: how sets are drawn.

    Raises:
        ValueError: no set could be drawn.
    """
    draw = draw or SetDraw()
    columns: dict[str, list[Any]] = {name: [] for name in methods}
    kinds, happened, block, owner = [], [], [], []
    known = np.where(network < 0, -1 - outcomes.node, network)
    block_us = round(float(outcomes.edges_hours[-1]) * HOUR_US)
    for b, kind, drawn, stays in _drawn_at_edges(outcomes, survival, network, draw):
        sets = ReplicaSets(survival[drawn.row, b], network[drawn.row], drawn.offsets)
        alive = np.add.reduceat(stays[drawn.row].astype(np.int64), drawn.offsets[:-1])
        kinds.append(np.full(len(sets), KINDS.index(kind), dtype=np.int64))
        happened.append((alive >= drawn.wanted).astype(np.float64))
        first = drawn.row[drawn.offsets[:-1]]
        block.append(outcomes.at_us[first] // block_us)
        owner.append(known[first])
        for name, joint in methods.items():
            hours = float(outcomes.edges_hours[b])
            columns[name].append(joint.at_least_of_sets(drawn.wanted, sets, hours=hours))
    if not kinds:
        raise ValueError("No replica set could be drawn: at no origin is the outcome of two nodes known.")
    together = {name: np.concatenate(parts) for name, parts in columns.items()}
    return SetForecasts(together, *(np.concatenate(parts) for parts in (kinds, happened, block, owner)))


def joint_reliability(forecasts: SetForecasts, *, seed: int = 0) -> list[dict[str, Any]]:
    """One row a method, kind of set ("all" too) and tenth of its forecast, all edges together.

    Returns:
        Rows of `model, kind, tenth, n, blocks, networks, predicted, observed, observed_low, observed_high`, the last
        two around the forecasts in the tenth, which are resampled with their outcomes; only tenths that hold sets.
    """
    return [
        {"model": name, "kind": kind, **row}
        for name in forecasts.methods
        for kind in ("all", *KINDS)
        for row in _tenths(forecasts, name, kind, seed)
    ]


def joint_scores(forecasts: SetForecasts, *, reference: str, seed: int = 0) -> list[dict[str, Any]]:
    """One row a method and kind: mean log loss, its difference from the reference, and failures of safe sets.

    A safe set is one that the reference forecasts to hold with at least 0.95: what placement counts on.

    Returns:
        Rows of `model, kind, n, log_loss, minus_reference, minus_reference_low, minus_reference_high, safe_sets,
        failures_expected, failures_observed`.
    """
    rows = []
    for kind in ("all", *KINDS):
        chosen = forecasts.of_kind(kind)
        if not chosen.any():
            continue
        happened = forecasts.happened[chosen]
        against = _log_loss(forecasts.methods[reference][chosen], happened)
        safe = forecasts.methods[reference][chosen] >= _SAFE
        for name, values in forecasts.methods.items():
            loss = _log_loss(values[chosen], happened)
            low, high = _interval(loss - against, forecasts.block[chosen], forecasts.network[chosen], seed=seed)
            rows.append(
                {
                    "model": name,
                    "kind": kind,
                    "n": int(chosen.sum()),
                    "log_loss": float(loss.mean()),
                    "minus_reference": float((loss - against).mean()),
                    "minus_reference_low": low,
                    "minus_reference_high": high,
                    "safe_sets": int(safe.sum()),
                    "failures_expected": float(np.sum(1.0 - values[chosen][safe])),
                    "failures_observed": float(np.sum(1.0 - happened[safe])),
                }
            )
    return rows


def _log_loss(forecast: Float64, happened: Float64) -> Float64:
    clipped = np.clip(forecast, _FLOOR, 1.0 - _FLOOR)
    return np.asarray(-np.log(np.where(happened > 0.0, clipped, 1.0 - clipped)), dtype=np.float64)


def worst_gap(rows: Sequence[dict[str, Any]], *, model: str, kind: str = "all", least_blocks: int = 5) -> float:
    """Largest |observed − predicted| over tenths that rest on enough blocks; nan where none does."""
    gaps = [
        abs(row["observed"] - row["predicted"])
        for row in rows
        if row["model"] == model and row["kind"] == kind and row["blocks"] >= least_blocks
    ]
    return max(gaps, default=float("nan"))


def _tenths(forecasts: SetForecasts, model: str, kind: str, seed: int) -> Iterator[dict[str, Any]]:
    chosen = forecasts.of_kind(kind)
    forecast, happened = forecasts.methods[model][chosen], forecasts.happened[chosen]
    block, network = forecasts.block[chosen], forecasts.network[chosen]
    tenth = np.minimum((forecast * TENTHS).astype(np.int64), TENTHS - 1)
    for t in np.unique(tenth):
        inside = tenth == t
        gap, predicted = happened[inside] - forecast[inside], float(forecast[inside].mean())
        low, high = _interval(gap, block[inside], network[inside], seed=seed)
        yield {
            "tenth": int(t),
            "n": int(inside.sum()),
            "blocks": len(np.unique(block[inside])),
            "networks": len(np.unique(network[inside])),
            "predicted": predicted,
            "observed": float(happened[inside].mean()),
            "observed_low": min(max(predicted + low, 0.0), 1.0),
            "observed_high": min(max(predicted + high, 0.0), 1.0),
        }


def _interval(values: Float64, block: Int64, network: Int64, *, seed: int) -> tuple[float, float]:
    """95 % interval of the mean when blocks and networks are resampled, both with replacement."""
    rng = np.random.default_rng(seed)
    (_, b), (_, g) = (np.unique(codes, return_inverse=True) for codes in (block, network))
    shape = blocks, networks = int(b.max()) + 1, int(g.max()) + 1
    cell = b * networks + g
    total, count = (
        np.bincount(cell, weights=w, minlength=blocks * networks).reshape(shape) for w in (values, np.ones(len(values)))
    )
    drawn_blocks = rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), _REPLICATES).astype(np.float64)
    drawn_networks = rng.multinomial(networks, np.full(networks, 1.0 / networks), _REPLICATES)
    sums, sizes = (np.sum((drawn_blocks @ part) * drawn_networks, axis=1) for part in (total, count))
    low, high = np.quantile(sums[sizes > 0] / sizes[sizes > 0], [0.025, 0.975])
    return float(low), float(high)


def _drawn_at_edges(
    outcomes: Outcomes, survival: Float64, network: Int64, draw: SetDraw
) -> Iterator[tuple[int, str, DrawnSets, Bool]]:
    alive, usable = states_at_edges(outcomes, survival)
    for b in range(len(outcomes.edges_hours)):
        for number, kind in enumerate(KINDS):
            rng = np.random.default_rng([draw.seed, b, number])
            found: list[tuple[Int64, int]] = []
            for at_us in np.unique(outcomes.at_us):
                rows = np.flatnonzero((outcomes.at_us == at_us) & usable[:, b])
                found += _draw(kind, rows, survival[rows, b], network[rows], draw, rng)
            if found:
                sizes = [len(rows) for rows, _ in found]
                offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
                wanted = np.array([k for _, k in found], dtype=np.int64)
                yield b, kind, DrawnSets(np.concatenate([rows for rows, _ in found]), offsets, wanted), alive[:, b]


def _draw(
    kind: str, rows: Int64, survival: Float64, network: Int64, draw: SetDraw, rng: np.random.Generator
) -> list[tuple[Int64, int]]:
    """Sets of one kind at one origin: rows of each and its k."""
    order = np.argsort(survival, kind="stable")
    rows, survival, network = rows[order], survival[order], network[order]
    code, size = np.unique(network, return_counts=True)
    several = np.isin(network, code[(size > 1) & (code >= 0)])
    found = []
    for _ in range(draw.sets_per_origin):
        n = int(rng.integers(2, draw.most_replicas + 1))
        about = rng.random() if rng.random() < 0.5 or not len(rows) else survival[rng.integers(len(rows))]
        chosen = _chosen(kind, survival, network, several, about, 1 if kind == "single" else n, rng)
        if len(chosen) > 1 or (kind == "single" and len(chosen)):
            found.append((rows[chosen], int(rng.integers(1, len(chosen) + 1))))
    return found


def _chosen(
    kind: str, survival: Float64, network: Int64, several: Bool, about: float, n: int, rng: np.random.Generator
) -> Int64:
    nobody = np.zeros(0, dtype=np.int64)
    if kind == "within":
        return _within(survival, network, several, about, n, rng)
    if kind != "mixed":
        return _across(survival, network, about, n, rng, apart_from=nobody)
    half = _within(survival, network, several, about, n - n // 2, rng)
    return np.concatenate([half, _across(survival, network, about, n - len(half), rng, apart_from=network[half])])


def _within(survival: Float64, network: Int64, several: Bool, about: float, n: int, rng: np.random.Generator) -> Int64:
    """Up to n nodes of the network of a node near the wanted survival, those most like it."""
    candidates = np.flatnonzero(several)
    if not len(candidates):
        return candidates
    pivot = rng.choice(_nearest(survival[candidates], about, 2 * n))
    members = np.flatnonzero(network == network[candidates[pivot]])
    like = members[_nearest(survival[members], about, 2 * n)]
    return np.asarray(rng.permutation(like)[:n], dtype=np.int64)


def _across(
    survival: Float64, network: Int64, about: float, n: int, rng: np.random.Generator, *, apart_from: Int64
) -> Int64:
    """Up to n nodes near the wanted survival, no two in one network."""
    taken = set(apart_from.tolist())
    chosen: list[int] = []
    for i in rng.permutation(_nearest(survival, about, 8 * n)):
        own = int(network[i])
        if len(chosen) < n and (own < 0 or own not in taken):
            chosen.append(int(i))
            taken.add(own)
    return np.array(chosen, dtype=np.int64)


def _nearest(rising: Float64, about: float, count: int) -> Int64:
    """Positions of about `count` values next to `about` in a rising array."""
    place = int(np.searchsorted(rising, about))
    first = max(0, min(place - count // 2, len(rising) - count))
    return np.arange(first, min(first + count, len(rising)), dtype=np.int64)
