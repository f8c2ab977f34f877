"""Joint survival: closed forms by hand, a world whose correlation is known, and what must hold of every set."""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.churn.frailty import Conditional, Dependence, quadrature
from models.churn.joint import (
    ALONE,
    JointSurvival,
    ReplicaSets,
    joint_availability,
    network_codes,
)
from models.churn.joint_evaluation import (
    KINDS,
    SetDraw,
    SetForecasts,
    forecast_sets,
    joint_reliability,
    joint_scores,
    worst_gap,
)
from models.churn.joint_fitting import fit_joint, states_at_edges
from models.churn.outcomes import Outcomes
from models.events import HOUR_US, Float64, Int64

DAY = 24.0


def joint(*parameters: float, hours: float = DAY) -> JointSurvival:
    return JointSurvival((hours,), (Dependence(*parameters),))


SHARED = joint(0.3, 1.5, 0.01, 0.9, 0.6)


def laplace(variance: float, *cumulative: float) -> float:
    """E exp(-c Z) of a gamma frailty with mean 1."""
    return float((1.0 + variance * sum(cumulative)) ** (-1.0 / variance))


def solved(variance: float, survival: float) -> float:
    return float((survival**-variance - 1.0) / variance)


def test_at_least__two_replicas_of_one_network() -> None:
    """Both stay with (1 + θ (c₁ + c₂))^(−1/θ); with θ = 1.5, S = 0.9 and 0.8 that is 0.7407, the product 0.72."""
    both = laplace(1.5, solved(1.5, 0.9), solved(1.5, 0.8))
    assert both == pytest.approx(0.740678, abs=1e-6)
    assert joint(0.0, 1.5).at_least(2, [0.9, 0.8], [7, 7], hours=DAY) == pytest.approx(both, abs=1e-8)
    # At least one: S₁ + S₂ − both.
    assert joint(0.0, 1.5).at_least(1, [0.9, 0.8], [7, 7], hours=DAY) == pytest.approx(1.7 - both, abs=1e-8)


def test_at_least__networks_share_only_the_fleet() -> None:
    """Without a fleet frailty two networks multiply; with one of variance 0.5 its own closed form holds."""
    assert joint(0.0, 1.5).at_least(2, [0.9, 0.8], [7, 8], hours=DAY) == pytest.approx(0.72, abs=1e-9)
    both = laplace(0.5, solved(0.5, 0.9), solved(0.5, 0.8))
    assert joint(0.5).at_least(2, [0.9, 0.8], [7, 8], hours=DAY) == pytest.approx(both, abs=1e-8)


def test_at_least__an_outage_takes_both() -> None:
    """π = 0.1 takes each with q = 0.5, so P(both stay) is the product of what is left times E of the outage.

    S = 0.9: q = min(0.5, 0.9 · 0.1 / 0.1) = 0.5, the rest survives 0.9 / 0.95. Both: (0.9/0.95)² (0.9 + 0.1 · 0.25).
    """
    expected = (0.9 / 0.95) ** 2 * (0.9 + 0.1 * 0.25)
    assert joint(0.0, 0.0, 0.1, 0.5).at_least(2, [0.9, 0.9], [3, 3], hours=DAY) == pytest.approx(expected, abs=1e-9)
    assert joint(0.0, 0.0, 0.1, 0.5).at_least(2, [0.9, 0.9], [3, 4], hours=DAY) == pytest.approx(0.81, abs=1e-9)


@pytest.mark.parametrize("network", [[1] * 6, [1, 2, 3, 4, 5, 6], [1, 1, 1, 2, 2, 3]])
@pytest.mark.parametrize("dependence", [Dependence(0.3, 1.5, 0.05, 0.9, 0.6), Dependence(0.55, 3.4, 0.0, 0.0, 0.13)])
def test_at_least__agrees_with_simulation_of_its_law(network: list[int], dependence: Dependence) -> None:
    """True gamma frailties and outages, 200,000 times: every k within a network, across networks and mixed.

    One share is known to 0.0011. The second law is of the size that relays show.
    """
    rng, times = np.random.default_rng(5), 200_000
    survival, of_node = np.linspace(0.55, 0.95, 6), np.array(network)
    shared = Conditional.of(survival, dependence)
    fleet, own = (rng.gamma(1.0 / v, v, (times, 7)) for v in (dependence.fleet_variance, dependence.network_variance))
    hit = rng.random((times, 7)) < dependence.outage_probability
    stays = np.exp(-shared.cumulative * fleet[:, :1] * own[:, of_node] - shared.own)
    stays *= np.where(hit[:, of_node], 1.0 - shared.taken, 1.0)
    number = np.sum(rng.random((times, 6)) < stays, axis=1)
    law = JointSurvival((DAY,), (dependence,))
    for k in range(1, 7):
        assert law.at_least(k, survival, network, hours=DAY) == pytest.approx(np.mean(number >= k), abs=5e-3)


def test_at_least__what_a_node_leaves_by_itself_is_not_shared() -> None:
    """With most_shared = 0.2 a node of S = 0.4 shares 0.8 and keeps 0.5 to itself: both stay with 0.25 · L(2 c₀.₈)."""
    expected = 0.25 * laplace(1.5, solved(1.5, 0.8), solved(1.5, 0.8))
    found = joint(0.0, 1.5, 0.0, 0.0, 0.2).at_least(2, [0.4, 0.4], [1, 1], hours=DAY)
    assert found == pytest.approx(expected, abs=1e-8)


def test_at_least__independent_replicas_multiply() -> None:
    """All parameters 0: the Poisson-binomial by enumeration; a variance towards 0 gives the same."""
    survival = [0.9, 0.5, 0.7, 0.2]
    enumerated = [
        sum(
            math.prod(s if up else 1.0 - s for s, up in zip(survival, ups, strict=True))
            for ups in product((0, 1), repeat=4)
            if sum(ups) >= k
        )
        for k in range(5)
    ]
    apart = JointSurvival.independent()
    assert apart.is_independent
    assert not SHARED.is_independent
    for k in range(5):
        assert apart.at_least(k, survival, [1, 1, 1, 1], hours=DAY) == pytest.approx(enumerated[k], abs=1e-12)
        assert joint(1e-5, 1e-5).at_least(k, survival, [1] * 4, hours=DAY) == pytest.approx(enumerated[k], abs=1e-4)


def test_at_least__nodes_of_unknown_network_are_alone() -> None:
    """The label "unknown" and negative codes say that nobody knows what they share, not that they share it."""
    assert network_codes(["a", "unknown", "a", "b"]).tolist()[1] == ALONE
    assert network_codes(np.array([4, -7])).tolist() == [4, ALONE]
    both = joint(0.0, 1.5).at_least(2, [0.9, 0.8], ["unknown", "unknown"], hours=DAY)
    assert both == pytest.approx(0.72, abs=1e-9)


def test_at_least__certain_nodes() -> None:
    """A node that is down never stays and one with S = 1 always does, whatever they share."""
    assert SHARED.at_least(1, [0.0, 0.0], [1, 1], hours=DAY) == 0.0
    assert SHARED.at_least(2, [1.0, 1.0, 0.0], [1, 1, 1], hours=DAY) == pytest.approx(1.0)
    assert SHARED.at_least(0, [], [], hours=DAY) == 1.0


def test_at_least_of_sets__equals_one_at_a_time() -> None:
    """Sets of several sizes with networks in any order: the batch is the single answers."""
    rng = np.random.default_rng(3)
    sizes = [1, 3, 8, 0, 5]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    sets = ReplicaSets(rng.uniform(0.3, 1.0, 17), rng.integers(-1, 3, 17), offsets)
    wanted = np.array([1, 2, 5, 0, 3])
    found = SHARED.at_least_of_sets(wanted, sets, hours=DAY)
    for s, k in enumerate(wanted):
        rows = slice(offsets[s], offsets[s + 1])
        alone = SHARED.at_least(int(k), sets.survival[rows], sets.network[rows], hours=DAY)
        assert found[s] == pytest.approx(alone, abs=1e-12)
    order = rng.permutation(17)
    grouped = ReplicaSets.grouped(sets.set_of_row[order], sets.survival[order], sets.network[order], n_sets=5)
    assert SHARED.at_least_of_sets(wanted, grouped, hours=DAY) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("k", [-1, 3])
def test_at_least__a_k_that_no_set_can_have(k: int) -> None:
    """Asking for more replicas than there are is a mistake of the caller, named with both numbers."""
    with pytest.raises(ValueError, match=rf"2 in set 0, got {k}"):
        SHARED.at_least(k, [0.9, 0.8], [1, 1], hours=DAY)


def test_values__say_what_is_wrong() -> None:
    """Every value checks itself: parameters, lead times, sets."""
    with pytest.raises(ValueError, match=r"network_variance in \[0, 5\], got -1"):
        Dependence(network_variance=-1.0)
    with pytest.raises(ValueError, match="outage_probability below 1"):
        Dependence(outage_probability=1.0)
    with pytest.raises(ValueError, match="positive and increasing"):
        JointSurvival((2.0, 1.0), (Dependence(), Dependence()))
    with pytest.raises(ValueError, match=r"survival in \[0, 1\], got 1.5"):
        SHARED.at_least(1, [1.5], [1], hours=DAY)
    with pytest.raises(ValueError, match="hours > 0"):
        SHARED.at_least(1, [0.5], [1], hours=0.0)
    with pytest.raises(ValueError, match="offsets that never fall"):
        ReplicaSets(np.ones(2), np.zeros(2, dtype=np.int64), np.array([0, 2, 1, 2]))


def test_joint_survival__between_edges_and_through_json() -> None:
    """Half way in log time the parameters are half way; before the first edge an outage is rarer by the time."""
    found = JointSurvival((4.0, 16.0), (Dependence(0.2, 1.0, 0.01, 0.8), Dependence(0.1, 2.0, 0.03, 0.6)))
    middle = found.at(8.0)
    assert (middle.fleet_variance, middle.network_variance) == pytest.approx((0.15, 1.5))
    assert found.at(1.0).outage_probability == pytest.approx(0.0025)
    assert found.at(99.0) == found.dependence[1]
    assert JointSurvival.from_json(found.to_json()) == found


def test_joint_availability__counts_every_copy() -> None:
    """One copy: its survival; none: 0; two of one network, θ = 5: 1.8 − (1 + 10 c)^(−1/5), c = 0.139: 0.9593."""
    sets = ReplicaSets(np.array([0.9, 0.9, 0.9]), np.array([1, 5, 5]), np.array([0, 1, 1, 3]))
    found = joint_availability(joint(0.0, 5.0), sets, hours=DAY)
    assert found[:2] == pytest.approx([0.9, 0.0], abs=1e-9)
    assert found[2] == pytest.approx(1.8 - laplace(5.0, *[solved(5.0, 0.9)] * 2), abs=1e-4)


variances = st.one_of(st.just(0.0), st.floats(0.01, 5.0))
dependences = st.builds(
    Dependence, variances, variances, st.floats(0.0, 0.3), st.floats(0.0, 1.0), st.floats(0.05, 1.0)
)
replicas = st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(-1, 2)), min_size=1, max_size=6)


@given(dependences, replicas)
def test_at_least__falls_in_k_between_1_and_0(dependence: Dependence, replicas: list[tuple[float, int]]) -> None:
    """A distribution of the number that stay, whose mean is the sum of the survivals: the marginals are exact."""
    shared = JointSurvival((DAY,), (dependence,))
    survival, network = [s for s, _ in replicas], [g for _, g in replicas]
    tails = [shared.at_least(k, survival, network, hours=DAY) for k in range(len(replicas) + 1)]
    assert tails[0] == 1.0
    assert all(0.0 <= later <= earlier + 1e-12 for earlier, later in pairwise(tails))
    assert sum(tails[1:]) == pytest.approx(sum(survival), abs=1e-6)


@given(dependences, st.floats(0.0, 1.0))
def test_at_least__one_node_keeps_its_survival(dependence: Dependence, survival: float) -> None:
    """Whatever is shared, the forecast of a single node is not changed by it."""
    found = JointSurvival((DAY,), (dependence,)).at_least(1, [survival], [0], hours=DAY)
    assert found == pytest.approx(survival, abs=1e-7)


def test_quadrature__has_the_moments_of_the_gamma() -> None:
    """Mean 1 and the variance asked for, exactly, up to the largest allowed."""
    for variance in (0.01, 0.5, 3.0, 5.0):
        z, weight = quadrature(variance)
        assert (weight @ z, weight @ (z - 1.0) ** 2) == pytest.approx((1.0, variance), rel=1e-9)
    given_ = Conditional.of(np.array([0.0, 0.5, 1.0]), Dependence(0.2, 0.7))
    assert (given_.cumulative[0], given_.cumulative[2]) == (np.inf, 0.0)


def world(
    *, fleet: float, network: float, outage: float = 0.0, origins: int = 45, seed: int = 0
) -> tuple[Outcomes, Float64, Int64]:
    """150 networks of 1 to 5 nodes seen at many origins; survival 0.75 to 0.98 over one edge."""
    rng = np.random.default_rng(seed)
    of_node = np.repeat(np.arange(150), rng.integers(1, 6, 150))
    n = len(of_node)
    dependence = Dependence(fleet, network, outage, 0.9 if outage else 0.0)
    parts = []
    for o in range(origins):
        survival = rng.uniform(0.75, 0.98, n)
        given_ = Conditional.of(survival, dependence)
        z = rng.gamma(1.0 / fleet, fleet) if fleet else 1.0
        own = rng.gamma(1.0 / network, network, 150) if network else np.ones(150)
        hit = rng.random(150) < outage
        stays = np.exp(-given_.cumulative * z * own[of_node]) * np.where(hit[of_node], 1.0 - given_.taken, 1.0)
        parts.append((np.full(n, o), survival, rng.random(n) < stays))
    origin, survival, alive = (np.concatenate(p) for p in zip(*parts, strict=True))
    rows = len(origin)
    outcomes = Outcomes(
        origin * 48 * HOUR_US,
        np.tile(np.arange(n), origins),
        alive.astype(np.int64),
        (~alive).astype(np.int64),
        np.full(rows, DAY),
        np.array([DAY]),
    )
    return outcomes, survival[:, None], np.tile(of_node, origins)


def test_fit_joint__recovers_what_departures_share() -> None:
    """20,000 rows of known variances 0.3 and 1.0: within a third of each, and no outage is invented."""
    found = fit_joint(*world(fleet=0.3, network=1.0)).dependence[0]
    assert found.fleet_variance == pytest.approx(0.3, rel=0.34)
    assert found.network_variance == pytest.approx(1.0, rel=0.34)
    assert found.outage_probability * found.outage_share < 0.004


def test_fit_joint__recovers_outages() -> None:
    """An outage in 2 of 100 network-days that takes 9 of 10: found apart from the frailty."""
    found = fit_joint(*world(fleet=0.0, network=0.3, outage=0.02)).dependence[0]
    assert found.outage_probability == pytest.approx(0.02, rel=0.35)
    assert found.outage_share == pytest.approx(0.9, abs=0.12)
    assert found.fleet_variance < 0.05


def test_fit_joint__nodes_of_an_outage_are_forecast_to_fail_together() -> None:
    """Outages in 3 of 100 network-days: whole networks of 4 and 5 go as often as forecast, and by products hardly ever.

    Sets of four networks, one node each, are left together neither in the forecast nor in the world.
    """
    outcomes, survival, network = world(fleet=0.0, network=0.0, outage=0.03)
    fitted, alive = fit_joint(outcomes, survival, network), outcomes.low > 0
    apart = JointSurvival.independent((DAY,))
    _, code, size = np.unique(outcomes.at_us // HOUR_US * 1000 + network, return_inverse=True, return_counts=True)
    large = size[code] >= 4
    _, sets = np.unique(code[large], return_inverse=True)

    def none_stay(law: JointSurvival, sets: Int64, rows: Int64) -> float:
        drawn = ReplicaSets.grouped(sets, survival[rows, 0], network[rows], n_sets=int(sets.max()) + 1)
        return float(np.sum(1.0 - law.at_least_of_sets(np.ones(len(drawn), dtype=np.int64), drawn, hours=DAY)))

    rows = np.flatnonzero(large)
    gone = int(np.sum(np.bincount(sets, weights=alive[rows]) == 0))
    assert gone > 40
    assert none_stay(fitted, sets, rows) == pytest.approx(gone, rel=0.25)
    assert none_stay(apart, sets, rows) < 0.1 * gone
    first = np.unique(code, return_index=True)[1]
    across = np.arange(len(first)) // 4
    assert none_stay(fitted, across, first) == pytest.approx(none_stay(apart, across, first), rel=0.2)


def test_fit_joint__finds_nothing_where_nothing_is_shared() -> None:
    """Independent departures: both variances near 0. Too few departures to say: exactly independent."""
    found = fit_joint(*world(fleet=0.0, network=0.0, origins=40)).dependence[0]
    assert max(found.fleet_variance, found.network_variance) < 0.1
    outcomes, survival, network = world(fleet=0.5, network=2.0, origins=1)
    few = outcomes.take(np.arange(40))
    assert fit_joint(few, survival[:40], network[:40]).is_independent


def test_fit_joint__shapes_that_disagree() -> None:
    """The shapes are named, because rows and edges are easily swapped."""
    outcomes, survival, network = world(fleet=0.0, network=0.0, origins=1)
    with pytest.raises(ValueError, match="Expected survival of shape"):
        fit_joint(outcomes, survival.T, network)


def test_states_at_edges__a_departure_around_an_edge_is_drawn() -> None:
    """Gone between edges 0 and 2, S = 0.9 and 0.6: still there at edge 1 with (0.9 − 0.6) / (1 − 0.6) = 3/4.

    400 origins of one node. One that may have left at any time after edge 0 is not used.
    """
    n = 400
    low, high = np.zeros(n, dtype=np.int64), np.full(n, 2)
    at_us = np.arange(n) * HOUR_US
    outcomes = Outcomes(at_us, np.zeros(n, dtype=np.int64), low, high, np.full(n, 99.0), np.array([1.0, 2.0]))
    alive, usable = states_at_edges(outcomes, np.tile([0.9, 0.6], (n, 1)))
    assert usable.all()
    assert alive[:, 0].mean() == pytest.approx(0.75, abs=0.01)
    assert not alive[:, 1].any()
    hidden = Outcomes(at_us, outcomes.node, low, np.zeros(n, dtype=np.int64), np.full(n, 99.0), np.array([1.0, 2.0]))
    assert not states_at_edges(hidden, np.tile([0.9, 0.6], (n, 1)))[1].any()


def test_joint_reliability__the_true_parameters_are_calibrated_and_independence_is_not() -> None:
    """In a world of strong correlation the truth is within 5 points in every tenth; products are not, within networks."""
    outcomes, survival, network = world(fleet=0.3, network=3.0, origins=80, seed=2)
    methods = {"joint": joint(0.3, 3.0), "independent": JointSurvival.independent()}
    sets = forecast_sets(methods, outcomes, survival, network, draw=SetDraw(sets_per_origin=40))
    rows = joint_reliability(sets)
    assert worst_gap(rows, model="joint", least_blocks=30) < 0.05
    gaps = [worst_gap(rows, model=name, kind="within", least_blocks=30) for name in methods]
    assert gaps[0] < gaps[1]
    assert gaps[1] > 0.07
    scores = {(row["model"], row["kind"]): row for row in joint_scores(sets, reference="independent")}
    assert scores["joint", "within"]["minus_reference_high"] < 0.0
    safe = scores["joint", "all"]
    assert safe["failures_expected"] == pytest.approx(safe["failures_observed"], rel=0.3)
    # What single nodes miss is the forecasts' own: both methods answer the same.
    assert scores["joint", "single"]["log_loss"] == pytest.approx(scores["independent", "single"]["log_loss"])


def test_joint_reliability__few_networks_are_little_evidence() -> None:
    """Two networks always hold and two never, at every time: blocks of time agree, networks say 0.5 +- 0.5.

    With 400 networks instead the share is known to 5 points.
    """
    n, block = 400, np.arange(400) // 20
    for network, wide in ((np.arange(n) % 4, True), (np.arange(n), False)):
        sets = SetForecasts(
            {"m": np.full(n, 0.5)}, np.full(n, KINDS.index("within")), (network % 2).astype(np.float64), block, network
        )
        row = next(row for row in joint_reliability(sets) if row["kind"] == "within")
        assert (row["blocks"], row["networks"], row["observed"]) == (20, len(np.unique(network)), 0.5)
        assert (row["observed_high"] - row["observed_low"] > 0.3) == wide
        assert row["observed_low"] < 0.5 < row["observed_high"]


def test_forecast_sets__nothing_to_draw_from() -> None:
    """One node at one origin makes no set of two."""
    outcomes, survival, network = world(fleet=0.0, network=0.0, origins=1)
    with pytest.raises(ValueError, match="No replica set could be drawn"):
        forecast_sets({}, outcomes.take(np.arange(0)), survival[:0], network[:0])
