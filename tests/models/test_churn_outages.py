"""Mass loss is an outage, many departures are not; seen continuously, hourly, or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import pyarrow as pa
import pytest

from models.churn.history import SessionHistory
from models.churn.outages import FLEET, OutageSettings, find_outages, in_outage, outage_rates
from models.churn.session_groups import order_by
from models.events import HOUR_US

INSTANT = pa.timestamp("us", tz="UTC")
DAYS = 20
END = DAYS * 24.0


@dataclass
class Log:
    """Sessions in hours since the log began; `hourly` logs know a departure only by the next whole hour."""

    hourly: bool = False
    network: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[str, float, float, bool]] = field(default_factory=list)

    def up(self, node: str, network: str, *periods: tuple[float, float]) -> None:
        """Periods up; one that reaches the end of the log has no departure."""
        self.network[node] = network
        self.rows += [(node, start, end, end >= END) for start, end in periods]

    def history(self) -> SessionHistory:
        def instants(hours: Sequence[float]) -> pa.Array:
            return pa.array([round(h * HOUR_US) for h in hours], INSTANT)

        rows = [_seen_hourly(r) for r in self.rows] if self.hourly else self.rows
        rows = [r for r in rows if r[2] >= r[1]]  # a session between two looks is not seen at all
        table = pa.table(
            {
                "node": [r[0] for r in rows],
                "start": instants([r[1] for r in rows]),
                "end": instants([r[2] for r in rows]),
                "end_upper": instants([r[2] + 1.0 if self.hourly and not r[3] else r[2] for r in rows]),
                "censored": [r[3] for r in rows],
            }
        )
        nodes = pa.table({"source": list(self.network), "network": list(self.network.values())})
        return SessionHistory.from_arrow(table, nodes, holes=())


def _seen_hourly(row: tuple[str, float, float, bool]) -> tuple[str, float, float, bool]:
    node, start, end, still_up = row
    return node, math.ceil(start), end if still_up else math.floor(end), still_up


def steady(log: Log, *, networks: int, size: int, per_day: float = 0.1, seed: int = 0) -> Log:
    """Nodes that leave independently, on average `per_day` times a day each, and are back two hours later."""
    rng = np.random.default_rng(seed)
    for g in range(networks):
        for i in range(size):
            clock, periods = 0.0, []
            while clock < END:
                until = clock + rng.exponential(24.0 / per_day)
                periods.append((clock, min(until, END)))
                clock = until + 2.0
            log.up(f"steady-{g}-{i}", f"g{g}", *periods)
    return log


def cluster(log: Log, *, size: int, at: float, back: float, network: str = "fails", spread: float = 0.05) -> Log:
    """A network whose nodes all leave within `spread` hours and come back `back` hours later, one after the other."""
    for i in range(size):
        gone = at + spread * i / size
        log.up(f"{network}-{i}", network, (0.0, gone), (gone + back + 1.7 * i / size, END))
    return log


@pytest.mark.parametrize("hourly", [False, True])
def test_find_outages__a_network_that_fails(hourly: bool) -> None:
    """12 nodes of one network within three minutes, among 300 independent ones: one outage, of that network."""
    history = cluster(steady(Log(hourly), networks=30, size=10), size=12, at=300.3, back=5.0).history()
    found = find_outages(history)
    assert found.names[found.network].tolist() == ["fails"]
    assert (found.lost[0], found.up[0]) == (12, 12)
    assert found.expected[0] < 0.5
    assert not found.hole[0]
    hour = found.from_us[0] / HOUR_US, found.until_us[0] / HOUR_US
    assert hour == ((300.0, 301.0) if hourly else pytest.approx((300.3, 300.3 + 0.05 * 11 / 12)))
    ended = in_outage(history, found)
    node = history.nodes[history.node_of_session[ended]].astype(str)
    assert sorted(node) == sorted(f"fails-{i}" for i in range(12))


@pytest.mark.parametrize("hourly", [False, True])
def test_find_outages__a_thousand_independent_departures_over_a_day_are_none(hourly: bool) -> None:
    """1,500 nodes that leave 0.7 times a day make about a thousand departures each day, and no outage."""
    history = steady(Log(hourly), networks=150, size=10, per_day=0.7).history()
    last_day = ~history.censored & (history.end_us > (END - 24) * HOUR_US)
    assert 850 < last_day.sum() < 1150
    assert len(find_outages(history)) == 0


def test_find_outages__a_rate_that_doubles_is_none() -> None:
    """More departures, spread over days, are a change of rate: other parts of the model learn that."""
    log = steady(Log(hourly=True), networks=60, size=10, per_day=0.3)
    rng = np.random.default_rng(1)
    for i in range(600):
        log.up(f"late-{i}", f"h{i // 10}", (0.0, rng.uniform(240.0, END - 0.1)))
    assert len(find_outages(log.history())) == 0


def test_find_outages__the_fleet_loses_many_at_once() -> None:
    """One node in each of 40 networks leaves in the same hour for good, and half of those before it: mass loss."""
    log = steady(Log(hourly=True), networks=40, size=10, per_day=0.05)
    for g in range(40):
        log.up(f"gone-{g}", f"g{g}", (0.0, 300.2 + g / 100))
    history = log.history()
    found = find_outages(history)
    assert found.network.tolist() == [FLEET]
    assert 40 <= found.lost[0] <= 43
    assert not found.hole[0]
    assert in_outage(history, found).sum() == found.lost[0]


def test_find_outages__nobody_was_looking() -> None:
    """All of the fleet lost in one hour and back together seven hours later is a hole of the observation.

    The same loss where each comes back in its own time is an outage of the fleet.
    """
    for together in (True, False):
        log, rng = Log(hourly=True), np.random.default_rng(2)
        for i in range(200):
            back = 310.0 if together else float(rng.uniform(304.0, 450.0))
            log.up(f"n{i}", f"g{i}", (0.0, 302.5), (back, END))
        found = find_outages(log.history())
        assert (found.network.tolist(), found.lost.tolist()) == ([FLEET], [200])
        assert found.hole.tolist() == [together]


def test_find_outages__two_of_a_network_are_not_enough() -> None:
    """Two nodes that leave together may do so by chance; a settings value says how many are asked."""
    log = cluster(steady(Log(), networks=20, size=5), size=2, at=300.0, back=5.0)
    assert len(find_outages(log.history())) == 0
    lower = OutageSettings(least_nodes=2, level=1e-4)
    found = find_outages(log.history(), settings=lower)
    assert "fails" in found.names[found.network[found.network >= 0]]


def test_find_outages__a_network_that_always_fails_has_a_rate_of_its_own() -> None:
    """Six nodes that come and go every two hours are busy, not failing."""
    log = steady(Log(), networks=30, size=10)
    rng = np.random.default_rng(5)
    for i in range(6):
        edges = np.cumsum(rng.exponential(1.0, 500))
        log.up(f"busy-{i}", "busy", *((a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if b < END))
    assert len(find_outages(log.history())) == 0


@pytest.mark.parametrize("hourly", [False, True])
def test_find_outages__looks_back_only(hourly: bool) -> None:
    """What was known at an instant is found at it: later sessions change nothing, and before it there is nothing."""
    log = cluster(steady(Log(hourly), networks=30, size=10), size=12, at=300.3, back=5.0)
    history = cluster(log, size=8, at=400.1, back=3.0, network="later").history()
    assert len(find_outages(history.before(300 * HOUR_US))) == 0
    then, all_of_it = find_outages(history.before(302 * HOUR_US)), find_outages(history)
    assert len(all_of_it) == 2
    first = int(np.argmin(all_of_it.until_us))
    for name in ("from_us", "until_us", "lost", "expected", "up", "hole"):
        assert getattr(then, name)[0] == getattr(all_of_it, name)[first]


def test_in_outage__a_part_of_the_history() -> None:
    """Outages are matched by the network's name, so they serve any selection of nodes."""
    history = cluster(steady(Log(), networks=30, size=10), size=12, at=300.3, back=5.0).history()
    part = history.select(["fails-3", "steady-0-0"])
    ended = in_outage(part, find_outages(history))
    assert ended.tolist() == [True, *[False] * (len(part.start_us) - 1)]


def test_outage_rates__per_network_hour() -> None:
    """One outage in 30 networks of ten over 480 h: about 1 / 14,880 per network and hour; the failed one is above."""
    history = cluster(steady(Log(), networks=30, size=10), size=12, at=300.3, back=5.0).history()
    rates = outage_rates(history, find_outages(history))
    # (1 + 0.5) / (31 x 480 + 24), less the five hours of the outage.
    assert rates.fleet_per_hour == pytest.approx(1.5 / 14_900, rel=0.01)
    assert len(rates.names) == 31
    failed = rates.names.tolist().index("fails")
    assert rates.per_hour[failed] == rates.per_hour.max()
    # (1 + 1) / (475 + 14,900 / 1.5): shrunk towards the fleet by one outage.
    assert rates.per_hour[failed] == pytest.approx(2.0 / (475.0 + 14_900 / 1.5), rel=0.01)
    assert rates.share[failed] == pytest.approx((1.0 + 0.75) / 2.0)


def test_find_outages__without_networks_or_sessions() -> None:
    """Nodes of unknown network are searched as a fleet; an empty log has no outages."""
    log = Log()
    for i in range(50):
        log.up(f"n{i}", "unknown", (0.0, 300.0 + i / 200))
    assert find_outages(log.history()).network.tolist() == [FLEET]
    nodes = pa.table({"source": ["a"]})
    empty = pa.table({"node": pa.array([], pa.string()), "start": pa.array([], INSTANT), "end": pa.array([], INSTANT)})
    assert len(find_outages(SessionHistory.from_arrow(empty, nodes))) == 0


def test_outage_settings__are_checked() -> None:
    """A share of 0 would call every departure an outage."""
    with pytest.raises(ValueError, match=r"network_share in \(0, 1\], got 0"):
        OutageSettings(network_share=0.0)


def test_order_by__is_the_librarys() -> None:
    """Sorted by the last key, ties by the one before it, then by row; negative instants too, and nothing at all."""
    rng = np.random.default_rng(0)
    low, high = rng.integers(-5_000_000, 5_000_000, 4_000), rng.integers(0, 7, 4_000)
    assert order_by(low, high).tolist() == np.lexsort((low, high)).tolist()
    assert order_by(high).tolist() == np.argsort(high, kind="stable").tolist()
    assert order_by(np.zeros(0, dtype=np.int64)).tolist() == []


def test_find_outages__does_not_depend_on_threads() -> None:
    """A fleet with an outage, hourly: the same outages from one thread and from two."""
    history = cluster(steady(Log(hourly=True), networks=30, size=10), size=12, at=300.3, back=5.0).history()
    one, two = (find_outages(history, threads=threads) for threads in (1, 2))
    assert len(one) == 1
    assert all(np.array_equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(one))


def test_new_habit__is_no_outage_that_never_ends() -> None:
    """Phones join a fleet of relays on day 10 and leave every other hour from then on: each departure is a phone's own."""
    log = steady(Log(), networks=10, size=12, per_day=0.05, seed=3)
    rng = np.random.default_rng(4)
    for i in range(80):
        starts = np.arange(240.0 + rng.uniform(0, 2), END - 3.0, 2.0)
        log.up(f"phone-{i}", f"carrier-{i % 8}", *((t, t + rng.uniform(0.5, 1.5)) for t in starts.tolist()))
    history = log.history()
    late = history.start_us >= 12 * 24 * HOUR_US
    gone = late & ~history.censored
    assert gone.sum() > 5_000
    assert in_outage(history, find_outages(history))[gone].mean() < 0.05
    # what it was before: once the fleet's rate is exceeded, nothing that follows raises it
    endless = find_outages(history, settings=OutageSettings(most_hours_a_week=1e6))
    assert in_outage(history, endless)[gone].mean() > 0.5
