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
        ("a", 0, 5, None, False), ("a", 4, 6, None, False), ("a", 9, 8, None, False), ("z", 0, 1, None, False)
    )
    with pytest.raises(TableError) as caught:
        SessionHistory.from_arrow(rows, nodes_table("a"))
    text = str(caught.value)
    assert "'z'" in text
    assert "1 sessions end before they start" in text
    assert "start before the previous one" in text


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
