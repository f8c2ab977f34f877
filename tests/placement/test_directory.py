"""Candidates of a request, worked by hand: the service and the batch job both ask this one table."""

import pyarrow as pa
import pytest

from placement.directory import SourceDirectory
from placement.errors import RoutingError
from placement.routing import RoutingSettings, explain, score, top_k


@pytest.fixture
def directory() -> SourceDirectory:
    """One POP and three nodes; `n1` and `n2` hold (film, 0), `n3` is down; `porto` reaches the POP and n1 only."""
    n = 4
    return SourceDirectory(
        placements=pa.table({"content": ["film", "film", "film"], "segment": [0, 0, 1], "source": ["n2", "n1", "n3"]}),
        sources=pa.table(
            {
                "source": ["pop", "n1", "n2", "n3"],
                "tier": pa.array([1, 2, 3, 3], pa.int8()),
                "location": ["lisbon"] * n,
                "lat": [38.7] * n,
                "lon": [-9.1] * n,
                "network": [-1, 0, 1, 1],
                "storage_bytes": [10**9] * n,
                "uplink_bps": [1e6] * n,
                "eligible": [True, True, False, True],
                "reason": ["", "", "no consent", ""],
                "up": [True, True, True, False],
                "stay": [1.0] * n,
                "survival": [1.0] * n,
            }
        ),
        paths=pa.table(
            {
                "location": ["lisbon"] * 4 + ["porto"] * 2,
                "source": ["pop", "n1", "n2", "n3", "pop", "n1"],
                "rtt_ms": pa.array([20, 5, 6, 7, 30, 9], pa.float32()),
                "distance_km": pa.array([100, 1, 2, 3, 300, 270], pa.float32()),
            }
        ),
    )


def test_candidates__holders_then_pops(directory: SourceDirectory) -> None:
    """A held segment has its holders (by source) and the POP; one that nobody holds has the POP alone."""
    batch = directory.candidates(["film", "news"], [0, 0], ["lisbon", "porto"])
    assert batch.offsets.tolist() == [0, 3, 4]
    assert batch.source.tolist() == [1, 2, 0, 0]
    assert batch.latency_ms.tolist() == [5.0, 6.0, 20.0, 30.0]


def test_candidates__only_what_the_location_reaches(directory: SourceDirectory) -> None:
    """n2 holds the segment, but no path leads there from porto."""
    assert directory.candidates(["film"], [0], ["porto"]).source.tolist() == [1, 0]


def test_candidates__hard_rules_have_reasons(directory: SourceDirectory) -> None:
    """A source without consent and one that is down are candidates without a score, and say why."""
    batch = directory.candidates(["film", "film"], [0, 1], ["lisbon", "lisbon"])
    rejected = {e.source: e.rejection for r in (0, 1) for e in explain(batch, r, RoutingSettings()) if e.rejection}
    assert rejected == {2: "no consent", 3: "believed down"}


def test_candidates__feed_the_score(directory: SourceDirectory) -> None:
    """The near holder wins over the POP, and both come back ranked."""
    batch = directory.candidates(["film"], [0], ["lisbon"])
    best, _ = top_k(batch, score(batch, RoutingSettings()), 3)
    assert best.tolist() == [[1, 0, -1]]


def test_candidates__unknown_location(directory: SourceDirectory) -> None:
    """A mistyped location is named, with what is known."""
    with pytest.raises(RoutingError, match=r"no location 'lisboa'.*lisbon"):
        directory.candidates(["film"], [0], ["lisboa"])


def test_candidates__no_requests(directory: SourceDirectory) -> None:
    """An empty batch is a batch."""
    assert directory.candidates([], [], []).n_requests == 0
