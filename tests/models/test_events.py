"""The request log as arrays: codes by order of appearance, so that a cut log knows only what was known by then."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.events import NEVER_US, Catalogue, RequestLog, combined, first_rows


def catalogue(published: Mapping[str, int | None], kinds: Mapping[str, str] | None = None) -> Catalogue:
    """Contents with their instants of publication in microseconds."""
    instants = [NEVER_US if at is None else at for at in published.values()]
    found = None if kinds is None else np.array([kinds.get(content) for content in published], dtype=object)
    return Catalogue(np.array(list(published), dtype=object), np.array(instants, dtype=np.int64), found)


def log_of(*rows: tuple[int, str, str | None, Any]) -> RequestLog:
    """Rows (instant in microseconds, content, user, os), all of one session in one location."""
    columns: list[list[Any]] = [[row[i] for row in rows] for i in range(4)]
    ts_us, content, user, os = columns
    one = ["x"] * len(rows)
    return RequestLog.from_columns(np.array(ts_us, dtype=np.int64), one, content, one, user=user, features={"os": os})


def as_plain(log: RequestLog) -> dict[str, Any]:
    """Every field as lists, to compare logs."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items()}
        return value if value is None or isinstance(value, tuple) else value.tolist()

    return {field.name: plain(getattr(log, field.name)) for field in dataclasses.fields(log)}


KNOWN = log_of((10, "b", "ann", 7), (20, "a", None, None), (20, "c", "bob", 3), (30, "b", "ann", 3))
"""b is requested at 10 and 30, a and c at 20; ann comes twice and the second visitor is unknown."""


def test_from_columns__codes_visitors_and_features_by_first_appearance() -> None:
    """Unknown is -1; values are text, in the order in which they came: 7 before 3."""
    assert KNOWN.visitor is not None
    assert KNOWN.visitor.tolist() == [0, -1, 1, 0]
    assert KNOWN.features["os"].tolist() == [0, -1, 1, 1]
    assert KNOWN.feature_values["os"].tolist() == ["7", "3"]
    assert KNOWN.appeared_us is not None
    assert (KNOWN.contents.tolist(), KNOWN.appeared_us.tolist()) == (["b", "a", "c"], [10, 20, 20])
    assert KNOWN.kinds is None


def test_from_columns__what_is_not_given_is_not_there() -> None:
    """Callers that know nothing of users or devices go on as before."""
    log = RequestLog.from_columns(np.array([1, 2]), ["s", "s"], ["a", "b"], ["x", "x"])
    assert (log.visitor, dict(log.features), dict(log.feature_values), log.kinds) == (None, {}, {}, None)


def test_with_catalogue__a_content_appears_when_published_or_requested() -> None:
    """By hand.

    d is published at 5 and e at 20, neither is requested. c is published at 15, before its request at 20. b is
    published at 12, after its request at 10: what counts is 10. f has neither publication nor request.
    At 20 appear a, by its request, and e: the requested one first. So: d 5, b 10, c 15, a 20, e 20, g 40.
    """
    listed = catalogue(
        {"e": 20, "f": None, "g": 40, "c": 15, "d": 5, "b": 12}, {"e": "page", "c": "page", "d": "video", "f": "page"}
    )
    log = KNOWN.with_catalogue(listed)
    assert log.appeared_us is not None
    assert log.kinds is not None
    assert log.contents.tolist() == ["d", "b", "c", "a", "e", "g"]
    assert log.appeared_us.tolist() == [5, 10, 15, 20, 20, 40]
    assert log.content.tolist() == [1, 3, 2, 1]
    assert log.kinds.tolist() == [0, -1, 1, -1, 1, -1]
    assert log.kind_values.tolist() == ["video", "page"]
    # At 20 nobody knows a and e yet; at 21 all but g.
    cut = log.before(20)
    assert cut.kinds is not None
    assert (cut.contents.tolist(), cut.content.tolist()) == (["d", "b", "c"], [1])
    assert cut.kinds.tolist() == [0, -1, 1]
    assert log.before(12).kind_values.tolist() == ["video"]
    assert log.before(21).contents.tolist() == ["d", "b", "c", "a", "e"]
    assert log.between(20, 21).content.tolist() == [3, 2]


def test_with_catalogue__ties_are_decided_by_what_is_known_at_the_instant() -> None:
    """a, b and c are published at 10; b is requested at 10, c at 30 and a never. A cut at 20 cannot know of 30.

    So b comes first, then a and c by id.
    """
    log = log_of((10, "b", None, None), (30, "c", None, None)).with_catalogue(catalogue({"c": 10, "b": 10, "a": 10}))
    assert log.contents.tolist() == ["b", "a", "c"]
    assert log.before(20).contents.tolist() == ["b", "a", "c"]


def test_with_catalogue__without_publication_codes_stay_as_they_were() -> None:
    """A list of contents without instants adds what they are, and nothing else."""
    log = KNOWN.with_catalogue(catalogue({"z": None, "c": None, "b": None}, {"b": "page"}))
    assert as_plain(log) == as_plain(KNOWN) | {"kinds": [0, -1, -1], "kind_values": ["page"]}


def test_with_catalogue__twice_is_as_once() -> None:
    """What is known of the contents already is kept."""
    listed = catalogue({"d": 5, "c": 15, "a": 20, "e": 20})
    once = KNOWN.with_catalogue(listed)
    assert as_plain(once.with_catalogue(listed)) == as_plain(once)


def test_catalogue__of_an_empty_log_is_what_was_published() -> None:
    """A site that opens tomorrow has contents and no requests."""
    empty = log_of()
    assert empty.with_catalogue(catalogue({"b": 2, "a": 1, "c": None})).contents.tolist() == ["a", "b"]
    assert len(empty.before(5).contents) == 0


INSTANTS = st.integers(0, 12)
ROWS = st.lists(
    st.tuples(
        INSTANTS, st.sampled_from("abcde"), st.sampled_from(["u", "v", "w", None]), st.sampled_from([1, 2, None])
    ),
    max_size=12,
)
PUBLISHED = st.dictionaries(st.sampled_from("abcdefgh"), st.one_of(st.none(), INSTANTS))


@settings(max_examples=200, deadline=None)
@given(ROWS, PUBLISHED, INSTANTS)
def test_before__is_the_log_that_could_be_built_then(
    rows: list[tuple[int, str, str | None, Any]], published: dict[str, int | None], cut: int
) -> None:
    """A log built from what was known at the cut, and the whole log cut there, are equal in every field.

    Were one code decided by something later, models would be trained on the future.
    """
    kinds = {content: f"kind of {content}" for content in "ac"}
    whole = log_of(*rows).with_catalogue(catalogue(published, kinds))
    earlier = [row for row in rows if row[0] < cut]
    requested = {content for _, content, *_ in earlier}
    listed = {c: at for c, at in published.items() if at is None or at < cut or c in requested}
    then = log_of(*earlier).with_catalogue(catalogue(listed, kinds))
    assert as_plain(whole.before(cut)) == as_plain(then)


@settings(max_examples=100, deadline=None)
@given(ROWS, PUBLISHED, INSTANTS, INSTANTS)
def test_between__and_before_agree(
    rows: list[tuple[int, str, str | None, Any]], published: dict[str, int | None], start: int, end: int
) -> None:
    """Two parts of a log are coded alike, and hold its rows."""
    log = log_of(*rows).with_catalogue(catalogue(published))
    part, known = log.between(start, end), log.before(max(start, end))
    first = int(np.searchsorted(log.ts_us, start))
    assert as_plain(part) == as_plain(known.rows(first, len(known)))


def test_rows__keep_the_whole_vocabulary() -> None:
    """A store is fed a few rows at a time, coded as the whole log is."""
    log = KNOWN.with_catalogue(catalogue({"d": 5, "g": 40}, {"g": "page"}))
    part = log.rows(1, 3)
    sliced = {"ts_us": [20, 20], "session": [0, 0], "content": [2, 3], "location": [0, 0], "visitor": [-1, 1]}
    assert as_plain(part) == as_plain(log) | sliced | {"features": {"os": [-1, 1]}}
    assert len(log) == 4
    assert len(log.rows(2, 2)) == 0


def described_by(*rows: tuple[int, Any, Any]) -> RequestLog:
    """Rows (instant, os, screen) of one session that requests one content in one location."""
    one = ["x"] * len(rows)
    features = {"os": [row[1] for row in rows], "screen": [row[2] for row in rows]}
    ts_us = np.array([row[0] for row in rows], dtype=np.int64)
    return RequestLog.from_columns(ts_us, one, one, one, features=features)


def test_described__combines_columns_by_first_appearance() -> None:
    """By hand: (7, "s") is 0, (7, "l") is 1, (3, "s") is 2; where a part is unknown the combination is, and has no code.

    `arrival` combines nothing and is left out; a single column keeps its values.
    """
    log = described_by((1, 7, "s"), (2, 7, "l"), (3, None, "s"), (4, 3, "s"), (5, 7, None), (6, 7, "s"))
    both = log.described(device=("os", "screen"), arrival=())
    assert {name: codes.tolist() for name, codes in both.features.items()} == {"device": [0, 1, -1, 2, -1, 0]}
    assert both.feature_values["device"].tolist() == [combined(("7", x)) for x in "sl"] + [combined((3, "s"))]
    single = log.described(device=("os",), arrival=("screen",))
    assert {name: values.tolist() for name, values in single.feature_values.items()} == {
        "device": ["7", "3"],
        "arrival": ["s", "l"],
    }
    assert np.array_equal(single.features["arrival"], log.features["screen"])


def test_described__values_with_spaces_stay_apart() -> None:
    """("a b", "c") and ("a", "b c") are two devices; one text for both would give them one code after loading."""
    log = described_by((1, "a b", "c"), (2, "a", "b c")).described(device=("os", "screen"))
    assert len(set(log.feature_values["device"])) == 2


def test_described__by_a_column_that_nothing_is_known_of() -> None:
    """Nulls only, or no rows: no values, and no crash."""
    for log in (described_by((1, None, "s")), described_by()):
        device = log.described(device=("os", "screen"))
        assert device.features["device"].tolist() == [-1] * len(log)
        assert len(device.feature_values["device"]) == 0


PARTS = st.sampled_from(["1", "2", None])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(INSTANTS, PARTS, PARTS), max_size=12), INSTANTS)
def test_described__is_the_same_before_and_after_a_cut(rows: list[tuple[int, Any, Any]], cut: int) -> None:
    """A later combination decides no earlier code, or a model would be trained on the future."""
    log = described_by(*rows)
    combinations = {"device": ("os", "screen"), "arrival": ("screen",)}
    assert as_plain(log.described(**combinations).before(cut)) == as_plain(log.before(cut).described(**combinations))


def test_log_put_together_by_hand__is_cut_by_its_rows() -> None:
    """Without instants of appearance, a content is known from its first request."""
    codes = np.array([0, 1, 0], dtype=np.int32)
    ids = np.array(["a", "b"], dtype=object)
    log = RequestLog(np.array([1, 2, 3]), codes, codes, codes, ids, ids)
    assert log.before(2).contents.tolist() == ["a"]
    assert log.before(2).appeared_us is None


def test_first_rows__of_codes_that_do_not_occur() -> None:
    """Code 1 occurs first in row 2, code 0 in row 1; 2 does not occur, and -1 is no code."""
    assert first_rows(np.array([-1, 0, 1, 0], dtype=np.int32), 3).tolist() == [1, 2, 4]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"visitor": np.zeros(3, dtype=np.int32)}, "visitor has 3 rows but ts_us has 4"),
        ({"features": {"os": np.zeros(1, dtype=np.int32)}}, "os has 1 rows but ts_us has 4"),
        ({"features": {}}, r"got features \[\] but values of \['os'\]"),
        ({"appeared_us": np.array([3, 2, 1])}, "in the order in which they appeared"),
        ({"kinds": np.zeros(2, dtype=np.int32)}, "kinds has 2 entries but there are 3 contents"),
        ({"ts_us": np.array([4, 3, 2, 1])}, "sort them by ts first"),
    ],
)
def test_log__that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    """Codes of other rows, or of other contents, would be read as these without a word."""
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(KNOWN, **changes)


def test_catalogue__lists_each_content_once() -> None:
    """Which of two instants of publication would be meant?"""
    with pytest.raises(ValueError, match="listed twice"):
        Catalogue(np.array(["a", "a"], dtype=object), np.zeros(2, dtype=np.int64))
    with pytest.raises(ValueError, match="all 1 contents"):
        Catalogue(np.array(["a"], dtype=object), np.zeros(2, dtype=np.int64))
