"""A churn model over a test window: what it said of the nodes at each origin beside what became of them.

Nodes that were up: how many stayed until each edge, by class and by how risky they were said to be, whether P(gone by
an edge) is honest, and whether that holds day by day. Nodes that were down: how many were up at each edge, and how many
had been back by then. Forecasts see nothing later than their origin; what happened is known until the end of the window,
and an interval of what was observed is over nodes (`models.churn.observed`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.churn.baselines import ForecastsChurn
from models.churn.edge_calibration import ClassCalibration, calibrations
from models.churn.evaluation import observation_holes
from models.churn.history import SessionHistory
from models.churn.joint import JointSurvival, network_codes
from models.churn.joint_evaluation import SetDraw, forecast_sets, joint_reliability
from models.churn.joint_fitting import states_at_edges
from models.churn.observed import REPLICATES, NodeResamples, compared, observed_stay
from models.churn.outages import with_outages
from models.churn.outcomes import Outcomes, concatenate, outcomes_at, returns_at
from models.compared import Compared
from models.events import DAY_US, HOUR_US, Bool, Float64, Int64
from models.forecast import ChurnForecast

FLEET = ""
"""Name of the group of all nodes."""
JOINT_KINDS = ("all", "within", "across")
QUARTERS = 4
BINS = 10
_ROWS_A_BIN = 20
_SHARED, _INDEPENDENT = "shared", "independent"


class NobodyUpError(ValueError):
    """There is nothing to compare: no node was up at any origin of the window."""


@dataclass(frozen=True)
class GroupTrack:
    """One device class, or the fleet.

    Attributes:
        name: device class; "" for the fleet.
        nodes: different nodes that were up at an origin; rows: nodes and origins; departures: rows that were seen to
            leave within the horizon.
        stay: P(stayed until the edge) beside what did. (B,)
        calibration: of P(gone by the edge).
        available: of nodes that were down, P(up at the edge) beside what was. (B,)
        returned: of nodes that were down, P(back at least once by the edge). (B,)
    """

    name: str
    nodes: int
    rows: int
    departures: int
    stay: Compared
    calibration: ClassCalibration
    available: Compared
    returned: Compared


@dataclass(frozen=True)
class JointTrack:
    """P(at least k of n replicas stay) in tenths of the forecast, all edges together.

    Attributes:
        kind: "all", or how the nodes of a set were drawn; see `models.churn.joint_evaluation`.
        shared: by the model's joint survival; intervals over blocks of consecutive origins.
        independent: as if departures shared nothing.
    """

    kind: str
    shared: Compared
    independent: Compared


@dataclass(frozen=True)
class ChurnTrack:
    """What one pass over a test window shows of a churn model.

    Attributes:
        start_us, end_us: the window; origins: how many forecasts were made in it.
        edges_hours: of the horizon. (B,)
        groups: the fleet, then each class where there are several.
        quarters: nodes by forecast time up within the horizon, the shortest first; fewer where forecasts are equal.
        reliability: P(gone by the edge) in bins of the forecast, one an edge.
        day_us: start of each day with origins; days: P(gone by the middle edge) of the origins of the day.
        joint: of replica sets; empty for a model without joint survival, and where no set could be drawn.
    """

    start_us: int
    end_us: int
    origins: int
    edges_hours: Float64
    groups: tuple[GroupTrack, ...]
    quarters: tuple[Compared, ...]
    reliability: tuple[Compared, ...]
    day_us: Int64
    days: Compared
    joint: tuple[JointTrack, ...] = ()

    @property
    def middle(self) -> int:
        """Index of the edge that sentences speak of."""
        return len(self.edges_hours) // 2


@dataclass(frozen=True)
class _Down:
    """Nodes that were known to be down at their origin. (n,) and (n, B)"""

    available: Float64
    up: Bool
    known: Bool
    returned: Float64
    outcomes: Outcomes

    def take(self, rows: Bool) -> _Down:
        return _Down(
            self.available[rows], self.up[rows], self.known[rows], self.returned[rows], self.outcomes.take(rows)
        )


def follow_churn(
    model: ForecastsChurn,
    history: SessionHistory,
    *,
    start_us: int,
    end_us: int,
    every_hours: float,
    joint: JointSurvival | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> ChurnTrack:
    """Forecasts at every origin in [start, end) beside the outcomes as known at the end of the window.

    Origins at which the observer was away are left out, as in the comparison.

    Args:
        model: forecaster.
        history: sessions; the model sees only what preceded each origin.
        start_us: first origin.
        end_us: origins lie before it, and outcomes are known until it.
        every_hours: spacing of the origins.
        joint: how departures go together, where the model says that.
        replicates: resampled fleets behind each interval.
        seed: of the resampling, and of the replica sets drawn.

    Raises:
        NobodyUpError: no node was up at any origin.
    """
    edges, history = model.edges_hours, with_outages(history)
    holes = observation_holes(history)
    origins = [
        at_us
        for at_us in range(start_us, end_us, round(every_hours * HOUR_US))
        if not any(first < at_us < last for first, last in holes)
    ]
    up, survival, down = [], [], []
    for at_us in origins:
        forecast = model.forecast(history, at_us=at_us)
        outcomes = outcomes_at(history, at_us=at_us, edges_hours=edges, until_us=end_us)
        up.append(outcomes)
        survival.append(forecast.survival[outcomes.node])
        down.append(_down(forecast, history, until_us=end_us))
    if not sum(map(len, up)):
        raise NobodyUpError(
            f"No node was up at any origin in [{start_us}, {end_us}); choose a window inside the history."
        )
    resamples = NodeResamples.draw(len(history), replicates=replicates, seed=seed)
    parts = _Parts(concatenate(up), np.concatenate(survival), _joined(down), resamples, history)
    day_us, days = parts.by_day(start_us, len(edges) // 2)
    return ChurnTrack(
        start_us,
        end_us,
        len(origins),
        edges,
        parts.groups(),
        parts.quarters(),
        parts.reliability(),
        day_us,
        days,
        () if joint is None else parts.joint(joint, seed=seed),
    )


@dataclass(frozen=True)
class _Parts:
    """Everything that was forecast, and what became of it."""

    outcomes: Outcomes
    survival: Float64
    down: _Down
    resamples: NodeResamples
    history: SessionHistory

    def groups(self) -> tuple[GroupTrack, ...]:
        classes = self.history.device_class.astype(str)
        names = np.unique(classes[self.outcomes.node])
        shown = [FLEET, *names] if len(names) > 1 else [FLEET]
        return tuple(self._group(str(name), np.asarray((classes == name) | (name == FLEET))) for name in shown)

    def _group(self, name: str, members: Bool) -> GroupTrack:
        rows = members[self.outcomes.node]
        outcomes, survival = self.outcomes.take(rows), self.survival[rows]
        down = self.down.take(members[self.down.outcomes.node])
        return GroupTrack(
            name,
            len(np.unique(outcomes.node)),
            len(outcomes),
            int(np.sum(outcomes.high > 0)),
            observed_stay(outcomes, survival, self.resamples),
            calibrations(outcomes, survival),
            self._available(down),
            observed_stay(down.outcomes, 1.0 - down.returned, self.resamples).complement(),
        )

    def _available(self, down: _Down) -> Compared:
        """Shares over the nodes whose state at the edge is known."""
        edges = down.available.shape[1]
        row, column = np.nonzero(down.known)
        node, count = down.outcomes.node[row], down.known.sum(axis=0)
        sums, total = (
            self.resamples.sums(node, column, columns=edges, value=value)
            for value in (down.up[row, column].astype(np.float64), None)
        )
        shares = np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0)
        stated = np.where(down.known, down.available, 0.0).sum(axis=0)
        forecast = np.divide(stated, count, out=np.full(edges, np.nan), where=count > 0)
        return compared(forecast, shares, count=count, nodes=len(np.unique(node)))

    def quarters(self) -> tuple[Compared, ...]:
        """Rows split at the quartiles of the forecast time up within the horizon."""
        widths = np.diff(self.outcomes.edges_hours, prepend=0.0)
        return tuple(self._stay(rows) for rows in _equal_parts(self.survival @ widths, QUARTERS))

    def reliability(self) -> tuple[Compared, ...]:
        bins = int(np.clip(len(self.outcomes) // _ROWS_A_BIN, 1, BINS))
        return tuple(
            _points([self._stay(rows) for rows in reversed(_equal_parts(stay, bins))], edge).complement()
            for edge, stay in enumerate(self.survival.T)
        )

    def by_day(self, start_us: int, edge: int) -> tuple[Int64, Compared]:
        """Days are counted from the start of the window."""
        day = (self.outcomes.at_us - start_us) // DAY_US
        days = np.unique(day)
        return start_us + days * DAY_US, _points([self._stay(day == d) for d in days], edge).complement()

    def joint(self, joint: JointSurvival, *, seed: int) -> tuple[JointTrack, ...]:
        if not states_at_edges(self.outcomes, self.survival)[1].any():
            return ()
        codes = network_codes(self.history.network)[self.outcomes.node]
        methods = {_SHARED: joint, _INDEPENDENT: JointSurvival.independent(self.outcomes.edges_hours)}
        sets = forecast_sets(methods, self.outcomes, self.survival, codes, draw=SetDraw(seed=seed))
        rows = joint_reliability(sets, seed=seed)
        return tuple(
            JointTrack(kind, _tenths(rows, _SHARED, kind), _tenths(rows, _INDEPENDENT, kind))
            for kind in JOINT_KINDS
            if any(row["kind"] == kind for row in rows)
        )

    def _stay(self, rows: Bool) -> Compared:
        return observed_stay(self.outcomes.take(rows), self.survival[rows], self.resamples)


def _down(forecast: ChurnForecast, history: SessionHistory, *, until_us: int) -> _Down:
    """Nodes that were known to be down at the origin: their states at the edges, and when they next came back."""
    outcomes = returns_at(history, at_us=forecast.origin_us, edges_hours=forecast.edges_hours, until_us=until_us)
    node = outcomes.node
    instants = [forecast.origin_us + round(e * HOUR_US) for e in forecast.edges_hours]
    up = np.column_stack([history.up_at(t)[node] for t in instants])
    known = np.column_stack([history.known_at(t)[node] & (t < until_us) for t in instants])
    return _Down(forecast.availability[node], up, known, forecast.returned[node], outcomes)


def _joined(parts: Sequence[_Down]) -> _Down:
    joined: Callable[[str], Float64] = lambda name: np.concatenate([getattr(part, name) for part in parts])  # noqa: E731
    return _Down(
        joined("available"),
        joined("up").astype(np.bool_),
        joined("known").astype(np.bool_),
        joined("returned"),
        concatenate([part.outcomes for part in parts]),
    )


def _equal_parts(values: Float64, parts: int) -> list[Bool]:
    """Rows in parts of about equal size by rising value; equal values share a part, so there may be fewer."""
    cuts = np.unique(np.quantile(values, np.linspace(0.0, 1.0, parts + 1)[1:-1]))
    part = np.searchsorted(cuts, values, side="left")
    return [np.asarray(part == p, dtype=np.bool_) for p in np.unique(part)]


def _tenths(rows: Sequence[Mapping[str, Any]], model: str, kind: str) -> Compared:
    names = ("predicted", "observed", "observed_low", "observed_high", "n")
    columns = np.array([[row[name] for name in names] for row in rows if (row["model"], row["kind"]) == (model, kind)])
    forecast, observed, low, high, count = columns.T.astype(np.float64)
    # A quantile of resampled means may miss their mean where there are few blocks.
    return Compared(forecast, observed, np.minimum(low, observed), np.maximum(high, observed), count)


def _points(curves: Sequence[Compared], edge: int) -> Compared:
    """The points of several curves at one edge."""
    names = ("forecast", "observed", "low", "high", "count")
    return Compared(*(np.array([getattr(curve, name)[edge] for curve in curves]) for name in names))
