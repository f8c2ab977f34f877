"""One request against the true world: who is asked, what is sent, what it takes. Shared by plans and reactive caches.

An uplink is a first-in first-out queue of bytes. A transfer of b bytes asked for at t

    starts at    s = max(t, busy)
    ends at      e, the first instant at which the uplink has sent b bytes since s    busy becomes e
    is admitted  if s − t is at most the longest wait allowed

so that e = s + b · 8 / uplink_bps where the uplink does not change; where it does, the pieces add up (`uplinks.py`). In
turn or side by side makes no difference to the uplink: as long as bytes wait it sends at its full rate, so what it has
sent by any instant is the same under either rule of sharing; what differs is whose bytes. In turn, a viewer's first
byte waits for those before and the rest then comes at the full rate, and one number is all that the queue must keep.

A transfer breaks where the node's up-interval ends before e, where the owner pauses the uplink, and at the deadline if
there is one: what was sent until then counts for the node, tier 1 sends the rest. After a departure the viewer loses
one timeout first; a paused node says so, and a deadline is the viewer's own.

Who is asked is what the router believes. A node that went away is believed up until `detection_us` later or until a
failure told; a request sent to it costs one retry timeout and goes to the next candidate, at last to tier 1. A slow
node is not known to be slow: its queue grows, and the router sees how long it takes. Where monitoring sees something
else than the truth (`ReplayWorld.believed`), its delay is the same, and a failure counts for more than what it says:
a node that failed while it was believed up is not asked again for `detection_us`, twice as long after each further
failure. Everything is in microseconds and bytes.
"""

from __future__ import annotations

from math import ceil, exp2, floor

import numpy as np

from placement.mesh import Mesh, Outcome, Records, Request, Rules, Sums, kernel
from placement.problem import Int64
from placement.routing import total_score
from placement.tally import (
    CAUSE_BYTES,
    FAILED,
    FAILED_BYTES,
    FAILED_OVER,
    LATENCY_US,
    REQUESTS,
    RESUMED,
    RESUMED_BYTES,
    TIER_BYTES,
    TRANSFER_US,
    Cause,
    bin_of,
)
from placement.uptime import NEVER_US

# plain integers, because compiled code freezes globals
NOT_FORECAST = int(Cause.NOT_FORECAST)
INELIGIBLE = int(Cause.INELIGIBLE)
GONE_AS_FORECAST = int(Cause.GONE_AS_FORECAST)
GONE_UNFORECAST = int(Cause.GONE_UNFORECAST)
IN_TRANSIT = int(Cause.IN_TRANSIT)
OVERLOADED = int(Cause.OVERLOADED)
ROUTER_CHOICE = int(Cause.ROUTER_CHOICE)
LONGEST_DISTRUST = 10.0  # doublings
USABLE = 100  # a candidate as the router believes
SERVED = -1  # the cause of a request that the mesh served whole
UNSEEN = -2  # no copy within reach


@kernel
def uniform(seed: np.uint64, number: int, draw: int) -> float:
    """A number in [0, 1) that depends on its arguments alone (splitmix64 of the counter)."""
    z = seed + np.uint64(0x9E3779B97F4A7C15) * (np.uint64(number) * np.uint64(16) + np.uint64(draw + 1))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


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


@kernel
def score_candidate(mesh: Mesh, j: int, source: int, request: Request) -> None:
    wait_us = max(0, mesh.sources[source].busy_us - request.ts_us)
    # the free share of the allowed uplink: 1 with an empty queue, 0 with the longest one allowed
    free_share = 1.0 if wait_us == 0 else 1.0 - wait_us / mesh.rules.max_wait_us
    mesh.candidates[j].free_bps = free_share * mesh.sources[source].believed_bps
    mesh.candidates[j].score = total_score(
        mesh.paths[request.location, source].rtt_ms + wait_us / 1000.0,
        free_share,
        health_of(mesh.sources, mesh.rules, source, request.ts_us),
        mesh.paths[request.location, source].distance_km,
        mesh.rules.coefficients,
    )


@kernel
def judge_candidates(mesh: Mesh, n: int, request: Request) -> tuple[int, int]:
    """Scores the first n candidates: how many are usable, and the cause against the others."""
    usable, cause = 0, UNSEEN
    latest_us = latest_first_byte_us(mesh, request.location)
    for j in range(n):
        slot = mesh.candidates[j].slot
        source = mesh.copies[slot].source
        mesh.candidates[j].score = -np.inf
        if not mesh.paths[request.location, source].reach:
            continue
        standing = standing_of(mesh, slot, request.ts_us)
        if standing == USABLE and latest_us < np.inf:
            standing = punctual(mesh, source, request, latest_us)
        if standing == USABLE:
            score_candidate(mesh, j, source, request)
            usable += 1
        else:
            cause = max(cause, standing)
    return usable, cause


@kernel
def choose(candidates: Records, rules: Rules, n: int, usable: int, draw: tuple[int, int]) -> int:
    """The best candidate; among near-ties one at random by free bandwidth; sometimes any, to explore.

    `draw` is the request's number and the attempt.
    """
    best, best_j = -np.inf, -1
    for j in range(n):
        if candidates[j].score > best:
            best, best_j = candidates[j].score, j
    if usable == 1:
        return best_j
    if uniform(rules.seed, draw[0], 2 * draw[1]) < rules.explore_share:
        return _pick_any(candidates, n, int(uniform(rules.seed, draw[0], 2 * draw[1] + 1) * usable))
    total, near = 0.0, 0
    for j in range(n):
        if candidates[j].score >= best - rules.tie_tolerance:
            total += candidates[j].free_bps
            near += 1
    if near == 1 or total <= 0.0 or total == np.inf:
        return best_j
    left = uniform(rules.seed, draw[0], 2 * draw[1] + 1) * total
    for j in range(n):
        if candidates[j].score >= best - rules.tie_tolerance:
            left -= candidates[j].free_bps
            if left < 0.0:
                return j
    return best_j


@kernel
def _pick_any(candidates: Records, n: int, skip: int) -> int:
    found = -1
    for j in range(n):
        if candidates[j].score > -np.inf:
            found = j
            if skip == 0:
                return j
            skip -= 1
    return found


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


@kernel
def try_mesh(mesh: Mesh, n: int, request: Request) -> Outcome:
    """Asks the first n candidates in turn, at most `max_attempts`, until one sends something."""
    usable, cause = judge_candidates(mesh, n, request)
    if mesh.rules.tier1_competes and usable > 0 and _tier1_wins(mesh, n, request):
        return unserved(ROUTER_CHOICE)
    delay_us, attempt = 0, 0
    while usable > 0 and attempt < mesh.rules.max_attempts:
        j = choose(mesh.candidates, mesh.rules, n, usable, (request.number, attempt))
        slot = mesh.candidates[j].slot
        sent, start_us, finish_us, lost = _ask(mesh, slot, request, delay_us)
        if sent > 0:
            return Outcome(slot, sent, start_us, finish_us, delay_us, attempt, lost)
        delay_us = finish_us - request.ts_us + (0 if lost == OVERLOADED else mesh.rules.retry_us)
        cause = max(cause, lost)
        mesh.candidates[j].score = -np.inf
        usable -= 1
        attempt += 1
    if usable > 0:
        cause = ROUTER_CHOICE
    return Outcome(-1, 0, 0, 0, delay_us, attempt, cause)


@kernel
def unserved(cause: int) -> Outcome:
    """The mesh was not asked."""
    return Outcome(-1, 0, 0, 0, 0, 0, cause)


@kernel
def _ask(mesh: Mesh, slot: int, request: Request, delay_us: int) -> tuple[int, int, int, int]:
    """As `transmit`, with the cause why the rest is not sent; a source that is gone already sends nothing from now on."""
    asked_us = request.ts_us + delay_us
    sources, source = mesh.sources, int(np.int64(mesh.copies[slot].source))
    lost = gone(mesh.rules, mesh.copies[slot].survival)
    row = up_row(sources, mesh.intervals, source, request.ts_us)
    if row < 0:
        distrust(mesh, source, request.ts_us, request.ts_us)
        note_failure(sources, mesh.rules, source, request.ts_us, _off_since(mesh, source, request.ts_us))
        return 0, asked_us, asked_us, lost
    end_us, before_us = mesh.intervals[row].end_us, sources[source].busy_us
    cut_us = asked_us + duration_us(request.bytes, mesh.rules.tier1_bps) + mesh.rules.deadline_us
    sent, start_us, finish_us = transmit(mesh, source, min(end_us, cut_us), asked_us, request.bytes)
    if sent == request.bytes:
        return sent, start_us, finish_us, SERVED
    if finish_us >= end_us:
        distrust(mesh, source, request.ts_us, end_us)
        note_failure(sources, mesh.rules, source, request.ts_us, end_us)
        return sent, start_us, finish_us, lost
    sources[source].busy_us = max(before_us, finish_us)  # nobody waits for the rest
    return sent, start_us, finish_us, OVERLOADED


@kernel
def _off_since(mesh: Mesh, source: int, at_us: int) -> int:
    """When a source that is off at `at_us` went away; then, if it never was up."""
    row = mesh.sources[source].row
    return at_us if row == mesh.sources[source].first_row else int(mesh.intervals[row - 1].end_us)


@kernel
def _tier1_wins(mesh: Mesh, n: int, request: Request) -> bool:
    pop = mesh.pop[request.location]
    if pop < 0:
        return False
    path = mesh.paths[request.location, pop]
    score = total_score(path.rtt_ms, 1.0, 1.0, path.distance_km, mesh.rules.coefficients)
    best = -np.inf
    for j in range(n):
        best = max(best, mesh.candidates[j].score)
    return bool(score > best)


@kernel
def _rtt_us(mesh: Mesh, location: int, source: int) -> int:
    return 0 if source < 0 else int(mesh.paths[location, source].rtt_ms * 1000.0 + 0.5)


@kernel
def book(mesh: Mesh, done: Outcome, request: Request, sums: Sums) -> tuple[int, int]:
    """Serves the rest from tier 1 and adds everything up; gives who sent the first byte, and when in us."""
    rules, location = mesh.rules, request.location
    cell = sums.cells[request.hour, location]
    pop = mesh.pop[location]
    rest = request.bytes - done.sent
    rest_us = duration_us(rest, rules.tier1_bps)
    if done.sent > 0:
        source = int(np.int64(mesh.copies[done.slot].source))
        mesh.copies[done.slot].served_bytes += done.sent
        mesh.sources[source].sent_bytes += done.sent
        cell[TIER_BYTES + mesh.sources[source].tier - 1] += done.sent
        latency_us = done.start_us - request.ts_us + _rtt_us(mesh, location, source)
        transfer_us = latency_us + done.finish_us - done.start_us
        if rest > 0:
            timeout_us = 0 if done.cause == OVERLOADED else rules.retry_us
            transfer_us += timeout_us + _rtt_us(mesh, location, pop) + rest_us
            cell[RESUMED] += 1
            cell[RESUMED_BYTES] += rest
    else:
        source = int(np.int64(pop))
        latency_us = done.delay_us + _rtt_us(mesh, location, pop)
        transfer_us = latency_us + rest_us
    if rest > 0:
        cell[CAUSE_BYTES + done.cause] += rest
        _book_tier1(mesh.sources, cell, pop, rest)
    cell[REQUESTS] += 1
    cell[FAILED_OVER] += min(done.failures, 1)
    cell[LATENCY_US] += latency_us
    cell[TRANSFER_US] += transfer_us
    sums.bins[0, location, bin_of(latency_us / 1000.0)] += 1
    sums.bins[1, location, bin_of(transfer_us / 1000.0)] += 1
    return source, latency_us


@kernel
def _book_tier1(sources: Records, cell: Int64, pop: int, rest: int) -> None:
    if pop < 0:
        cell[FAILED] += 1
        cell[FAILED_BYTES] += rest
        return
    cell[TIER_BYTES] += rest
    sources[pop].sent_bytes += rest
