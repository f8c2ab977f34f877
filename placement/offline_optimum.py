"""The most net avoided requests that any plan could reach, where the whole future is known: offline caching, exactly.

One location has room for N contents of equal size; nobody departs and uplinks suffice. Between the instants at which what
is held may change lie **epochs**. With x_ce = 1 where content c is held in epoch e, and n_ce its requests then,

    max  sum_ce n_ce x_ce - sum_ce max(0, x_ce - x_c,e-1)        subject to   sum_c x_ce <= N,   x_ce in {0, 1}

each hit saves a fetch from tier 1 and each fill costs one. A fill may come right before a content's first request, so
that a stay saves its requests less one. Filling on a miss saves no more where the fill is free, and less where it is
paid: the optimum bounds reactive caches as well as plans.

N units of room flow through time, along the epochs (idle) or through contents:

    start of e --1--> (c, e) ---n_ce--> (c, e)' --0--> start of e + 1          fill, hits, drop
                                        (c, e)' --0--> (c, e')                 held on until it is next asked for

Every arc between contents has capacity 1. The matrix of a flow is totally unimodular, so whole units are optimal and the
minimum-cost flow is the exact optimum. Source: offline caching as a flow, as in Berger, Beckmann and Harchol-Balter,
"Practical Bounds on Optimal Caching with Variable Object Sizes" (FOO, 2018), with stays instead of misses counted.
"""

from __future__ import annotations

import numpy as np
from ortools.graph.python import min_cost_flow

from placement.errors import ProblemError
from placement.problem import Int64


def most_net_avoided(content: Int64, epoch: Int64, *, room: int) -> int:
    """Hits less fills of the best plan with hindsight, in requests.

    Args:
        content: code of the content of each request. (R,)
        epoch: the epoch that it falls in: what is held changes between epochs only. `np.arange(R)` lets it change before
            every request, which bounds whoever plans more seldom. (R,)
        room: contents that fit at once.

    Raises:
        ProblemError: lengths differ, there is no room, or an epoch lies before the one before.
    """
    _check(content, epoch, room)
    if len(content) == 0:
        return 0
    content = np.unique(content, return_inverse=True)[1].astype(np.int64)
    epochs, epoch = np.unique(epoch, return_inverse=True)
    stays, hits = np.unique(content * len(epochs) + epoch, return_counts=True)
    return _cheapest_flow(stays // len(epochs), stays % len(epochs), hits, n_epochs=len(epochs), room=room)


def _check(content: Int64, epoch: Int64, room: int) -> None:
    problems = []
    if len(content) != len(epoch):
        problems.append(f"{len(content)} contents but {len(epoch)} epochs; expected one of each for every request.")
    late = np.flatnonzero(np.diff(epoch) < 0)
    if len(late):
        row = int(late[0]) + 1
        problems.append(f"Request {row} is of epoch {int(epoch[row])}, after one of epoch {int(epoch[row - 1])}.")
    if room < 1:
        problems.append(f"Expected room >= 1, got {room!r}.")
    if problems:
        raise ProblemError("There is no optimum of these requests:", problems)


def _cheapest_flow(content: Int64, epoch: Int64, hits: Int64, *, n_epochs: int, room: int) -> int:
    """The largest saving of `room` units from the start of the first epoch to the end of the last.

    Pairs of (content, epoch) with requests come sorted; nodes are the starts of epochs, the end, then two a pair.
    """
    n = len(content)
    idle = np.arange(n_epochs, dtype=np.int64)
    asked = n_epochs + 1 + np.arange(n, dtype=np.int64)
    served = asked + n
    again = np.flatnonzero(content[1:] == content[:-1])
    tail = np.concatenate([idle, epoch, asked, served, served[again]])
    head = np.concatenate([idle + 1, asked, served, epoch + 1, asked[again + 1]])
    cost = np.concatenate([np.zeros(n_epochs), np.ones(n), -hits, np.zeros(n + len(again))]).astype(np.int64)
    capacity = np.ones(len(tail), dtype=np.int64)
    capacity[:n_epochs] = room
    network = min_cost_flow.SimpleMinCostFlow()
    network.add_arcs_with_capacity_and_unit_cost(tail, head, capacity, cost)
    network.set_nodes_supplies(np.array([0, n_epochs]), np.array([room, -room]))
    status = network.solve()
    assert status == network.OPTIMAL, (
        f"a flow of {room} units along the epochs always exists, but OR-Tools says {status}"
    )
    return -int(network.optimal_cost())
