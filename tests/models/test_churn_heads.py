"""What the heads of the churn model read and answer: surroundings, outages, returns, straddling departures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models.churn.features import feature_names, node_features
from models.churn.forecaster import ChurnForecaster
from models.churn.history import OPEN_US, SessionHistory
from models.churn.markov import PopulationRates, availability_after_return
from models.churn.outages import with_outages
from models.churn.outcomes import Outcomes, marginal_survival, returns_at
from models.churn.settings import ChurnSettings
from models.churn.surroundings import surrounding_hazards, surroundings_names
from models.churn.training import fit_churn, fit_parts
from models.events import DAY_US, HOUR_US, Float64
from tests.models.test_churn import SMALL, TRAIN, VALIDATION, renewal_history

INSTANT = pa.timestamp("us", tz="UTC")


def sessions(rows: list[tuple[str, float, float, bool]], networks: dict[str, str] | None = None) -> SessionHistory:
    """Sessions (node, start, end, censored) in hours; nodes are observed from 0."""
    names = sorted({row[0] for row in rows})
    table = pa.table(
        {
            "node": [row[0] for row in rows],
            "start": pa.array([round(row[1] * HOUR_US) for row in rows], INSTANT),
            "end": pa.array([round(row[2] * HOUR_US) for row in rows], INSTANT),
            "censored": [row[3] for row in rows],
        }
    )
    nodes = pa.table(
        {
            "source": names,
            "network": [(networks or {}).get(name, "one") for name in names],
            "available_at": pa.array([0] * len(names), INSTANT),
        }
    )
    return SessionHistory.from_arrow(table, nodes, holes=())


def hourly_fleet(calm: int, restless: int) -> SessionHistory:
    """Nodes of network "calm" never leave; those of "restless" are up for 2 h and down for 1 h, again and again."""
    rows = [(f"c{i}", 0.0, 100.0, True) for i in range(calm)]
    for i in range(restless):
        begin = 0.1 * (i % 10)
        rows += [(f"r{i}", begin + 3.0 * k, begin + 3.0 * k + 2.0, False) for k in range(33)]
    networks = {row[0]: "calm" if row[0].startswith("c") else "restless" for row in rows}
    return sessions(rows, networks)


def test_surroundings__know_the_network_that_loses_its_nodes() -> None:
    """Restless nodes leave at about one in two hours, calm ones hardly ever; the fleet's hazard lies between."""
    known = hourly_fleet(20, 20).before(round(97.5 * HOUR_US))
    up = known.up_at(round(97.5 * HOUR_US))
    age = np.full(len(known), 0.5)
    columns = surrounding_hazards(
        known, up, age, at_us=round(97.5 * HOUR_US), settings=ChurnSettings(edges_hours=(1.0, 2.0, 4.0))
    )
    network = columns[:, surroundings_names().index("log_network_hazard_last")]
    fleet = columns[:, surroundings_names().index("log_fleet_hazard_last")]
    calm = np.char.startswith(known.nodes.astype(str), "c") & up
    restless = ~calm & up
    assert network[calm].max() < fleet.min()
    assert fleet.max() < network[restless].min()
    assert np.exp(network[calm]).max() < 0.5
    assert np.exp(network[restless]).min() > 1.0


def test_surroundings__see_nothing_of_the_future() -> None:
    """What happens after the instant must not move a column."""
    history = hourly_fleet(5, 5)
    cut = history.before(50 * HOUR_US)
    settings = ChurnSettings()
    population = PopulationRates(0.1, 0.5, {})
    whole = node_features(history, at_us=50 * HOUR_US, population=population, settings=settings)
    known = node_features(cut, at_us=50 * HOUR_US, population=population, settings=settings)
    np.testing.assert_array_equal(whole.inputs, known.inputs)
    assert whole.inputs.shape[1] == len(feature_names(settings))


def test_recent_sessions__known_answer() -> None:
    """Two sessions of 1 h and 3 h with gaps of 1 h and 2 h, then one that is 0.5 h old.

    Mean log1p length: (ln 2 + ln 4) / 2; mean log1p gap: (ln 2 + ln 3) / 2. Both past sessions outlasted 0.5 h; by 1 h
    more one of them (1 h) had ended, by 4 h more both: (1 + 0.05) / 3 and (2 + 0.1) / 3.
    """
    history = sessions([("a", 0.0, 1.0, False), ("a", 2.0, 5.0, False), ("a", 7.0, 90.0, True)])
    settings = ChurnSettings(edges_hours=(1.0, 4.0))
    at_us = round(7.5 * HOUR_US)
    found = node_features(history, at_us=at_us, population=PopulationRates(0.1, 0.5, {}), settings=settings)
    value = dict(zip(feature_names(settings), found.inputs[0], strict=True))
    assert value["log_recent_sessions_hours"] == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert value["log_recent_gaps_hours"] == pytest.approx((np.log(2) + np.log(3)) / 2)
    assert value["recent_sessions"] == 2.0
    assert value["own_share_gone_by_middle"] == pytest.approx(1.05 / 3)
    assert value["own_share_gone_by_last"] == pytest.approx(2.1 / 3)


def power_cut() -> SessionHistory:
    """Forty nodes up for weeks; the ten of one network vanish within a minute at hour 300 and are back at 302."""
    rows: list[tuple[str, float, float, bool]] = []
    for i in range(40):
        if i < 10:
            rows += [(f"n{i:02}", 0.0, 300.0 + i / 600, False), (f"n{i:02}", 302.0 + i / 600, 400.0, True)]
        else:
            begin = 20.0 + 7 * i
            rows += [(f"n{i:02}", 0.0, begin, False), (f"n{i:02}", begin + 1.0, 400.0, True)]
    return sessions(rows, {f"n{i:02}": "cut" if i < 10 else "rest" for i in range(40)})


def test_outages__are_no_habit_of_a_node() -> None:
    """A power cut must not make ten quiet nodes look like leavers, and one departure by itself must count."""
    history = power_cut()
    marked = with_outages(history)
    assert marked.outage_us is not None
    cut = np.char.less(history.nodes[history.node_of_session].astype(str), "n10") & ~history.censored
    np.testing.assert_array_equal(marked.outage_us < OPEN_US, cut)
    settings, population = ChurnSettings(), PopulationRates(0.01, 0.5, {})
    at_us = 350 * HOUR_US
    plain = replace(history, outage_us=np.full(len(history.start_us), OPEN_US))
    column = feature_names(settings).index("log_departure_rate_before_session")
    with_it, without = (
        node_features(h, at_us=at_us, population=population, settings=settings).inputs[:10, column]
        for h in (plain, marked)
    )
    # 300 h up with one departure against none: (1 + 1) / (100 + 300) and 1 / (100 + 300), both faded a little.
    assert np.all(with_it - without > np.log(1.5))


def test_outages__are_not_known_before_they_are_over() -> None:
    """At an instant before the cut, the marked history looks like the unmarked one."""
    marked = with_outages(power_cut()).before(299 * HOUR_US)
    assert marked.outage_us is not None
    assert (marked.outage_us == OPEN_US).all()


def test_returns_at__known_answers() -> None:
    """At hour 10: a is back after 1.5 h, b after exactly 2 h, c not within what was seen, d is up."""
    history = sessions(
        [
            ("a", 0.0, 9.0, False),
            ("a", 11.5, 30.0, True),
            ("b", 0.0, 9.0, False),
            ("b", 12.0, 30.0, True),
            ("c", 0.0, 9.0, False),
            ("d", 0.0, 30.0, True),
        ]
    )
    found = returns_at(history, at_us=10 * HOUR_US, edges_hours=(1.0, 2.0, 4.0), until_us=13 * HOUR_US)
    assert history.nodes[found.node].tolist() == ["a", "b", "c"]
    assert found.low.tolist() == [1, 1, 2]
    assert found.high.tolist() == [2, 2, 0]


def test_marginal_survival__shares_out_what_straddles() -> None:
    """Ten rows over two edges: four stay, two leave in bin 1, two in bin 2, two in one of the two.

    The self-consistent curve gives each bin half of the doubtful ones: three leave in each, S = 0.7, 0.4. A doubtful
    one stayed past the first edge with (0.7 - 0.4) / (1 - 0.4) = 1/2.
    """
    low = np.array([2, 2, 2, 2, 0, 0, 1, 1, 0, 0])
    high = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    rows = Outcomes(np.zeros(10, dtype=np.int64), np.arange(10), low, high, np.full(10, 9.0), np.array([1.0, 2.0]))
    np.testing.assert_allclose(marginal_survival(rows), [1.0, 0.7, 0.4], atol=1e-6)
    np.testing.assert_allclose(rows.alive()[-1], [0.5, 0.0], atol=1e-6)
    assert rows.known().all()


def test_availability_after_return__known_answer() -> None:
    """Back in bin 1 (0-2 h) for certain, in its middle at 1 h; A falls in a straight line from 1 to 0.5 at 2 h.

    At 2 h it has been back for 1 h: 0.75. At 4 h for 3 h, between A(2) = 0.5 and A(4) = 0.3: 0.4.
    """
    found = availability_after_return(np.array([[1.0, 1.0]]), np.array([[0.5, 0.3]]), np.array([2.0, 4.0]))
    np.testing.assert_allclose(found, [[0.75, 0.4]])


@pytest.fixture(scope="module")
def history() -> SessionHistory:
    """Eighty nodes of two habits, long enough down for returns to be learned."""
    return renewal_history(80, shape=1.0, mean_up=np.where(np.arange(80) % 2, 2.0, 8.0), mean_down=3.0, seed=5)


@pytest.fixture(scope="module")
def fitted(history: SessionHistory) -> ChurnForecaster:
    return fit_churn(history, train=TRAIN, validation=VALIDATION, settings=SMALL, seed=3)[0]


def test_returns__are_calibrated_where_the_truth_is_known(fitted: ChurnForecaster, history: SessionHistory) -> None:
    """Nodes come back after 3 h on average, without memory: 1 - e^(-h/3) at each edge."""
    assert fitted.returns is not None
    means = []
    for hour in range(0, 40, 4):
        forecast = fitted.forecast(history, at_us=9 * DAY_US + hour * HOUR_US)
        means.append(forecast.returned[~forecast.up].mean(axis=0))
        assert (forecast.availability <= forecast.returned + 1e-9).all()
    np.testing.assert_allclose(np.mean(means, axis=0), 1.0 - np.exp(-fitted.edges_hours / 3.0), atol=0.06)


def test_forecast__does_not_depend_on_threads(fitted: ChurnForecaster, history: SessionHistory) -> None:
    """Blocks are fixed, so two threads must give the bytes of one."""
    one, two = (fitted.forecast(history, at_us=9 * DAY_US, threads=t) for t in (1, 2))
    for name in ("survival", "availability", "returned"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_saved__answers_as_before(fitted: ChurnForecaster, history: SessionHistory, tmp_path: Path) -> None:
    """Both heads, both calibrations and the dependence come back from the artefact."""
    fitted.save(tmp_path / "model")
    loaded = ChurnForecaster.load(tmp_path / "model")
    before, after = (m.forecast(history, at_us=9 * DAY_US) for m in (fitted, loaded))
    for name in ("survival", "availability", "returned"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert loaded.joint == fitted.joint
    assert loaded.return_calibration == fitted.return_calibration


def survival_of(model: ChurnForecaster, history: SessionHistory) -> Float64:
    return model.forecast(history, at_us=9 * DAY_US).survival


def test_parts__give_the_blend_and_each_part_alone(history: SessionHistory) -> None:
    """The comparison of the blend with boosting alone must be of one training, and not of the same model twice."""
    parts = fit_parts(history, train=TRAIN, validation=VALIDATION, settings=SMALL, seed=3)
    boosting, network = (parts.model(name=n, network_weight=w) for n, w in (("boosting", 0.0), ("network", 1.0)))
    assert boosting.learned is not None
    assert network.learned is not None
    assert (boosting.learned.ensemble, network.learned.boosting) == (None, None)
    assert not np.array_equal(survival_of(boosting, history), survival_of(network, history))
