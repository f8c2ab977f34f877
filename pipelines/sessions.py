"""Cuts a user's requests into sessions where the log names none: a gap longer than the limit starts a new one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.rules import codes_of, encode

_US_PER_MINUTE = 60_000_000

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sessions:
    """Which session each request belongs to.

    Attributes:
        number: of each request's session; those that the log names come first, -1 where nobody is known.
        heads: the first request of each session that was cut, in the order of their numbers.
    """

    number: Int64
    heads: Int64


def cut_sessions(requests: pa.Table, *, gap_minutes: float) -> Sessions:
    """Cuts sessions from the requests whose `session` is null and whose user is known.

    Args:
        requests: in time order.
        gap_minutes: the longest silence within a session.
    """
    number = codes_of(requests["session"]).copy()
    open_rows = np.flatnonzero((number < 0) & (codes_of(requests["user"]) >= 0))
    user = codes_of(requests["user"])[open_rows]
    instant = requests["ts"].cast(pa.int64()).to_numpy()[open_rows]
    order = np.argsort(user, kind="stable")
    starts = np.ones(len(order), dtype=np.bool_)
    same_user = user[order][1:] == user[order][:-1]
    starts[1:] = ~same_user | (np.diff(instant[order]) > gap_minutes * _US_PER_MINUTE)
    number[open_rows[order]] = len(encode(requests["session"]).dictionary) + np.cumsum(starts) - 1
    return Sessions(number, open_rows[order[starts]])


def with_sessions(requests: pa.Table, sessions: Sessions) -> pa.Table:
    """Names the sessions that were cut: the user and the session's first instant.

    Args:
        requests: those that were cut, `user` and `session` now pseudonyms.
        sessions: where they were cut.
    """
    if len(sessions.heads) == 0:
        return requests
    heads = requests.select(["user", "ts"]).take(pa.array(sessions.heads))
    instants = heads["ts"].cast(pa.int64()).cast(pa.string())
    made = pc.binary_join_element_wise(heads["user"].cast(pa.string()), instants, "-")
    names = pa.concat_arrays([encode(requests["session"]).dictionary, made.combine_chunks()])
    codes = pa.array(sessions.number, pa.int32(), mask=sessions.number < 0)
    column = pa.DictionaryArray.from_arrays(codes, names)
    return requests.set_column(requests.column_names.index("session"), "session", column)
