"""Sudden mass loss is one outage, not as many departures.

N departures of a network (or of the fleet) fall into a short window. With D departures in H node-hours before it, of a
network whose rate is shrunk towards the fleet's λ, n nodes up and x hours of exposure,

    μ = (κ + D) / (κ / λ + H) · n x          1 / r = 1 / (κ + D) + v          v spread of the rate from hour to hour
    P(≥ N) = I_{μ / (μ + r)}(N, r)           gamma-Poisson tail

and the window is an outage where that is below `level`, N is at least `least_nodes` and N / n at least the share asked.
A departure is known at `end_upper`, so windows are laid over these instants, and the exposure grows by the observation
interval: every departure of an hourly log shares its hour. Departures of a network's outage do not count for the fleet,
and those of earlier outages do not raise the rate. All of it looks back only: on `history.before(t)` an outage is there
as soon as its departures are.

What takes more than a day of a week is no outage but a new habit: when phones join a fleet of relays, hundreds leave in
every hour from then on, and each of them counts.

Where nearly the whole fleet was lost and came back together, nobody was looking: a hole of the observation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from models.churn.history import OPEN_US, UNKNOWN, Objects, SessionHistory
from models.churn.outage_search import around_of, hours_with, search
from models.churn.session_groups import Departures, SessionGroups
from models.events import DAY_US, HOUR_US, Bool, Float64, Int64

FLEET = -1
"""Network code of an outage of the whole fleet."""
_NOTHING = np.zeros(0, dtype=np.int64)
_HOLE_SHARE = 0.9
_TOGETHER_SHARE = 0.8


@dataclass(frozen=True)
class OutageSettings:
    """When departures are an outage."""

    window_hours: float = 1.0
    """Longest time between the first and the last departure of an outage that are recognised together."""
    rate_window_hours: float = 336.0
    """Hours before the window whose departures say what is usual."""
    level: float = 1e-6
    """Largest probability of so many departures at the usual rate."""
    least_nodes: int = 3
    """Fewest departures of an outage."""
    network_share: float = 0.25
    """Least share of the nodes up in a network that its outage takes."""
    fleet_share: float = 0.02
    """Least share of the nodes up in the fleet that its outage takes."""
    rate_spread: float = 0.25
    """Variance of the relative rate from hour to hour that is usual."""
    most_hours_a_week: float = 24.0
    """Most time that outages of one network, or of the fleet, take in a week: more is how its nodes behave now."""

    def __post_init__(self) -> None:
        checks = [(n, "> 0", getattr(self, n) > 0) for n in ("window_hours", "rate_window_hours", "most_hours_a_week")]
        checks += [(n, "in (0, 1]", 0 < getattr(self, n) <= 1) for n in ("level", "network_share", "fleet_share")]
        checks += [("least_nodes", ">= 2", self.least_nodes >= 2), ("rate_spread", ">= 0", self.rate_spread >= 0)]
        problems = [f"Expected {n} {rule}, got {getattr(self, n)!r}." for n, rule, holds in checks if not holds]
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True)
class Outages:
    """Outages, those of networks first, each group in time order. All are (outages,), `names` aside.

    Attributes:
        names: networks by code. (networks,)
        network: code of the network; -1 for the fleet.
        from_us: last instant at which all of the nodes may have been up.
        until_us: first instant at which all of them were known gone.
        lost: departures that belong to it.
        expected: departures that the usual rate expects in the same time.
        up: nodes that were up before it.
        hole: nearly all were lost and came back together, so nobody was looking.
    """

    names: Objects
    network: Int64
    from_us: Int64
    until_us: Int64
    lost: Int64
    expected: Float64
    up: Int64
    hole: Bool

    def __len__(self) -> int:
        return len(self.network)

    def rare(self, most_hours_a_week: float) -> Outages:
        """Those with which their network's, or the fleet's, of the week before take no longer; holes stay."""
        _, group = np.unique(self.network, return_inverse=True)
        order = np.lexsort((self.until_us, group))
        width = int(self.until_us.max(initial=0)) + 1
        key = group[order] * width + self.until_us[order]
        week_before = group[order] * width + np.maximum(self.until_us[order] - 7 * DAY_US, -1)
        total = np.concatenate([[0], np.cumsum((self.until_us - self.from_us)[order])])
        first = np.searchsorted(key, week_before, side="right")
        kept = self.hole.copy()
        kept[order] |= total[1:] - total[first] <= most_hours_a_week * HOUR_US
        columns = {f.name: getattr(self, f.name)[kept] for f in fields(self) if f.name != "names"}
        return replace(self, **columns)


@dataclass(frozen=True)
class OutageRates:
    """How often networks fail and how much goes with them, shrunk towards the fleet.

    Attributes:
        names: networks that ever had enough nodes up. (g,)
        per_hour: outages per hour of each. (g,)
        share: share of the nodes up that an outage of it takes. (g,)
        fleet_per_hour: outages per network and hour over all networks.
        fleet_share: mean share of the nodes up that they took.
    """

    names: Objects
    per_hour: Float64
    share: Float64
    fleet_per_hour: float
    fleet_share: float


def find_outages(history: SessionHistory, *, settings: OutageSettings | None = None, threads: int = 1) -> Outages:
    """Outages of every known network, then those of the fleet in what is left; see the module's equations."""
    settings = settings or OutageSettings()
    names, network = _networks(history)
    fleet = SessionGroups.of(history, threads=threads)
    networks = fleet.by(history, network[history.node_of_session], threads=threads)
    of_network = _bursts(networks, fleet, settings.network_share, settings)
    taken = np.zeros(len(history.start_us), dtype=np.bool_)
    taken[networks.departures.sessions[of_network.number >= 0]] = True
    left = fleet.without(taken)
    of_fleet = _bursts(left, None, settings.fleet_share, settings)
    parts = [
        _outages(history, networks.departures, of_network, network),
        _outages(history, left.departures, of_fleet, None),
    ]
    return Outages(names, *(np.concatenate([p[i] for p in parts]) for i in range(7))).rare(settings.most_hours_a_week)


def in_outage(history: SessionHistory, outages: Outages) -> Bool:
    """Which sessions ended in an outage (a hole of the observation is one too), shape (m,).

    Networks are matched by name, so the history may be a part of the one in which the outages were found.
    """
    found = np.zeros(len(history.start_us), dtype=np.bool_)
    for sessions, _ in _marked(history, outages):
        found[sessions] = True
    return found


def _marked(history: SessionHistory, outages: Outages) -> Iterator[tuple[Int64, int]]:
    """Sessions of each outage with its number, those of networks first."""
    code = {str(name): i for i, name in enumerate(outages.names)}
    names, coded = _coded(history.network)
    network = np.array([code.get(name, -2) for name in names.tolist()], dtype=np.int64)[coded]
    for groups, wanted in (
        (network[history.node_of_session], outages.network >= 0),
        (np.zeros(len(history.start_us), dtype=np.int64), outages.network == FLEET),
    ):
        hit = np.unique(np.maximum(outages.network[wanted], 0))
        departures = Departures.of(history, np.where(np.isin(groups, hit), groups, -1))
        for o in np.flatnonzero(wanted).tolist():
            g = max(int(outages.network[o]), 0)
            if g + 1 < len(departures.offsets):
                yield _members(departures, g, int(outages.from_us[o]), int(outages.until_us[o])), o


def outage_rates(
    history: SessionHistory, outages: Outages, *, least_nodes: int = 3, pseudo_outages: float = 1.0
) -> OutageRates:
    """Outages per network-hour, and the share that they take: gamma- and beta-shrunk towards the fleet's.

    A network counts for as long as at least `least_nodes` of its nodes were up; holes of the observation do not count.
    """
    names, network = _networks(history)
    groups = SessionGroups.of(history).by(history, network[history.node_of_session])
    hours: Float64 = hours_with(groups.start_us, groups.end_us, groups.offsets, least_nodes)
    code = {str(name): i for i, name in enumerate(names)}
    counted = np.flatnonzero((outages.network >= 0) & ~outages.hole)
    at = np.array([code[str(outages.names[outages.network[o]])] for o in counted], dtype=np.int64)
    number = np.bincount(at, minlength=len(hours)).astype(np.float64)
    share = outages.lost[counted] / np.maximum(outages.up[counted], 1)
    taken = np.bincount(at, weights=share, minlength=len(hours))
    kept = hours > 0
    fleet = (number.sum() + 0.5) / (hours.sum() + 24.0)
    fleet_share = float((share.sum() + 0.5) / (len(share) + 1.0))
    per_hour = (number + pseudo_outages) / (hours + pseudo_outages / fleet)
    shares = (taken + pseudo_outages * fleet_share) / (number + pseudo_outages)
    return OutageRates(names[: len(hours)][kept], per_hour[kept], shares[kept], float(fleet), fleet_share)


@dataclass(frozen=True)
class _Bursts:
    """Number of the outage of each departure (-1 for none); what was expected and who was up, by outage."""

    number: Int64
    expected: Float64
    up: Int64


def _bursts(groups: SessionGroups, around: SessionGroups | None, share: float, settings: OutageSettings) -> _Bursts:
    """Searches every group; the rate of each is shrunk towards that of what is `around` it, where there is anything."""
    hours = np.array([settings.window_hours, settings.rate_window_hours])
    limits = np.array([settings.level, float(settings.least_nodes), share, settings.rate_spread])
    number, expected, up = search(
        groups.start_us,
        groups.end_us,
        groups.offsets,
        groups.departures.low_us,
        groups.departures.known_us,
        groups.open,
        groups.departures.offsets,
        around_of(
            *((_NOTHING,) * 3 if around is None else (around.start_us, around.end_us, around.departures.known_us))
        ),
        hours * HOUR_US,
        limits,
    )
    outages = int(number.max(initial=-1)) + 1
    return _Bursts(number, expected[:outages], up[:outages])


def _outages(history: SessionHistory, departures: Departures, bursts: _Bursts, network: Int64 | None) -> list[Any]:
    """Columns of `Outages` from `network` on, of one search; `network=None` is the fleet."""
    n = len(bursts.expected)
    member = np.flatnonzero(bursts.number >= 0)
    number = bursts.number[member]
    from_us, until_us = np.full(n, np.iinfo(np.int64).max), np.zeros(n, dtype=np.int64)
    np.minimum.at(from_us, number, departures.low_us[member])
    np.maximum.at(until_us, number, departures.known_us[member])
    lost = np.bincount(number, minlength=n)
    code = np.full(n, FLEET, dtype=np.int64)
    if network is not None:
        code[number] = network[history.node_of_session[departures.sessions[member]]]
    together = _returned_together(history, departures.sessions[member], number, n)
    whole = network is None or not bool(np.any(network != network[:1]))
    hole = whole & (lost >= _HOLE_SHARE * bursts.up) & (together >= _TOGETHER_SHARE * lost)
    return [code, from_us, until_us, lost, bursts.expected, bursts.up, hole]


def _returned_together(history: SessionHistory, sessions: Int64, number: Int64, outages: int) -> Int64:
    """Of the nodes lost in each outage, those that came back within an hour of the median return."""
    node, after = history.node_of_session, np.minimum(sessions + 1, len(history.start_us) - 1)
    follows = (node[after] == node[sessions]) & (after > sessions)
    back = np.where(follows, history.start_us[after], -1)
    count = np.zeros(outages, dtype=np.int64)
    order = np.argsort(number, kind="stable")
    for o, instants in enumerate(np.split(back[order], np.searchsorted(number[order], np.arange(1, outages)))):
        returned = instants[instants >= 0]
        if o < outages and len(returned):
            count[o] = int(np.sum(np.abs(returned - np.median(returned)) <= HOUR_US))
    return count


def _members(departures: Departures, group: int, from_us: int, until_us: int) -> Int64:
    first, last = departures.offsets[group], departures.offsets[group + 1]
    known = departures.known_us[first:last]
    a, b = first + np.searchsorted(known, from_us), first + np.searchsorted(known, until_us, side="right")
    inside = np.arange(a, b)
    return departures.sessions[inside[departures.low_us[a:b] >= from_us]]


def _networks(history: SessionHistory) -> tuple[Objects, Int64]:
    """Names of the networks, and the code of each node; -1 where its network is unknown."""
    names, code = _coded(history.network)
    return names, np.where(names[code] == UNKNOWN, -1, code).astype(np.int64)


def _coded(labels: Objects) -> tuple[Objects, Int64]:
    """Sorted names, and the code of each label; hashed first, because sorting every label takes long."""
    import pandas as pd

    code, found = pd.factorize(labels, use_na_sentinel=False)
    names, place = np.unique(found.astype(str), return_inverse=True)
    return names.astype(object), place[code].astype(np.int64)


def with_outages(
    history: SessionHistory, *, settings: OutageSettings | None = None, threads: int = 1
) -> SessionHistory:
    """The history with the departures of recognised outages marked from the instant at which all were known.

    So marked, they raise no node's own rate (`SessionHistory.own_departure`), and views before that instant know
    nothing of it. A history that is marked already is returned as it is.
    """
    if history.outage_us is not None:
        return history
    outages = find_outages(history, settings=settings, threads=threads)
    known_us = np.full(len(history.start_us), OPEN_US, dtype=np.int64)
    for group, number in _marked(history, outages):
        known_us[group] = np.minimum(known_us[group], outages.until_us[number])
    return replace(history, outage_us=known_us)
