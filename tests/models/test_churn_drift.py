"""Regime changes made from sessions: as strong as asked for, only when and where asked for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.churn.drift import RegimeChange, departure_rate, intensified
from models.churn.history import SessionHistory
from models.events import DAY_US, HOUR_US

INSTANT = pa.timestamp("us", tz="UTC")
DAYS = 20
FROM_US = 10 * DAY_US
END_US = DAYS * DAY_US


def exponential_history(nodes: int, seed: int) -> SessionHistory:
    """Nodes that leave after 20 h on average and are back after 2 h; noticed within the hour."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[object]] = {"node": [], "start": [], "end": [], "end_upper": [], "censored": []}
    end_of_log = DAYS * 24.0
    for i in range(nodes):
        clock = 0.0
        while clock < end_of_log:
            until = clock + rng.exponential(20.0)
            noticed = until + rng.uniform(0.0, 1.0)
            rows["node"].append(f"n{i}")
            rows["start"].append(round(clock * HOUR_US))
            rows["end"].append(round(min(until, end_of_log) * HOUR_US))
            rows["end_upper"].append(round(min(noticed, end_of_log) * HOUR_US))
            rows["censored"].append(until >= end_of_log)
            clock = noticed + rng.exponential(2.0)
    instants = ("start", "end", "end_upper")
    table = pa.table({k: pa.array(v, INSTANT) if k in instants else v for k, v in rows.items()})
    listed = {
        "source": [f"n{i}" for i in range(nodes)],
        "device_class": ["phone" if i % 2 else "home" for i in range(nodes)],
    }
    return SessionHistory.from_arrow(table, pa.table({**listed, "available_at": pa.array([0] * nodes, INSTANT)}))


@pytest.fixture(scope="module")
def history() -> SessionHistory:
    """200 nodes, about 1,900 departures after the change."""
    return exponential_history(200, seed=1)


def ratio(after: SessionHistory, before: SessionHistory, since_us: int = FROM_US, until_us: int = END_US) -> float:
    (n, hours), (m, hours_before) = (departure_rate(h, start_us=since_us, end_us=until_us) for h in (after, before))
    return (n / hours) / (m / hours_before)


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.5, 2.0, 4.0])
def test_intensified__the_rate_is_multiplied(history: SessionHistory, factor: float) -> None:
    """Within three standard errors of the Poisson counts, plus 2 % for what the life table cannot tell."""
    world = intensified(history, RegimeChange(FROM_US, factor), seed=5)
    n, m = (departure_rate(h, start_us=FROM_US, end_us=END_US)[0] for h in (world, history))
    error = 3.0 * np.sqrt(1.0 / n + 1.0 / m) + 0.02
    assert ratio(world, history) == pytest.approx(factor, rel=error)


def test_intensified__a_ramp_takes_its_time(history: SessionHistory) -> None:
    """Over five days from 1 to 3: about 2 on average meanwhile, 3 afterwards."""
    world = intensified(history, RegimeChange(FROM_US, 3.0, ramp_hours=120.0), seed=5)
    assert ratio(world, history, FROM_US, FROM_US + 5 * DAY_US) == pytest.approx(2.0, rel=0.15)
    assert ratio(world, history, FROM_US + 5 * DAY_US) == pytest.approx(3.0, rel=0.15)
    change = RegimeChange(FROM_US, 3.0, ramp_hours=120.0)
    instants = np.array([FROM_US - 1, FROM_US + 60 * HOUR_US, END_US])
    assert change.at(instants).tolist() == [1.0, 2.0, 3.0]


def test_intensified__only_the_nodes_named(history: SessionHistory) -> None:
    """Phones leave three times as often; the homes' sessions are the very same."""
    phones = history.device_class == "phone"
    world = intensified(history, RegimeChange(FROM_US, 3.0, among=phones), seed=5)
    (n, hours), (m, before) = (
        departure_rate(h, start_us=FROM_US, end_us=END_US, among=phones) for h in (world, history)
    )
    assert (n / hours) / (m / before) == pytest.approx(3.0, rel=0.15)
    mine, theirs = (h.select(history.nodes[~phones]) for h in (world, history))
    assert np.array_equal(mine.end_us, theirs.end_us)


def test_intensified__factor_one_and_nobody_are_the_history_itself(history: SessionHistory) -> None:
    """Nothing is drawn where nothing changes."""
    assert intensified(history, RegimeChange(FROM_US, 1.0), seed=5) is history
    nobody = np.zeros(len(history), dtype=np.bool_)
    assert intensified(history, RegimeChange(FROM_US, 4.0, among=nobody), seed=5) is history


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.1, 5.0), ramp=st.floats(0.0, 200.0), seed=st.integers(0, 1000))
def test_intensified__sessions_stay_a_log(factor: float, ramp: float, seed: int) -> None:
    """Known before the change as it was, in order, disjoint, ends before what noticed them, the same for a seed."""
    history = exponential_history(12, seed=2)
    change = RegimeChange(FROM_US, factor, ramp)
    world = intensified(history, change, seed=seed)
    again = intensified(history, change, seed=seed)
    for name in ("offsets", "start_us", "end_us", "end_upper_us", "censored"):
        assert np.array_equal(getattr(world.before(FROM_US), name), getattr(history.before(FROM_US), name))
        assert np.array_equal(getattr(world, name), getattr(again, name))
    node = world.node_of_session
    same = node[1:] == node[:-1]
    assert (world.start_us[1:][same] >= world.end_upper_us[:-1][same]).all()
    assert (world.end_us >= world.start_us).all()
    assert (world.end_upper_us >= world.end_us).all()
    assert (world.end_upper_us[world.censored] == world.end_us[world.censored]).all()
    assert world.end_upper_us.max() <= history.end_upper_us.max()


def test_intensified__departures_are_noticed_as_late_as_real_ones(history: SessionHistory) -> None:
    """Real ones within the hour, half an hour on average; added ones too."""
    world = intensified(history, RegimeChange(FROM_US, 4.0), seed=5)
    late = (world.end_upper_us - world.end_us)[~world.censored] / HOUR_US
    assert late.max() <= 1.0
    assert late.mean() == pytest.approx(0.5, abs=0.05)


def test_regime_change__refusals_name_the_value(history: SessionHistory) -> None:
    """No factor below nothing, no ramp backwards, a flag for each node, sessions to change."""
    with pytest.raises(ValueError, match=r"factor > 0, got 0.0. Expected ramp_hours >= 0, got -1.0"):
        RegimeChange(0, 0.0, -1.0)
    with pytest.raises(ValueError, match="Expected a flag for each of 200 nodes"):
        intensified(history, RegimeChange(FROM_US, 2.0, among=np.ones(3, dtype=np.bool_)), seed=0)
    with pytest.raises(ValueError, match="Expected sessions after from_us"):
        intensified(history, RegimeChange(2 * END_US, 2.0), seed=0)
