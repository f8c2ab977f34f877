"""What planners believe: models that see the past only, and the one row that sees the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from models.churn.history import SessionHistory
from models.demand.forecaster import DemandForecaster
from models.events import DAY_US, HOUR_US, RequestLog
from pipelines.outlook import ClairvoyantOutlook, Expectation, ModelOutlook
from pipelines.planning import PlanningSettings
from pipelines.requests import Playback, RequestRows, WatchThrough
from pipelines.review import LOADERS
from pipelines.scene import read_scene
from pipelines.store import read_availability, read_nodes, read_request_log
from placement.trace import SegmentRequests
from placement.uptime import ALWAYS_US, NEVER_US, Uptime
from tests.conftest import START_US, TinyHome
from tests.models.losing_model import biased
from tests.pipelines.tiny_scene import FAR, NEAR, NOW_US, tiny_scene

AT_US = START_US + 4 * DAY_US


def _model_outlook(
    tiny: TinyHome,
    log: RequestLog,
    sessions: pa.Table,
    rows: RequestRows,
    *,
    demand: DemandForecaster | None = None,
) -> ModelOutlook:
    scene = read_scene(tiny.tables)
    return ModelOutlook(
        scene,
        log=log,
        history=SessionHistory.from_arrow(sessions, read_nodes(tiny.tables)),
        watch=WatchThrough.count(rows, scene),
        demand=demand or LOADERS["demand"](tiny.artefact("demand")),
        churn=LOADERS["churn"](tiny.artefact("churn")),
        settings=PlanningSettings(),
    )


def _same(one: Expectation, other: Expectation) -> bool:
    parts = [
        (getattr(getattr(one, side), name), getattr(getattr(other, side), name))
        for side, names in (("demand", ("segment", "location", "requests")), ("nodes", ("stay", "survival", "up")))
        for name in names
    ]
    return all(np.array_equal(a, b) for a, b in parts)


def test_model_outlook__sees_nothing_after_its_instant(tiny_home: TinyHome) -> None:
    """A planted future must change nothing: requests and sessions after the instant are tripled, cut or moved."""
    scene = read_scene(tiny_home.tables)
    log = read_request_log(tiny_home.tables)
    rows = RequestRows.read(tiny_home.tables, scene)
    sessions = read_availability(tiny_home.tables)
    honest = _model_outlook(tiny_home, log, sessions, rows)

    later = log.ts_us >= AT_US
    planted = replace(log, content=np.where(later, 0, log.content).astype(np.int32))
    watched = replace(rows, bytes=np.where(rows.ts_us >= AT_US, 1, rows.bytes))
    known = read_availability(tiny_home.tables, before_us=AT_US)
    blind = _model_outlook(tiny_home, planted, known, watched)

    assert later.sum() > 500
    expected = honest.at(AT_US)
    assert len(expected.demand.segment) > 20
    assert 0 < expected.nodes.up[scene.nodes].sum() < 20
    assert _same(expected, blind.at(AT_US))


def test_model_outlook__does_not_depend_on_how_often_it_was_asked(tiny_home: TinyHome) -> None:
    """The counters advance with the questions; an hourly plan and a daily one expect the same at noon."""
    scene = read_scene(tiny_home.tables)
    log = read_request_log(tiny_home.tables)
    rows, sessions = RequestRows.read(tiny_home.tables, scene), read_availability(tiny_home.tables)
    often = _model_outlook(tiny_home, log, sessions, rows)
    for hours in (12, 6, 1):
        often.at(AT_US - hours * HOUR_US)
    assert _same(often.at(AT_US), _model_outlook(tiny_home, log, sessions, rows).at(AT_US))


def test_model_outlook__lets_the_prior_answer_for_a_network_that_loses(tiny_home: TinyHome) -> None:
    """As in operation: a network that multiplies every mean by e is set aside, and the replay can say how often."""
    scene = read_scene(tiny_home.tables)
    log = read_request_log(tiny_home.tables)
    rows, sessions = RequestRows.read(tiny_home.tables, scene), read_availability(tiny_home.tables)
    model = biased(LOADERS["demand"](tiny_home.artefact("demand")), 1.0)
    losing = _model_outlook(tiny_home, log, sessions, rows, demand=model)
    alone = _model_outlook(tiny_home, log, sessions, rows, demand=model.prior_only())
    for at_us in (AT_US, AT_US + HOUR_US):
        assert _same(losing.at(at_us), alone.at(at_us))
    assert losing.by_prior_us == [AT_US, AT_US + HOUR_US]
    assert alone.by_prior_us == []


def test_clairvoyant__is_the_truth_by_hand() -> None:
    """Two hours from now: segment 1 twice here, segment 0 once there; the request at the end is outside.

    Near is up for the first hour only (share 1/2, does not stay, up now); far comes after half an hour (share 3/4).
    """
    at = np.array([-1, 0, 60, 60, 120]) * 60_000_000 + NOW_US
    requests = SegmentRequests(
        at, np.array([3, 1, 1, 0, 2], np.int32), np.array([0, 0, 0, 1, 0], np.int32), np.full(5, 5, np.int64)
    )
    uptime = Uptime.from_sessions(
        np.array([NEAR, FAR]),
        np.array([ALWAYS_US, NOW_US + HOUR_US // 2]),
        np.array([NOW_US + HOUR_US, NEVER_US]),
        n_sources=3,
    )
    found = ClairvoyantOutlook(tiny_scene(), requests, uptime, horizon_hours=2.0).at(NOW_US)
    assert found.demand.segment.tolist() == [0, 1]
    assert found.demand.location.tolist() == [1, 0]
    assert found.demand.requests.tolist() == [1.0, 2.0]
    assert found.nodes.survival.tolist() == pytest.approx([1.0, 0.5, 0.75])
    assert found.nodes.stay.tolist() == [1.0, 0.0, 0.0]
    assert found.nodes.up.tolist() == [True, True, False]


def test_clairvoyant__agrees_with_the_cut_requests_of_a_real_window(tiny_world: TinyHome) -> None:
    """Expected requests add up to what is truly asked for in the window."""
    scene = read_scene(tiny_world.tables)
    cut = Playback().cut(RequestRows.read(tiny_world.tables, scene), scene)
    outlook = ClairvoyantOutlook(scene, cut, Uptime.always(len(scene.source)), horizon_hours=24.0)
    inside = (cut.ts_us >= AT_US) & (cut.ts_us < AT_US + DAY_US)
    assert outlook.at(AT_US).demand.requests.sum() == inside.sum() > 0
