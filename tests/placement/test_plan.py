"""Plans are well formed, and two of them can be compared."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from placement.errors import PlanError
from placement.plan import PLACEMENTS_SCHEMA, Plan, diff


def table(*copies: tuple[str, str]) -> pa.Table:
    """Placements of 5 bytes each on tier 2."""
    rows = [
        {"content": content, "segment": 0, "source": source, "tier": 2, "bytes": 5, "moved": False}
        for content, source in copies
    ]
    return pa.Table.from_pylist(rows, schema=PLACEMENTS_SCHEMA)


def test_diff__added_dropped_kept() -> None:
    """A reviewer sees what would change: here one copy each, 5 bytes each."""
    found = diff(table(("a", "n1"), ("b", "n1")), table(("b", "n1"), ("c", "n2")))
    assert found.added["content"].to_pylist() == ["c"]
    assert found.dropped["content"].to_pylist() == ["a"]
    assert found.kept["content"].to_pylist() == ["b"]
    assert (found.added_bytes, found.dropped_bytes, found.kept_bytes) == (5, 5, 5)


def test_plan__names_every_mistake() -> None:
    """A plan that cannot be right is refused where it is made."""
    none = np.zeros(0, np.int32)
    with pytest.raises(PlanError) as caught:
        Plan(
            segment=np.zeros(2, np.int32),
            source=none,
            moved=np.zeros(0, np.bool_),
            flow_segment=none,
            flow_location=none,
            flow_source=none,
            flow_share=np.zeros(0),
            fallback_segment=none,
            objective=float("nan"),
            bound=0.0,
            gap=0.0,
            status="infeasible",
            reason="",
            binding=(),
            bytes_moved=0,
            method="none",
        )
    assert len(caught.value.problems) == 3
