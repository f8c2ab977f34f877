"""One request against the true world: who is asked, what is sent, what it takes. Shared by plans and reactive caches.

Who is asked is what the router believes (`standing.py`); a node is asked only if its queue (`uplink_queue.py`) is short
enough. A request that was sent to a node that is gone costs one retry timeout and goes to the next candidate, at last to
tier 1. A transfer breaks where the node's up-interval ends before its last byte, where the owner pauses the uplink, and
at the deadline if there is one: what was sent until then counts for the node, tier 1 sends the rest. After a departure
the viewer loses one timeout first; a paused node says so, and a deadline is the viewer's own. Everything is in
microseconds and bytes.
"""

from __future__ import annotations

import numpy as np

from placement.mesh import Mesh, Outcome, Records, Request, Rules, Sums, kernel
from placement.problem import Int64
from placement.routing import total_score
from placement.standing import (
    OVERLOADED,
    ROUTER_CHOICE,
    USABLE,
    distrust,
    gone,
    health_of,
    latest_first_byte_us,
    note_failure,
    punctual,
    standing_of,
)
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
    bin_of,
)
from placement.uplink_queue import duration_us, transmit, up_row

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
