"""Past origins with the logits that a model gave then and the outcomes that are known by now.

An outcome is followed until the log is settled: until nearly all departures before that instant would have been noticed.
Between there and now a node that has left still looks up, which would read as staying.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from models.churn.features import node_features
from models.churn.forecaster import ChurnForecaster
from models.churn.history import Objects, SessionHistory
from models.churn.outcomes import Outcomes, concatenate, outcomes_at
from models.events import HOUR_US, Bool, Float64, Int64

OutageMask = Callable[[SessionHistory], Bool]
"""Which sessions of a history ended in an outage: their departures are censored."""
_NOTICED = 0.95


@dataclass(frozen=True)
class MaturedRows:
    """Rows of several origins below each other.

    Attributes:
        logits: hazard logits of leaving, as the base model gives them. (n, B)
        outcomes: as known when the rows were asked for. (n)
        device_class: (n,)
        stands_for: nodes behind the row, more than one where nodes were thinned. (n,)
    """

    logits: Float64
    outcomes: Outcomes
    device_class: Objects
    stands_for: Float64

    def __len__(self) -> int:
        return len(self.outcomes)

    def between(self, since_us: int, until_us: int) -> MaturedRows:
        """Rows whose origin lies in [since, until)."""
        at = self.outcomes.at_us
        kept = (at >= since_us) & (at < until_us)
        return MaturedRows(self.logits[kept], self.outcomes.take(kept), self.device_class[kept], self.stands_for[kept])


@dataclass(frozen=True)
class Origin:
    """The nodes that were up at an instant, thinned, with their logits."""

    at_us: int
    node: Int64
    logits: Float64
    stands_for: float


@dataclass
class MaturedOrigins:
    """Reads origins of a model, each once as long as the same history is asked about.

    Attributes:
        base: the model.
        every_hours: spacing of the origins, on a grid of its own since 1970.
        nodes_each: most nodes of an origin; more are thinned at random.
        outages: sessions whose departures do not count.
    """

    base: ChurnForecaster
    every_hours: float
    nodes_each: int
    outages: OutageMask | None = None
    _history: SessionHistory | None = None
    _read: dict[int, Origin] = field(default_factory=dict)

    def rows(self, history: SessionHistory, *, since_us: int, at_us: int) -> MaturedRows | None:
        """Rows of the origins in [since, at), outcomes as known at `at_us`; None where nobody was up."""
        known, until_us = settled(history.before(at_us), at_us, self.outages)
        # An origin in what turned out to be a hole of the observation knows nothing.
        read = self.origins(history, since_us=since_us, until_us=until_us)
        origins = [o for o in read if len(o.node) and not known.in_hole(o.at_us)]
        if not origins:
            return None
        outcomes = concatenate([self._outcomes(known, o) for o in origins])
        return MaturedRows(
            np.concatenate([o.logits for o in origins]),
            outcomes,
            history.device_class[outcomes.node],
            np.concatenate([np.full(len(o.node), o.stands_for) for o in origins]),
        )

    def origins(self, history: SessionHistory, *, since_us: int, until_us: int) -> list[Origin]:
        """Origins in [since, until) after the first session."""
        every_us = round(self.every_hours * HOUR_US)
        if history is not self._history:
            self._history, self._read = history, {}
        first = max(since_us, int(history.start_us.min(initial=until_us)) + 1)
        return [self._origin(history, o) for o in range(-(-first // every_us) * every_us, until_us, every_us)]

    def forget(self, before_us: int) -> None:
        """Drops origins that will not be asked for again."""
        for at_us in [o for o in self._read if o < before_us]:
            del self._read[at_us]

    def _origin(self, history: SessionHistory, at_us: int) -> Origin:
        if at_us not in self._read:
            settings, population = self.base.settings, self.base.population
            features = node_features(history, at_us=at_us, population=population, settings=settings)
            up = np.flatnonzero(features.up)
            node = up
            if len(up) > self.nodes_each:
                rng = np.random.default_rng([at_us // HOUR_US, len(up)])
                node = np.sort(rng.choice(up, self.nodes_each, replace=False))
            logits = (
                self.base.logits(features.take(node), history.device_class[node])
                if len(node)
                else np.zeros((0, len(settings.edges_hours)))
            )
            self._read[at_us] = Origin(at_us, node, logits, len(up) / max(len(node), 1))
        return self._read[at_us]

    def _outcomes(self, known: SessionHistory, origin: Origin) -> Outcomes:
        found = outcomes_at(known, at_us=origin.at_us, edges_hours=self.base.edges_hours)
        return found.take(np.searchsorted(found.node, origin.node))


def settled(known: SessionHistory, at_us: int, outages: OutageMask | None = None) -> tuple[SessionHistory, int]:
    """What is known at `at_us`, followed until the log is settled, and that instant.

    A node seen after it was up at it. Departures in outages, those that the history marks unless a mask is given, end
    the time at risk without counting.
    """
    left = ~known.censored
    width = known.end_upper_us[left] - known.end_us[left]
    lag = int(np.quantile(width, _NOTICED)) if len(width) else 0
    until_us = at_us - lag
    cut = known.end_us >= until_us
    end = np.where(cut, np.minimum(known.end_us, np.maximum(until_us, known.start_us)), known.end_us)
    in_outage = ~known.own_departure if outages is None else outages(known)
    excused = cut | (in_outage & left)
    return (
        replace(
            known,
            end_us=end,
            end_upper_us=np.where(excused, end, known.end_upper_us),
            censored=known.censored | excused,
        ),
        until_us,
    )
