"""Sessions where a log names none."""

from __future__ import annotations

import pyarrow as pa

from models.tables import INSTANT
from pipelines.sessions import cut_sessions, with_sessions


def _table(rows: list[tuple[int, str | None, str | None]]) -> pa.Table:
    """Rows of (minute, user, session)."""
    return pa.table(
        {
            "ts": pa.array([m * 60_000_000 for m, _, _ in rows], pa.int64()).cast(INSTANT),
            "user": pa.array([u for _, u, _ in rows], pa.string()),
            "session": pa.array([s for *_, s in rows], pa.string()),
        }
    )


def _named(table: pa.Table) -> pa.Table:
    return with_sessions(table, cut_sessions(table, gap_minutes=30))


def test_with_sessions__a_gap_longer_than_the_limit_starts_a_new_one() -> None:
    """a: 0 and 30 are one session (gap of exactly 30), 61 is the next (gap 31); b's request between changes nothing."""
    table = _named(_table([(0, "a", None), (10, "b", None), (30, "a", None), (61, "a", None)]))
    assert table["session"].to_pylist() == ["a-0", "b-600000000", "a-0", "a-3660000000"]


def test_with_sessions__given_sessions_and_unknown_users_stay() -> None:
    """A log's own sessions are better than a rule, and nobody's requests cannot be joined."""
    table = _named(_table([(0, "a", "s"), (1, None, None), (2, "a", None)]))
    assert table["session"].to_pylist() == ["s", None, "a-120000000"]
    given = _table([(0, "a", "s")])
    assert _named(given) is given
