"""Session histories: what was known when, and what a bad table is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.churn.history import SessionHistory
from models.churn.outcomes import log_likelihood, outcomes_at
from models.errors import TableError
from models.events import HOUR_US

INSTANT = pa.timestamp("us", tz="UTC")


def nodes_table(*ids: str) -> pa.Table:
    return pa.table({"source": list(ids), "device_class": ["home"] * len(ids)})


def sessions(*rows: tuple[str, float, float, float | None, bool]) -> pa.Table:
    """Rows of (node, start, end, end_upper, censored), in hours."""
    node, start, end, upper, censored = zip(*rows, strict=True)

    def instants(hours: tuple[float | None, ...]) -> Any:
        return pa.array([None if h is None else round(h * HOUR_US) for h in hours], INSTANT)

    return pa.table(
        {
            "node": list(node),
            "start": instants(start),
            "end": instants(end),
            "end_upper": instants(upper),
            "censored": list(censored),
        }
    )


@pytest.fixture
def three() -> SessionHistory:
    """Node a: [0,10) left by 11 and [20,30) cut; b: [5,6) exact; c: lost from sight at 4, back at 8 for good."""
    rows = sessions(
        ("b", 5, 6, None, False),
        ("a", 20, 30, None, True),
        ("a", 0, 10, 11, False),
        ("c", 0, 4, None, True),
        ("c", 8, 30, None, True),
    )
    return SessionHistory.from_arrow(rows, nodes_table("a", "b", "c"))


def test_up_at__follows_the_sessions(three: SessionHistory) -> None:
    """Half-open sessions: up at the start, not at the end; the cut of a censored session still counts as up."""
    assert three.up_at(0).tolist() == [True, False, True]
    assert three.up_at(6 * HOUR_US).tolist() == [True, False, False]
    assert three.up_at(30 * HOUR_US).tolist() == [True, False, True]


def test_known_at__gaps_and_departure_intervals_are_unknown(three: SessionHistory) -> None:
    """Node c was lost from sight between 4 and 8, a left somewhere between 10 and 11: neither is known to be down there."""
    assert three.known_at(6 * HOUR_US).tolist() == [True, True, False]
    assert three.known_at(round(10.5 * HOUR_US)).tolist() == [False, True, True]
    assert three.known_at(12 * HOUR_US).tolist() == [True, True, True]


def test_before__an_unknown_departure_still_looks_up(three: SessionHistory) -> None:
    """At 10.5 h nobody knew that a had left (first missed at 11), so it must look exactly like a node that stays."""
    known = three.before(round(10.5 * HOUR_US))
    assert known.up_at(round(10.5 * HOUR_US)).tolist() == [True, False, True]
    assert known.end_us[0] == round(10.5 * HOUR_US)
    assert known.censored.tolist() == [True, False, True, True]
    after = three.before(12 * HOUR_US)
    assert after.up_at(12 * HOUR_US).tolist() == [False, False, True]


def test_before__is_idempotent_and_nested(three: SessionHistory) -> None:
    """Cutting twice is cutting once at the earlier instant."""
    twice = three.before(25 * HOUR_US).before(9 * HOUR_US)
    once = three.before(9 * HOUR_US)
    for name in ("offsets", "start_us", "end_us", "end_upper_us", "censored"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(once, name))


def test_select__keeps_the_asked_order(three: SessionHistory) -> None:
    """The order of the question is the order of the answer; unknown ids are named."""
    part = three.select(["c", "a"])
    assert part.nodes.tolist() == ["c", "a"]
    assert (part.start_us // HOUR_US).tolist() == [0, 8, 0, 20]
    with pytest.raises(KeyError, match="'nobody'"):
        three.select(["nobody"])


def test_bad_table__every_mistake_in_one_message() -> None:
    """Whoever repairs a table wants the whole list, with the values."""
    rows = sessions(
        ("a", 0, 5, None, False),
        ("a", 4, 6, None, False),
        ("a", 9, 8, None, False),
        ("a", 20, 22, 21, False),
        ("z", 0, 1, None, False),
    )
    with pytest.raises(TableError) as caught:
        SessionHistory.from_arrow(rows, nodes_table("a"))
    text = str(caught.value)
    assert "'z'" in text
    assert "1 sessions end before they start" in text
    assert "start before the previous one" in text
    assert "by more than 5 minutes" in text
    assert "1 sessions have end_upper before end" in text


def test_bad_table__missing_columns_and_repeated_nodes() -> None:
    """Structural mistakes are told before anything is computed from them."""
    with pytest.raises(TableError, match=r"(?s)'source' is missing from nodes.*'end' is missing"):
        SessionHistory.from_arrow(pa.table({"node": ["a"], "start": [0]}), pa.table({"id": ["a"]}))
    with pytest.raises(TableError, match="repeats 'a'"):
        SessionHistory.from_arrow(sessions(("a", 0, 1, None, False)), nodes_table("a", "a"))


def test_outcomes__bins_by_hand(three: SessionHistory) -> None:
    """At 9 h with edges 0.5, 1, 2, 4: a was last seen after 1 h and missed after 2 h; c stays to the end."""
    found = outcomes_at(three, at_us=9 * HOUR_US, edges_hours=(0.5, 1.0, 2.0, 4.0))
    assert found.node.tolist() == [0, 2]
    assert found.low.tolist() == [2, 4]  # seen at exactly the edge of 1 h: survived it
    assert found.high.tolist() == [3, 0]  # missed at exactly 2 h: gone by the third edge
    # Survival 0.9, 0.8, 0.5, 0.4: P(a) = S(1 h) − S(2 h) = 0.3, P(c) = S(4 h) = 0.4
    survival = np.tile([0.9, 0.8, 0.5, 0.4], (2, 1))
    np.testing.assert_allclose(np.exp(log_likelihood(survival, found.low, found.high)), [0.3, 0.4])


def test_outcomes__exact_departure_at_an_edge_is_in_the_bin_that_ends_there(three: SessionHistory) -> None:
    """Node b leaves at exactly 6 h: from 5.5 h that is 0.5 h, the first edge, so it did not survive it."""
    found = outcomes_at(three, at_us=round(5.5 * HOUR_US), edges_hours=(0.5, 1.0))
    row = found.node.tolist().index(1)
    assert (found.low[row], found.high[row]) == (0, 1)


def test_outcomes__the_short_followed_are_left_out_of_frequencies(three: SessionHistory) -> None:
    """With outcomes known to 10 h only, nothing at 4 h after 9 h is known, not even for those that left."""
    found = outcomes_at(three, at_us=9 * HOUR_US, edges_hours=(0.5, 4.0), until_us=10 * HOUR_US)
    assert found.known().tolist() == [[True, False], [True, False]]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 5), st.floats(0.1, 5), st.booleans()), min_size=1, max_size=8), st.floats(0, 60)
)
def test_before__never_shows_anything_later(lengths: list[tuple[float, float, bool]], cutoff_hours: float) -> None:
    """Whatever the log, no start, end or departure of the view lies at or after the cut-off, except the cut itself."""
    rows, clock = [], 0.0
    for gap, up, censored in lengths:
        rows.append(("a", clock + gap, clock + gap + up, clock + gap + up + gap / 2, censored))
        clock += gap + up + gap / 2
    history = SessionHistory.from_arrow(sessions(*rows), nodes_table("a", "b"))
    cutoff = round(cutoff_hours * HOUR_US)
    known = history.before(cutoff)
    assert (known.start_us < cutoff).all()
    assert (known.end_us <= cutoff).all()
    assert (known.end_upper_us[~known.censored] < cutoff).all()
    assert (known.end_us >= known.start_us).all()


MINUTE = 1 / 60


def test_skew__overlap_of_minutes_ends_the_earlier_session() -> None:
    """Two clocks: the end was written at 5:03 by one, the next start at 5:00 by the other. It left and came back at 5:00."""
    rows = sessions(("a", 0, 5 + 3 * MINUTE, 5 + 4 * MINUTE, False), ("a", 5, 9, None, False))
    history = SessionHistory.from_arrow(rows, nodes_table("a"))
    assert history.end_us.tolist() == [5 * HOUR_US, 9 * HOUR_US]
    assert history.end_upper_us.tolist() == [5 * HOUR_US, 9 * HOUR_US]
    assert not history.censored.any()
    assert history.repairs.clipped == 1


@pytest.mark.parametrize(("minutes", "allowed"), [(5, True), (5.1, False)])
def test_skew__five_minutes_are_the_limit(minutes: float, allowed: bool) -> None:
    """More than five minutes is no matter of clocks: somebody merged two devices or wrote a session twice."""
    rows = sessions(("a", 0, 5 + minutes * MINUTE, None, False), ("a", 5, 9, None, False))
    if allowed:
        assert SessionHistory.from_arrow(rows, nodes_table("a")).repairs.clipped == 1
    else:
        with pytest.raises(TableError, match="by more than 5 minutes"):
            SessionHistory.from_arrow(rows, nodes_table("a"))


def test_skew__a_departure_noticed_after_the_next_start() -> None:
    """The watcher missed a node at 5:06, which had been back since 5:02: it left in (4:50, 5:02]."""
    rows = sessions(("a", 0, 4 + 50 * MINUTE, 5.1, False), ("a", 5 + 2 * MINUTE, 9, None, False))
    history = SessionHistory.from_arrow(rows, nodes_table("a"))
    assert history.end_upper_us[0] == history.start_us[1]
    assert history.repairs.clipped == 0  # nothing was wrong with it


def test_skew__a_start_dated_after_the_cutoff_is_not_known() -> None:
    """A device whose clock is two minutes ahead is not up for an observer whose cut-off its start lies behind."""
    history = SessionHistory.from_arrow(sessions(("a", 5 + 2 * MINUTE, 9, None, False)), nodes_table("a"))
    known = history.before(5 * HOUR_US)
    assert len(known.start_us) == 0
    assert known.up_at(5 * HOUR_US).tolist() == [False]


def test_repeated_rows__count_once() -> None:
    """A file read twice must not double a session; a row that differs is an overlap, and refused."""
    row = ("a", 0.0, 5.0, 5.5, False)
    history = SessionHistory.from_arrow(sessions(row, row, row), nodes_table("a"))
    assert len(history.start_us) == 1
    assert history.repairs.repeated == 2
    with pytest.raises(TableError, match="start before the previous one"):
        SessionHistory.from_arrow(sessions(row, ("a", 0, 5, 6, False)), nodes_table("a"))


def test_unknown_class_and_network__are_words_of_their_own() -> None:
    """A node without a class is 'unknown', not missing; what the fleet does then stands for it."""
    nodes = pa.table({"source": ["a"], "device_class": pa.nulls(1, pa.string())})
    assert SessionHistory.from_arrow(sessions(("a", 0, 1, None, False)), nodes).device_class.tolist() == ["unknown"]


def lively(*extra: tuple[str, float, float, float | None, bool], hole: tuple[float, float] = (60.0, 72.0)) -> pa.Table:
    """Five short sessions an hour on nodes n0-n19 for 100 h, none of which touches the hole, and further rows."""
    rows = []
    for k in range(500):
        start, end = k / 5 + 0.01, k / 5 + 0.15
        if end < hole[0] or start > hole[1]:
            rows.append((f"n{k % 20}", start, end, None, False))
    return sessions(
        *rows, ("n0", hole[0] - 0.05, hole[0], None, False), ("n1", hole[1], hole[1] + 0.1, None, False), *extra
    )


LIVELY = [*(f"n{k}" for k in range(20)), "spans", "broken", "gone", "left"]
AROUND: list[tuple[str, float, float, float | None, bool]] = [
    ("spans", 50, 90, None, False),
    ("broken", 50, 60, None, False),
    ("broken", 72, 80, None, False),
    ("gone", 50, 60, None, False),
    ("gone", 78, 80, None, False),
    ("left", 50, 57, 58, False),
]


@pytest.fixture(scope="module")
def with_hole() -> SessionHistory:
    """Nobody starts or ends in [60 h, 72 h). One node goes on, one is back at once, one only at 78 h, one left at 57 h."""
    return SessionHistory.from_arrow(lively(*AROUND), nodes_table(*LIVELY))


def row_of(history: SessionHistory, node: str, which: int = 0) -> int:
    return int(history.offsets[history.index_of([node])[0]]) + which


def test_hole__is_found_where_the_fleet_falls_silent(with_hole: SessionHistory) -> None:
    """Ten starts and ends an hour and then none for twelve hours: the last 50 instants took less than 6 h."""
    assert [(h.start_us, h.end_us) for h in with_hole.holes] == [(60 * HOUR_US, 72 * HOUR_US)]
    assert with_hole.holes[0].known_us < 66 * HOUR_US
    quiet = SessionHistory.from_arrow(
        sessions(("a", 0, 1, None, False), ("a", 500, 501, None, False)), nodes_table("a")
    )
    assert quiet.holes == ()  # a node that is never there proves nothing


def test_hole__breaks_sessions_without_departures(with_hole: SessionHistory) -> None:
    """Last seen as the hole begins: back at its end means lost from sight; back later means gone somewhere in it."""
    broken, gone, left = (row_of(with_hole, node) for node in ("broken", "gone", "left"))
    assert with_hole.censored[[broken, gone, left]].tolist() == [True, False, False]
    assert (with_hole.end_us[gone], with_hole.end_upper_us[gone]) == (60 * HOUR_US, 72 * HOUR_US)
    assert (with_hole.end_us[left], with_hole.end_upper_us[left]) == (57 * HOUR_US, 58 * HOUR_US)
    assert with_hole.repairs.broken >= 1


def test_hole__in_it_only_who_goes_on_is_known(with_hole: SessionHistory) -> None:
    """At 70 h a session that ends at 90 h proves its node up; nothing proves anything of the others, the absent included."""
    at = 70 * HOUR_US
    known = with_hole.known_at(at)
    assert with_hole.nodes[known].tolist() == ["spans"]
    assert with_hole.up_at(at)[known].all()
    assert with_hole.in_hole(at)
    assert not with_hole.in_hole(72 * HOUR_US)


def test_hole__an_origin_in_it_knows_nothing(with_hole: SessionHistory) -> None:
    """Once the silence is incredible, nobody looks up any more and nobody counts as known; before, they still look up."""
    late, early = 70 * HOUR_US, 61 * HOUR_US
    view = with_hole.before(late)
    assert not view.up_at(late).any()
    assert not view.known_at(late).any()
    assert with_hole.before(early).up_at(early)[with_hole.index_of(["spans"])].all()
    assert with_hole.before(early).holes == ()
    after = with_hole.before(75 * HOUR_US)
    assert after.up_at(75 * HOUR_US)[with_hole.index_of(["spans"])].all()


def test_hole__a_record_cut_in_it_says_the_same(with_hole: SessionHistory) -> None:
    """Reading the log up to 70 h, when everybody open is taken for up, gives what cutting the whole history there gives."""
    rows = [row for row in AROUND if row[1] < 70]
    cut = [(n, a, 70.0, None, True) if b > 70 else (n, a, b, u, c) for n, a, b, u, c in rows]
    table = lively(*cut)
    hours = np.asarray(table["start"].cast(pa.int64())) / HOUR_US
    live = SessionHistory.from_arrow(table.filter(pa.array(hours < 70)), nodes_table(*LIVELY))
    view = with_hole.before(70 * HOUR_US)
    assert live.holes[0].start_us == view.holes[0].start_us
    at = 70 * HOUR_US
    np.testing.assert_array_equal(live.before(at).up_at(at), view.up_at(at))
    np.testing.assert_array_equal(live.before(at).known_at(at), view.known_at(at))


def test_hole__ends_the_watch_where_it_breaks_sessions(with_hole: SessionHistory) -> None:
    """From 55 h everybody is followed for 5 h only: counting those who left longer, not those who stayed, would lie."""
    assert set(with_hole.watched_until_us(55 * HOUR_US)) == {60 * HOUR_US}
    assert with_hole.watched_until_us(73 * HOUR_US).min() > 100 * HOUR_US


def test_hole__may_be_listed() -> None:
    """Who knows when the watcher was off says so; none is looked for then, and a listed one is known from its start."""
    rows = sessions(("a", 0, 5, None, False), ("a", 8, 9, None, False), ("b", 0, 20, None, False))
    listed = SessionHistory.from_arrow(rows, nodes_table("a", "b"), holes=[(5 * HOUR_US, 8 * HOUR_US)])
    assert listed.censored.tolist() == [True, False, False]
    assert listed.known_at(6 * HOUR_US).tolist() == [False, True]
    assert not listed.before(6 * HOUR_US).up_at(6 * HOUR_US).any()
    assert SessionHistory.from_arrow(lively(), nodes_table(*LIVELY), holes=()).holes == ()
    with pytest.raises(ValueError, match="end after they start"):
        SessionHistory.from_arrow(rows, nodes_table("a", "b"), holes=[(8, 5)])


def test_hole__a_nightly_lull_is_none() -> None:
    """Ten instants an hour by day and none from 0:00 to 6:00, every night: yesterday explains tonight, the first 50 not."""
    rows = [
        ("a", 24 * day + 6 + k / 10, 24 * day + 6 + k / 10 + 0.05, None, False) for day in range(5) for k in range(178)
    ]
    history = SessionHistory.from_arrow(sessions(*rows), nodes_table("a"))
    assert not [hole for hole in history.holes if hole.start_us > 40 * HOUR_US]


def test_one_node__with_ten_thousand_sessions_stays_finite() -> None:
    """A device that flickers every six minutes for 1,000 h gives inputs of the same size as any other."""
    from models.churn.features import node_features
    from models.churn.markov import fit_population
    from models.churn.settings import ChurnSettings

    rows = [("a", k / 10, k / 10 + 0.05, None, False) for k in range(10_000)]
    history = SessionHistory.from_arrow(sessions(*rows, ("b", 0, 1, None, False)), nodes_table("a", "b"), holes=())
    settings = ChurnSettings()
    population = fit_population(
        history, start_us=0, end_us=1000 * HOUR_US, pseudo_departures=settings.pseudo_departures
    )
    inputs = node_features(history, at_us=1000 * HOUR_US, population=population, settings=settings).inputs
    assert np.isfinite(inputs).all()
    assert np.abs(inputs).max() < 30.0
