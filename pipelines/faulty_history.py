"""Sessions as monitoring would have them, had some nodes been off, or seemed up, over a window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.churn.history import SessionHistory
from models.churn.outages import with_outages
from models.churn.telemetry import TelemetryLog
from models.events import Bool, Int64


def with_absence(history: SessionHistory, nodes: Int64, start_us: int, end_us: int) -> SessionHistory:
    """Some nodes, by their position, leave at `start_us` and are back at `end_us` if they were up then.

    Their departure is known at once, and they send no heartbeat meanwhile. Outages are looked for anew.
    """
    node = history.node_of_session
    cut = np.isin(node, nodes) & (history.start_us < end_us) & (history.end_us > start_us)
    stays, before = np.flatnonzero(~cut), np.flatnonzero(cut & (history.start_us < start_us))
    after = np.flatnonzero(cut & (history.end_us > end_us))
    gone_us = np.full(len(before), start_us, np.int64)
    left = (history.start_us[before], gone_us, gone_us, np.zeros(len(before), np.bool_))
    back = (np.full(len(after), end_us, np.int64), *_ends(history, after))
    kept = (history.start_us[stays], *_ends(history, stays))
    owner = np.concatenate([node[stays], node[before], node[after]])
    history = _rebuilt(history, owner, *(np.concatenate(parts) for parts in zip(kept, left, back, strict=True)))
    telemetry = history.telemetry
    if telemetry is not None:
        telemetry = _silenced(telemetry, nodes, start_us, end_us)
    return with_outages(replace(history, telemetry=telemetry))


def with_presence(history: SessionHistory, nodes: Int64, start_us: int, end_us: int) -> SessionHistory:
    """Some nodes, by their position, are seen up over `[start_us, end_us)`, whatever they do."""
    node = history.node_of_session
    touched = np.isin(node, nodes) & (history.start_us <= end_us) & (history.end_us >= start_us)
    stays = np.flatnonzero(~touched)
    rows = [_merged(history, np.flatnonzero(touched & (node == n)), start_us, end_us) for n in nodes.tolist()]
    merged = [np.array(column) for column in zip(*rows, strict=True)]
    kept = (history.start_us[stays], *_ends(history, stays))
    owner = np.concatenate([node[stays], nodes])
    together = (np.concatenate(parts) for parts in zip(kept, merged, strict=True)) if rows else kept
    observed_us = history.observed_from_us.copy()
    observed_us[nodes] = np.minimum(observed_us[nodes], start_us)
    return with_outages(replace(_rebuilt(history, owner, *together), observed_from_us=observed_us))


def _ends(history: SessionHistory, rows: Int64) -> tuple[Int64, Int64, Bool]:
    return history.end_us[rows], history.end_upper_us[rows], history.censored[rows]


def _merged(history: SessionHistory, rows: Int64, start_us: int, end_us: int) -> tuple[int, int, int, bool]:
    """The window and the sessions that touch it as one session: start, end, first instant known gone, censored."""
    if len(rows) == 0:
        return start_us, end_us, end_us, False
    first_us, last = min(start_us, int(history.start_us[rows].min())), int(rows[np.argmax(history.end_us[rows])])
    if history.end_us[last] < end_us:
        return first_us, end_us, end_us, False
    return first_us, int(history.end_us[last]), int(history.end_upper_us[last]), bool(history.censored[last])


def _rebuilt(
    history: SessionHistory, node: Int64, start_us: Int64, end_us: Int64, upper_us: Int64, censored: Bool
) -> SessionHistory:
    order = np.lexsort((start_us, node))
    counts = np.bincount(node, minlength=len(history))
    return replace(
        history,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        start_us=start_us[order],
        end_us=end_us[order],
        end_upper_us=upper_us[order],
        censored=censored[order].astype(np.bool_),
        outage_us=None,
    )


def _silenced(telemetry: TelemetryLog, nodes: Int64, start_us: int, end_us: int) -> TelemetryLog:
    """Without the heartbeats of some nodes in the window."""
    silent = np.zeros(len(telemetry.ts_us), np.bool_)
    for n in nodes.tolist():
        part = slice(int(telemetry.starts[n]), int(telemetry.stops[n]))
        silent[part] = (telemetry.ts_us[part] >= start_us) & (telemetry.ts_us[part] < end_us)
    kept_before = np.concatenate([[0], np.cumsum(~silent)]).astype(np.int64)
    return TelemetryLog(
        kept_before[telemetry.starts],
        kept_before[telemetry.stops],
        telemetry.ts_us[~silent],
        telemetry.values[~silent],
        telemetry.leaves_us[~silent],
    )
