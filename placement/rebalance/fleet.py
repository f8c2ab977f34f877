"""The sources while events are applied to them: who is up, who is away, and why.

A failed source loses its eligibility. A network that loses more than a share of its live nodes at once, and at least a
few, is out: its nodes serve nothing (survival 0) but keep their copies, until patience ends and they count as failed. A
draining source is up for the part of the horizon before it leaves. Whoever is back is as it was before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from placement.problem import Bool, Float64, Ids, Int32, PlacementProblem
from placement.rebalance.events import (
    Event,
    NetworkOutage,
    NodeDraining,
    NodeFailed,
    NodeJoined,
    NodeOverloaded,
    OutageEnded,
    SurvivalChanged,
)
from placement.rebalance.memory import Away, Memory, Return, Standing
from placement.rebalance.settings import RebalanceSettings

US_PER_SECOND = 1e6
DAY_SECONDS = 86_400.0
GONE = ("out", "failed")


def recent_returns(memory: Memory, settings: RebalanceSettings) -> list[Return]:
    """Returns that the rebalance after this memory still remembers."""
    since = memory.rebalances + 1 - settings.remembered_rebalances
    return [back for back in memory.returns if back.rebalance > since]


@dataclass
class Fleet:
    """State of every source, by code; see `Memory` for what is remembered of those that are away."""

    ids: list[str]
    code: dict[str, int]
    network: Int32
    survival: Float64
    uplink: Float64
    eligible: Bool
    cause: Ids
    joined: Bool
    settings: RebalanceSettings
    away: dict[str, Away]
    outages: dict[int, int]
    horizon_seconds: float
    network_names: Mapping[int, str]
    returned: set[str] = field(default_factory=set)
    """Sources that are back with what they held."""
    emptied: set[str] = field(default_factory=set)
    """Sources that are back with nothing."""
    recovered: set[str] = field(default_factory=set)
    """Those of both that had failed or been out, in this rebalance or a recent one: they may do so again."""

    @classmethod
    def of(
        cls,
        problem: PlacementProblem,
        settings: RebalanceSettings,
        memory: Memory,
        *,
        horizon_seconds: float = DAY_SECONDS,
        network_names: Mapping[int, str] | None = None,
    ) -> Fleet:
        sources = problem.sources
        ids = sources.source.tolist()
        code = {source: at for at, source in enumerate(ids)}
        return cls(
            ids=ids,
            code=code,
            network=sources.network,
            survival=sources.survival.copy(),
            uplink=sources.uplink_bytes.copy(),
            eligible=sources.eligible.copy(),
            cause=np.full(len(ids), "", dtype=object),
            joined=np.zeros(len(ids), dtype=np.bool_),
            settings=settings,
            away={away.source: away for away in memory.away if away.source in code},
            outages={outage.network: outage.since_us for outage in memory.outages},
            horizon_seconds=horizon_seconds,
            network_names=network_names or {},
            recovered={back.source for back in recent_returns(memory, settings)},
        )

    def apply(self, events: Sequence[Event], now_us: int) -> None:
        """Returns first, then changes, then failures and outages, judged together."""
        for event in events:
            if isinstance(event, NodeJoined):
                words = "is back" if event.source in self.away else "joined"
                self._restore(self.code[event.source], f"{event.source} {words}", event.kept_copies)
            elif isinstance(event, OutageEnded):
                self._end_outage(event.network)
        for event in events:
            self._change(event)
        self._fail_all([self.code[event.source] for event in events if isinstance(event, NodeFailed)], now_us)
        for event in events:
            if isinstance(event, NetworkOutage):
                stays = np.array([source in event.back for source in self.ids], dtype=np.bool_)
                self._take_out(np.flatnonzero((self.network == event.network) & self.eligible & ~stays), now_us)
        self._lose_patience(now_us)

    def having(self, *standings: str) -> Bool:
        """Sources that stand so, (N,)."""
        mine = np.zeros(len(self.ids), dtype=np.bool_)
        mine[[self.code[source] for source, away in self.away.items() if away.standing in standings]] = True
        return mine

    def survival_after_outages(self) -> Float64:
        """What survival is believed to be once the outages are over, (N,)."""
        survival = self.survival.copy()
        for n in np.flatnonzero(self.having("out")):
            survival[n] = self.away[self.ids[n]].survival
        return survival

    def _change(self, event: Event) -> None:
        if isinstance(event, NodeDraining):
            share = event.leaves_in_seconds / self.horizon_seconds
            words = f"{event.source} leaves in {event.leaves_in_seconds:g} s"
            self._lower(self.code[event.source], "draining", words, survival=share)
        elif isinstance(event, NodeOverloaded):
            self._lower(self.code[event.source], "changed", f"{event.source} is overloaded", uplink=event.uplink_bytes)
        elif isinstance(event, SurvivalChanged):
            self._set_survival(self.code[event.source], event.survival)

    def _fail_all(self, failing: Sequence[int], now_us: int) -> None:
        """Failures of a network are an outage when they are many at once; else each is a failure."""
        live = self.eligible & (self.survival > 0)
        failed = np.zeros(len(self.ids), dtype=np.bool_)
        failed[list(failing)] = True
        failed &= ~self.having(*GONE)
        for network in np.unique(self.network[failed & (self.network >= 0)]).tolist():
            mine = failed & (self.network == network)
            many = int(mine.sum()) >= self.settings.outage_least_nodes
            most = mine.sum() > self.settings.outage_share * (live & (self.network == network)).sum()
            if network in self.outages or (many and most):
                self._take_out(np.flatnonzero(mine), now_us)
                failed &= ~mine
        for n in np.flatnonzero(failed).tolist():
            self._fail(n, f"{self.ids[n]} failed")

    def _take_out(self, which: np.ndarray, now_us: int) -> None:
        gone = self.having(*GONE)
        for n in which[~gone[which]].tolist():
            network = int(self.network[n])
            self.outages.setdefault(network, now_us)
            self._remember(n, "out")
            self.survival[n], self.cause[n] = 0.0, f"{self._network(network)} is out"

    def _lose_patience(self, now_us: int) -> None:
        for network, since_us in sorted(self.outages.items()):
            out = self.having("out") & (self.network == network)
            if not out.any():
                del self.outages[network]  # its nodes came back one by one
            elif now_us - since_us >= self.settings.patience_seconds * US_PER_SECOND:
                del self.outages[network]
                for n in np.flatnonzero(out).tolist():
                    self._fail(n, f"{self._network(network)} did not come back")

    def _end_outage(self, network: int) -> None:
        for n in np.flatnonzero(self.having(*GONE) & (self.network == network)).tolist():
            self._restore(n, f"{self._network(network)} is back", kept_copies=True)

    def _fail(self, n: int, cause: str) -> None:
        self._remember(n, "failed")
        self.survival[n], self.eligible[n], self.cause[n] = self.away[self.ids[n]].survival, False, cause

    def _restore(self, n: int, cause: str, kept_copies: bool) -> None:
        before = self.away.pop(self.ids[n], None)
        if before is not None:
            self.survival[n], self.uplink[n], self.eligible[n] = before.survival, before.uplink_bytes, before.eligible
            if before.standing in GONE:
                self.recovered.add(self.ids[n])
        self.cause[n], self.joined[n] = cause if kept_copies else f"{cause} with nothing", True
        (self.returned if kept_copies else self.emptied).add(self.ids[n])

    def _lower(self, n: int, standing: Standing, cause: str, *, survival: float = 1.0, uplink: float = np.inf) -> None:
        """Lowers survival or uplink of a source that is up."""
        away = self.away.get(self.ids[n])
        if away is not None and away.standing in GONE:
            return
        self._remember(n, standing)
        self.survival[n] = min(self.survival[n], survival)
        self.uplink[n] = min(self.uplink[n], uplink)
        self._say(n, cause)

    def _set_survival(self, n: int, survival: float) -> None:
        """The new probability of a source that is up; of one that is gone, for its return."""
        away = self.away.get(self.ids[n])
        if away is not None:
            self.away[self.ids[n]] = replace(away, survival=survival)
        if (away is None or away.standing not in GONE) and survival != self.survival[n]:
            self.survival[n] = survival
            self._say(n, f"survival of {self.ids[n]} is now {survival:g}")

    def _network(self, code: int) -> str:
        return f"network {self.network_names.get(code, code)}"

    def _say(self, n: int, cause: str) -> None:
        self.cause[n] = f"{self.cause[n]}; {cause}".removeprefix("; ")

    def _remember(self, n: int, standing: Standing) -> None:
        source = self.ids[n]
        now = Away(source, standing, float(self.survival[n]), float(self.uplink[n]), bool(self.eligible[n]))
        before = self.away.get(source, now)
        drains = before.standing == "draining" and standing == "changed"
        self.away[source] = replace(before, standing="draining" if drains else standing)
