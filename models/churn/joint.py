"""P(at least k of a set of replicas stay), from each node's own survival and what their departures share.

    P(at least k | set) = E_f [ Σ_{y ≥ k} (⊛_g P_g(y | Z_f))_y ],    P_g(y | Z_f) = E_{Z_g, outage} PoissonBinomial(y)

Inside a network the stays are independent given its frailty and outage (`frailty.py`), so their number is
Poisson-binomial, by dynamic programming; networks are independent given the fleet's frailty, so their numbers convolve.
One node alone keeps its own survival exactly, and with every parameter at 0 replicas are independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from typing import Any

import numba
import numpy as np

from models.churn.frailty import Conditional, Dependence, quadrature
from models.churn.history import UNKNOWN, Objects
from models.events import Float64, Int64

ALONE = -1
"""Network code of a node whose network nobody knows: it shares nothing but the fleet."""
_PARAMETERS = tuple(f.name for f in fields(Dependence))


@dataclass(frozen=True)
class ReplicaSets:
    """Sets of replicas in compressed rows: those of set s are `offsets[s]:offsets[s + 1]`.

    Attributes:
        survival: P(the replica's node stays until the lead time). (m,)
        network: code of its network, -1 where unknown. (m,)
        offsets: first replica of each set. (sets + 1,)

    Raises:
        ValueError: lengths differ, or a survival lies outside [0, 1].
    """

    survival: Float64
    network: Int64
    offsets: Int64

    def __post_init__(self) -> None:
        m = len(self.survival)
        if len(self.network) != m or not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != m:
            raise ValueError(
                f"Expected {m} networks and offsets from 0 to {m}, got {len(self.network)} networks and offsets "
                f"{self.offsets.tolist()[:3]!r} to {self.offsets.tolist()[-1:]!r}."
            )
        if bool(np.any(np.diff(self.offsets) < 0)):
            raise ValueError("Expected offsets that never fall: a set cannot have fewer than 0 replicas.")
        wrong = ~((self.survival >= 0.0) & (self.survival <= 1.0))
        if wrong.any():
            raise ValueError(f"Expected survival in [0, 1], got {float(self.survival[wrong][0])!r}.")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def grouped(cls, sets: Int64, survival: Float64, network: Int64, *, n_sets: int) -> ReplicaSets:
        """Sets from rows in any order; `sets` says which of the `n_sets` each row belongs to."""
        order = np.argsort(sets, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(sets, minlength=n_sets))]).astype(np.int64)
        return cls(survival[order], network[order], offsets)

    @property
    def sizes(self) -> Int64:
        return np.diff(self.offsets)

    @property
    def set_of_row(self) -> Int64:
        return np.repeat(np.arange(len(self), dtype=np.int64), self.sizes)


@dataclass(frozen=True)
class JointSurvival:
    """How strongly departures go together at each edge of the horizon; see `frailty.Dependence` for the parameters.

    Attributes:
        edges_hours: lead times, increasing. (B,)
        dependence: parameters at each of them. (B,)
    """

    edges_hours: tuple[float, ...]
    dependence: tuple[Dependence, ...]

    def __post_init__(self) -> None:
        edges = self.edges_hours
        if len(edges) != len(self.dependence) or not edges:
            raise ValueError(
                f"Expected a lead time and parameters for each edge, got {len(edges)} and {len(self.dependence)}."
            )
        if edges[0] <= 0.0 or any(late <= early for early, late in pairwise(edges)):
            raise ValueError(f"Expected edges_hours positive and increasing, got {edges!r}.")

    @classmethod
    def independent(cls, edges_hours: Sequence[float] | Float64 = (1.0,)) -> JointSurvival:
        """Replicas that share nothing."""
        return cls(tuple(float(e) for e in edges_hours), tuple(Dependence() for _ in edges_hours))

    @property
    def is_independent(self) -> bool:
        return all(d.is_independent for d in self.dependence)

    def at(self, hours: float) -> Dependence:
        """Parameters at a lead time: linear in its logarithm between edges, level beyond the last.

        Before the first edge an outage is as much less probable as the time is shorter.
        """
        if not hours > 0.0:
            raise ValueError(f"Expected hours > 0, got {hours!r}.")
        columns = np.array([astuple(d) for d in self.dependence])
        grid = np.log(self.edges_hours)
        values = {name: float(np.interp(math.log(hours), grid, columns[:, i])) for i, name in enumerate(_PARAMETERS)}
        values["outage_probability"] *= min(hours / self.edges_hours[0], 1.0)
        return Dependence(**values)

    def at_least(
        self,
        k: int,
        survival: Float64 | Sequence[float],
        network: Int64 | Sequence[int] | Sequence[str],
        *,
        hours: float,
    ) -> float:
        """P(at least k of these replicas stay until `hours`); see `at_least_of_sets`.

        Args:
            k: replicas that must stay; 0 gives 1.
            survival: P(stays until `hours`) of each replica's node. (r,)
            network: its network, by name or code; "unknown" and -1 stand for a network of its own. (r,)
            hours: lead time.
        """
        values = np.asarray(survival, dtype=np.float64)
        sets = ReplicaSets(values, network_codes(network), np.array([0, len(values)], dtype=np.int64))
        return float(self.at_least_of_sets(np.array([k], dtype=np.int64), sets, hours=hours)[0])

    def at_least_of_sets(self, k: Int64, sets: ReplicaSets, *, hours: float) -> Float64:
        """P(at least k[s] replicas of set s stay until `hours`), shape (sets,).

        Raises:
            ValueError: k is negative or larger than its set, `hours` is not positive.
        """
        check_wanted(k, sets)
        dependence = self.at(hours)
        order = np.lexsort((sets.network, sets.set_of_row))
        given = Conditional.of(sets.survival[order], dependence)
        found: Float64 = _at_least(
            np.asarray(k, dtype=np.int64),
            given.cumulative,
            np.exp(-given.own),
            given.taken,
            sets.network[order],
            sets.offsets,
            dependence.outage_probability,
            *quadrature(dependence.fleet_variance),
            *quadrature(dependence.network_variance),
        )
        return found

    def to_json(self) -> dict[str, Any]:
        columns = {name: [getattr(d, name) for d in self.dependence] for name in _PARAMETERS}
        return {"edges_hours": list(self.edges_hours), **columns}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> JointSurvival:
        rows = zip(*(values[name] for name in _PARAMETERS), strict=True)
        return cls(tuple(values["edges_hours"]), tuple(Dependence(*row) for row in rows))


def check_wanted(k: Int64, sets: ReplicaSets) -> None:
    """ValueError where k is negative or larger than its set: such a question is a mistake, not a probability of 0."""
    wanted = np.asarray(k)
    if wanted.shape != (len(sets),):
        raise ValueError(f"Expected one k a set, {len(sets)} in all, got shape {wanted.shape}.")
    wrong = np.flatnonzero((wanted < 0) | (wanted > sets.sizes))
    if len(wrong):
        s = int(wrong[0])
        raise ValueError(
            f"Expected k from 0 to the number of replicas, {int(sets.sizes[s])} in set {s}, got {int(wanted[s])}."
        )


def network_codes(network: Objects | Int64 | Sequence[int] | Sequence[str]) -> Int64:
    """Codes by equal names, -1 for "unknown"; codes are taken as they are, every negative one as unknown. (n,)"""
    values = np.asarray(network)
    if values.dtype.kind in "iu":
        return np.maximum(values.astype(np.int64), ALONE)
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    names, code = np.unique(values.astype(str), return_inverse=True)
    return np.where(names[code] == UNKNOWN, ALONE, code).astype(np.int64)


def joint_availability(joint: JointSurvival, sets: ReplicaSets, *, hours: float) -> Float64:
    """P(at least one replica of each set stays until `hours`), 0 for a set without replicas, shape (sets,).

    For a placement: a set is a segment, its replicas the copies on nodes. Every copy counts here, also several in one
    network, each as far as it helps.
    """
    some = (sets.sizes > 0).astype(np.int64)
    return np.where(some > 0, joint.at_least_of_sets(some, sets, hours=hours), 0.0)


@numba.njit(cache=True, nogil=True)
def _at_least(  # type: ignore[no-untyped-def]
    wanted, cumulative, kept, taken, network, offsets, outage, fleet, fleet_weight, shared, shared_weight
):
    sets = len(wanted)
    out = np.zeros(sets)
    largest = 0
    for s in range(sets):
        largest = max(largest, offsets[s + 1] - offsets[s])
    number, own = np.empty(largest + 1), np.empty(largest + 1)
    branch, spared = np.empty(largest + 1), np.empty(largest + 1)
    for s in range(sets):
        n = offsets[s + 1] - offsets[s]
        if wanted[s] == 0:
            out[s] = 1.0
            continue
        for f in range(len(fleet)):
            number[0] = 1.0
            size, i = 0, offsets[s]
            while i < offsets[s + 1]:
                j = i + 1
                while j < offsets[s + 1] and network[j] == network[i] and network[i] >= 0:
                    j += 1
                if j == i + 1:
                    shares = _laplace(cumulative[i] * fleet[f], shared, shared_weight)
                    own[1] = (1.0 - outage * taken[i]) * kept[i] * shares
                    own[0] = 1.0 - own[1]
                else:
                    _network_number(
                        cumulative, kept, taken, i, j, fleet[f], outage, shared, shared_weight, own, branch, spared
                    )
                _convolve(number, size, own, j - i)
                size += j - i
                i = j
            tail = 0.0
            for y in range(wanted[s], n + 1):
                tail += number[y]
            out[s] += fleet_weight[f] * tail
        out[s] = min(out[s], 1.0)
    return out


@numba.njit(cache=True, nogil=True)
def _laplace(hazard, shared, shared_weight):  # type: ignore[no-untyped-def]
    if np.isinf(hazard):
        return 0.0
    total = 0.0
    for g in range(len(shared)):
        total += shared_weight[g] * np.exp(-hazard * shared[g])
    return total


@numba.njit(cache=True, nogil=True)
def _network_number(  # type: ignore[no-untyped-def]
    cumulative, kept, taken, first, last, fleet, outage, shared, shared_weight, own, branch, spared
):
    """Distribution of how many of the nodes `first:last` of one network stay, into `own`."""
    n = last - first
    own[: n + 1] = 0.0
    for g in range(len(shared)):
        branch[0], spared[0] = 1.0, 1.0
        for i in range(n):
            # 0 x infinity: a node that is certainly gone stays gone at frailty 0.
            certain = np.isinf(cumulative[first + i])
            stays = 0.0 if certain else kept[first + i] * np.exp(-cumulative[first + i] * fleet * shared[g])
            _add_one(branch, i, stays)
            if outage > 0.0:
                _add_one(spared, i, stays * (1.0 - taken[first + i]))
        for y in range(n + 1):
            own[y] += shared_weight[g] * (1.0 - outage) * branch[y]
            if outage > 0.0:
                own[y] += shared_weight[g] * outage * spared[y]


@numba.njit(cache=True, nogil=True)
def _add_one(number, size, stays):  # type: ignore[no-untyped-def]
    """Poisson-binomial recursion: one more node that stays with this probability."""
    number[size + 1] = number[size] * stays
    for y in range(size, 0, -1):
        number[y] = number[y] * (1.0 - stays) + number[y - 1] * stays
    number[0] *= 1.0 - stays


@numba.njit(cache=True, nogil=True)
def _convolve(number, size, own, added):  # type: ignore[no-untyped-def]
    """`number` becomes the distribution of the sum; in place, from the largest sum down."""
    for total in range(size + added, -1, -1):
        mass = 0.0
        for y in range(max(0, total - size), min(added, total) + 1):
            mass += number[total - y] * own[y]
        number[total] = mass
