"""Cuts a user's requests into sessions where the log names none: a gap longer than the limit starts a new one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.rules import codes_of, to_mask

_US_PER_MINUTE = 60_000_000


def with_sessions(requests: pa.Table, *, gap_minutes: float) -> pa.Table:
    """Fills `session` where it is null and the user is known; the id is the user and the session's first instant.

    Args:
        requests: in time order, `user` and `session` already pseudonyms.
        gap_minutes: the longest silence within a session.
    """
    open_rows = np.flatnonzero(to_mask(pc.and_(pc.is_null(requests["session"]), pc.is_valid(requests["user"]))))
    if len(open_rows) == 0:
        return requests
    user = codes_of(requests["user"])[open_rows]
    instant = requests["ts"].cast(pa.int64()).to_numpy()[open_rows]
    order = np.argsort(user, kind="stable")
    starts = np.ones(len(order), dtype=np.bool_)
    same_user = user[order][1:] == user[order][:-1]
    starts[1:] = ~same_user | (np.diff(instant[order]) > gap_minutes * _US_PER_MINUTE)
    heads = open_rows[order[starts]]
    users = requests["user"].take(pa.array(heads)).cast(pa.string()).combine_chunks()
    instants = pa.array(instant[order[starts]]).cast(pa.string())
    names = pc.binary_join_element_wise(users, instants, "-")
    codes = np.full(len(requests), -1, dtype=np.int64)
    codes[open_rows[order]] = np.cumsum(starts) - 1
    made = names.take(pa.array(codes, mask=codes < 0))
    given = requests["session"].cast(pa.string())
    column = made if given.null_count == len(requests) else pc.coalesce(given, pa.chunked_array([made]))
    return requests.set_column(requests.column_names.index("session"), "session", column)
