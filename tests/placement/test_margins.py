"""A margin makes a tight uplink hold as often as asked, and changes nothing elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.check import check
from placement.errors import ProblemError
from placement.flows import Flows, best_flows
from placement.margins import limits_with_margin
from placement.problem import Demand, Float64, PlacementProblem, PlacementSettings, Segments
from placement.solve import solve
from tests.placement.tiny import GB, hand_problem

ROWS = 60


def busy(quantile: float | None, *, uplink: float = 0.6, dispersion: float = 0.3) -> PlacementProblem:
    """60 segments of 1 GB asked for 20 times each and all held by one node, whose uplink covers 60 % of that."""
    base = hand_problem()
    rows = np.arange(ROWS, dtype=np.int32)
    sources = replace(
        base.sources,
        storage_bytes=np.array([100 * GB, ROWS * GB]),
        uplink_bytes=np.array([np.inf, uplink * ROWS * 20 * GB]),
    )
    return replace(
        base,
        segments=Segments(
            np.array([f"c{at}" for at in rows], dtype=object), np.zeros(ROWS, np.int32), np.full(ROWS, GB)
        ),
        sources=sources,
        demand=Demand(rows, np.zeros(ROWS, np.int32), np.full(ROWS, 20.0), np.full(ROWS, dispersion)),
        current_segment=rows,
        current_source=np.ones(ROWS, np.int32),
        settings=PlacementSettings(**{**vars(base.settings), "uplink_quantile": quantile}),
    )


def loads(problem: PlacementProblem, flows: Flows, draws: int = 4000) -> Float64:
    """Realised bytes of the node: negative binomial requests as Poisson ones of a gamma rate, each sent by its share."""
    rng = np.random.default_rng(7)
    mine = flows.source == 1
    row, share = flows.row[mine], flows.share[mine]
    alpha = problem.dispersion[row]
    factor = rng.gamma(1 / alpha, alpha, (draws, len(row))) if (alpha > 0).all() else np.ones((draws, len(row)))
    requests = rng.poisson(problem.demand.requests[row] * factor)
    return np.asarray(rng.binomial(requests, np.minimum(share, 1.0)) @ problem.demand_segment_bytes[row])


@pytest.mark.parametrize(("dispersion", "rare"), [(0.0, 0.115), (0.3, 0.115), (2.0, 0.13)])
def test_margin__holds_as_often_as_asked(dispersion: float, rare: float) -> None:
    """Planned for the mean a full uplink is exceeded about every other time; with 0.9, about one time in ten."""
    for quantile, low, high in ((None, 0.4, 0.56), (0.9, 0.07, rare)):
        problem = busy(quantile, dispersion=dispersion)
        flows = best_flows(problem, problem.current_segment, problem.current_source)
        exceeded = float((loads(problem, flows) > problem.usable_uplink_bytes[1]).mean())
        assert low < exceeded < high, (quantile, exceeded)


def test_margin__only_where_it_is_tight() -> None:
    """Where the uplink is ample, and where no quantile is set, shares stay as they were, to the bit."""
    ample = busy(0.9, uplink=1.5)
    plain = replace(ample, settings=replace(ample.settings, uplink_quantile=None))
    flows, same = (best_flows(p, p.current_segment, p.current_source) for p in (ample, plain))
    assert flows.share.tobytes() == same.share.tobytes()


def test_limit__by_hand() -> None:
    """One viewer group: 100 requests of 1 GB, Poisson, an uplink of 100 GB and z = 1: L + sqrt L = 100 at L = 90.51."""
    base = busy(0.8413447460685429, dispersion=0.0)
    one = replace(base.demand, requests=np.where(np.arange(ROWS) == 0, 100.0, 0.0))
    problem = replace(base, demand=one, sources=replace(base.sources, uplink_bytes=np.array([np.inf, 100.0 * GB])))
    flows = (np.zeros(1, np.int64), np.ones(1, np.int32), np.ones(1))
    # sqrt L = (-1 + sqrt(401)) / 2 = 9.512
    assert limits_with_margin(problem, *flows)[1] / GB == pytest.approx(9.51249**2, rel=1e-4)


def test_limit__segments_of_one_content_deviate_together() -> None:
    """The viewers of two segments are the same: as one segment of twice the size, and worse than two contents."""
    base = busy(0.9)
    together = replace(
        base.segments, content=np.full(ROWS, "film", dtype=object), segment=np.arange(ROWS, dtype=np.int32)
    )
    flows = best_flows(base, base.current_segment, base.current_source)
    apart = limits_with_margin(base, flows.row, flows.source, flows.share)[1]
    limit = limits_with_margin(replace(base, segments=together), flows.row, flows.source, flows.share)[1]
    assert limit < apart


def test_solve__with_a_quantile() -> None:
    """The plan is judged as any other, costs more than one for the mean, and says that it keeps room."""
    plan, mean = solve(busy(0.9)), solve(busy(None))
    assert check(busy(None), plan).ok
    assert mean.objective < plan.objective
    assert plan.bound <= plan.objective
    assert any("keep room for their load to suffice with probability 0.9" in sentence for sentence in plan.binding)


@pytest.mark.parametrize("quantile", [0.4, 1.0, float("nan")])
def test_settings__quantile_within_bounds(quantile: float) -> None:
    """Below a half there would be less than no margin, and a probability of 1 has no quantile."""
    with pytest.raises(ProblemError, match="uplink_quantile"):
        PlacementSettings(uplink_quantile=quantile)


def test_dispersion__is_checked() -> None:
    """A negative dispersion has no law."""
    base = busy(0.9)
    with pytest.raises(ProblemError, match=r"demand.dispersion\[0\] is -1.0"):
        replace(base, demand=replace(base.demand, dispersion=np.full(ROWS, -1.0)))
