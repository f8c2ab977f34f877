"""An uplink as a first-in first-out queue of bytes: when a transfer starts, when it ends, and what it sends until then.

A transfer of b bytes asked for at t

    starts at    s = max(t, busy)
    ends at      e, the first instant at which the uplink has sent b bytes since s    busy becomes e

so that e = s + b · 8 / uplink_bps where the uplink does not change; where it does, the pieces add up (`uplinks.py`). In
turn or side by side makes no difference to the uplink: as long as bytes wait it sends at its full rate, so what it has
sent by any instant is the same under either rule of sharing; what differs is whose bytes. In turn, a viewer's first
byte waits for those before and the rest then comes at the full rate, and one number is all that the queue must keep.
"""

from __future__ import annotations

from math import ceil, floor

from placement.mesh import Mesh, Records, kernel
from placement.uptime import NEVER_US


@kernel
def duration_us(n_bytes: int, bps: float) -> int:
    """Rounded up, so that no link is ever exceeded."""
    return ceil(n_bytes * 8e6 / bps)


@kernel
def up_row(sources: Records, intervals: Records, source: int, at_us: int) -> int:
    """The row of the up-interval at `at_us`, or -1 if the source is off.

    Instants never go back, so the source's cursor only advances. Going off empties the uplink's queue.
    """
    row, last = int(sources[source].row), int(sources[source].last_row)
    if row < last and intervals[row].end_us <= at_us:
        while row < last and intervals[row].end_us <= at_us:
            row += 1
        sources[source].row = row
        sources[source].busy_us = 0
    if row < last and intervals[row].start_us <= at_us:
        return row
    return -1


@kernel
def keep_rate(sources: Records, intervals: Records, source: int, at_us: int) -> None:
    """Makes `uplink_bps` what it is at `at_us`; instants never go back, and the last piece never ends."""
    row = int(sources[source].rate_row)
    while intervals[row].end_us <= at_us:
        row += 1
    sources[source].rate_row = row
    sources[source].uplink_bps = intervals[row].bps
    sources[source].rate_until_us = intervals[row].end_us


@kernel
def sent_until(
    sources: Records, intervals: Records, source: int, span: tuple[int, int], n_bytes: int
) -> tuple[int, int]:
    """Bytes that the uplink sends of `n_bytes` from span[0] on, and when it ends.

    It ends with the last byte, at span[1], or where the uplink is paused. Each piece is rounded down, so that no link is
    ever exceeded.
    """
    at_us, end_us = span
    left, bps = n_bytes, sources[source].uplink_bps
    until_us, row = int(sources[source].rate_until_us), int(sources[source].rate_row)
    while at_us < end_us:
        while until_us <= at_us:
            row += 1
            bps, until_us = intervals[row].bps, int(intervals[row].end_us)
        if bps <= 0.0:
            break
        done_us = at_us + duration_us(left, bps)
        if done_us <= min(until_us, end_us):
            return n_bytes, done_us
        stop_us = min(until_us, end_us)
        left -= min(floor((stop_us - at_us) * bps / 8e6), left - 1)
        at_us = stop_us
    return n_bytes - left, at_us


@kernel
def transmit(mesh: Mesh, source: int, end_of_up_us: int, asked_us: int, n_bytes: int) -> tuple[int, int, int]:
    """Bytes sent, when the first leaves and when the last does; fewer than asked if the node goes before the end."""
    sources = mesh.sources
    start_us = max(asked_us, sources[source].busy_us)
    sent, finish_us = n_bytes, start_us + duration_us(n_bytes, sources[source].uplink_bps)
    if finish_us > sources[source].rate_until_us:
        sent, finish_us = sent_until(sources, mesh.intervals, source, (start_us, NEVER_US), n_bytes)
    sources[source].busy_us = finish_us
    if finish_us <= end_of_up_us:
        return sent, start_us, finish_us
    if start_us >= end_of_up_us:
        return 0, end_of_up_us, max(end_of_up_us, asked_us)
    sent, _ = sent_until(sources, mesh.intervals, source, (start_us, end_of_up_us), n_bytes)
    return sent, start_us, end_of_up_us
