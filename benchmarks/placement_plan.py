"""The instance that a real plan answered, for `benchmarks/placement.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.jobs import read_manifest
from pipelines.plan_problem import AnsweredPlan, read_answered
from placement.problem import Bool, PlacementProblem


def plan_instance(folder: Path) -> PlacementProblem:
    """The problem beside a plan, before the plan moved anything: what it pushed is not held yet.

    Copies that the plan dropped are not written down, so no method can keep them.

    Raises:
        InputError: there is no plan, or it cannot be read.
    """
    folder = folder.resolve()
    answered = read_answered(folder, read_manifest(folder))
    problem, held = answered.problem, _held_before(answered)
    return replace(problem, current_segment=problem.current_segment[held], current_source=problem.current_source[held])


def _held_before(answered: AnsweredPlan) -> Bool:
    """Which copies of the plan were held before it."""
    problem, rows = answered.problem, answered.tables["placements"].to_pylist()
    pushed = {(row["content"], row["segment"], row["source"]) for row in rows if row["moved"]}
    copies = zip(
        problem.segments.content[problem.current_segment].tolist(),
        problem.segments.segment[problem.current_segment].tolist(),
        problem.sources.source[problem.current_source].tolist(),
        strict=True,
    )
    return np.array([copy not in pushed for copy in copies], dtype=np.bool_)
