"""What the router believes of a source when a request comes: whether it would serve, and how soon.

A node that went away is believed up until `detection_us` later or until a failure told. A slow node is not known to be
slow: its queue grows, and the router sees how long it takes. Where monitoring sees something else than the truth
(`ReplayWorld.believed`), its delay is the same, and a failure counts for more than what it says: a node that failed
while it was believed up is not asked again for `detection_us`, twice as long after each further failure.
"""

from __future__ import annotations

from math import exp2

import numpy as np

from placement.mesh import Mesh, Records, Request, Rules, kernel
from placement.tally import Cause
from placement.uplink_queue import keep_rate, up_row

# plain integers, because compiled code freezes globals
INELIGIBLE = int(Cause.INELIGIBLE)
GONE_AS_FORECAST = int(Cause.GONE_AS_FORECAST)
GONE_UNFORECAST = int(Cause.GONE_UNFORECAST)
IN_TRANSIT = int(Cause.IN_TRANSIT)
OVERLOADED = int(Cause.OVERLOADED)
ROUTER_CHOICE = int(Cause.ROUTER_CHOICE)
USABLE = 100  # a candidate as the router believes
LONGEST_DISTRUST = 10.0  # doublings


@kernel
def gone(rules: Rules, survival: float) -> int:
    return GONE_AS_FORECAST if survival < rules.gone_threshold else GONE_UNFORECAST


@kernel
def standing_of(mesh: Mesh, slot: int, ts_us: int) -> int:
    """USABLE if the router believes so (a node gone but not yet detected included), else the cause against it."""
    sources, rules = mesh.sources, mesh.rules
    source, ready_us = mesh.copies[slot].source, mesh.copies[slot].ready_us
    if not sources[source].eligible:
        return INELIGIBLE
    row = up_row(sources, mesh.intervals, source, ts_us)
    if rules.monitored:
        believed = believed_up(mesh, source, (ts_us, ready_us))
    else:
        believed = row >= 0 or _unnoticed(sources, mesh.intervals, rules, source, (ts_us, ready_us))
    if not believed:
        return gone(rules, mesh.copies[slot].survival) if row < 0 else ROUTER_CHOICE
    if row < 0:
        return USABLE if ready_us <= ts_us else IN_TRANSIT
    if not rules.keeps_copies and ready_us < mesh.intervals[row].start_us:
        return gone(rules, mesh.copies[slot].survival)
    if ready_us > ts_us:
        return IN_TRANSIT
    if sources[source].rate_until_us <= ts_us:
        keep_rate(sources, mesh.intervals, source, ts_us)
    if sources[source].uplink_bps <= 0.0 or sources[source].busy_us - ts_us > rules.max_wait_us:
        return OVERLOADED
    return USABLE


@kernel
def _unnoticed(sources: Records, intervals: Records, rules: Rules, source: int, at: tuple[int, int]) -> bool:
    """Whether the router still sends requests for a copy (ready at at[1]) to a source that is off at at[0]."""
    row = sources[source].row
    if row == sources[source].first_row or sources[source].believed_bps <= 0.0:
        return False
    off_us = intervals[row - 1].end_us
    told = sources[source].known_gone_us >= off_us
    return bool(at[0] - off_us < rules.detection_us and not told and at[1] <= off_us)


@kernel
def believed_up(mesh: Mesh, source: int, at: tuple[int, int]) -> bool:
    """As monitoring says, with its delay, unless a failure told otherwise; for a copy that is ready at at[1]."""
    sources, believed = mesh.sources, mesh.intervals
    row, last = int(sources[source].believed_row), int(sources[source].last_believed_row)
    while row < last and believed[row].end_us <= at[0]:
        row += 1
    sources[source].believed_row = row
    failed_us = sources[source].failed_us
    if row < last and believed[row].start_us <= at[0]:
        return not bool(believed[row].start_us <= failed_us <= at[0] < sources[source].ask_again_us)
    if row == sources[source].first_believed_row or sources[source].believed_bps <= 0.0:
        return False
    off_us = believed[row - 1].end_us
    return bool(at[0] - off_us < mesh.rules.detection_us and failed_us < off_us and at[1] <= off_us)


@kernel
def health_of(sources: Records, rules: Rules, source: int, ts_us: int) -> float:
    """1 / (1 + recent failures), the failures decayed by half-life; those still ahead are not seen yet."""
    node = sources[source]
    if node.pending > 0 and node.pending_us <= ts_us:
        since_us = node.pending_us - node.failure_us
        sources[source].failures = node.failures * exp2(-since_us / rules.health_half_life_us) + node.pending
        sources[source].failure_us = node.pending_us
        sources[source].pending = 0
    failures = sources[source].failures
    if failures == 0.0:
        return 1.0
    age = (ts_us - sources[source].failure_us) / rules.health_half_life_us
    return float(1.0 / (1.0 + failures * exp2(-age)))


@kernel
def note_failure(sources: Records, rules: Rules, source: int, at_us: int, gone_us: int) -> None:
    """A source sent nothing now, or will break off when it goes: worse health, and its departure is known."""
    sources[source].known_gone_us = max(sources[source].known_gone_us, gone_us)
    if gone_us > at_us:
        sources[source].pending += 1
        sources[source].pending_us = gone_us
        return
    sources[source].failures = 1.0 / health_of(sources, rules, source, at_us)  # 1 + recent failures
    sources[source].failure_us = at_us


@kernel
def distrust(mesh: Mesh, source: int, at_us: int, from_us: int) -> None:
    """From `from_us` on a failure, seen coming at `at_us`, counts for more than the monitor; longer after each one."""
    if not mesh.rules.monitored:
        return
    before = 1.0 / health_of(mesh.sources, mesh.rules, source, at_us) - 1.0
    wait_us = max(mesh.rules.detection_us, mesh.rules.retry_us) * exp2(min(before, LONGEST_DISTRUST))
    mesh.sources[source].failed_us = max(mesh.sources[source].failed_us, from_us)
    mesh.sources[source].ask_again_us = max(mesh.sources[source].ask_again_us, from_us + round(wait_us))


@kernel
def latest_first_byte_us(mesh: Mesh, location: int) -> float:
    """Longest time to a node's first byte that is tolerated beside tier 1's; endless without a rule or a POP."""
    pop = mesh.pop[location]
    if mesh.rules.tolerance_share < 0.0 or pop < 0:
        return np.inf
    share = 1.0 + mesh.rules.tolerance_share
    return float(mesh.paths[location, pop].rtt_ms * 1000.0 * share + mesh.rules.tolerance_us)


@kernel
def punctual(mesh: Mesh, source: int, request: Request, latest_us: float) -> int:
    """USABLE if the first byte is expected in time; else the queue is too long, or the way itself."""
    rtt_us = mesh.paths[request.location, source].rtt_ms * 1000.0
    if rtt_us > latest_us:
        return ROUTER_CHOICE
    wait_us = max(0, mesh.sources[source].busy_us - request.ts_us)
    return OVERLOADED if rtt_us + wait_us > latest_us else USABLE
