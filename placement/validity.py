"""What is wrong with an instance: shapes, codes, values and duplicates, one sentence for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from placement.problem import PlacementProblem


def mistakes(problem: PlacementProblem) -> list[str]:
    """Every mistake of an instance; none for a valid one."""
    shapes = _shape_problems(problem)
    if shapes:
        return shapes  # values cannot be judged while the shapes disagree
    return _code_problems(problem) + _value_problems(problem) + _duplicate_problems(problem)


def _shape_problems(problem: PlacementProblem) -> list[str]:
    n_locations, n_sources = len(problem.locations), len(problem.sources)
    problems = []
    for owner, length in (
        ("segments", len(problem.segments)),
        ("sources", n_sources),
        ("demand", len(problem.demand)),
    ):
        for name, value in vars(getattr(problem, owner)).items():
            if value is not None and np.shape(value) != (length,):
                problems.append(f"{owner}.{name} has shape {np.shape(value)}, expected ({length},).")
    for name in ("rtt_ms", "reach"):
        if getattr(problem, name).shape != (n_locations, n_sources):
            shape = getattr(problem, name).shape
            problems.append(f"{name} has shape {shape}, expected ({n_locations}, {n_sources}).")
    if problem.current_segment.shape != problem.current_source.shape:
        shapes = f"{problem.current_segment.shape} and {problem.current_source.shape}"
        problems.append(f"current_segment and current_source have shapes {shapes}; expected them equal.")
    return problems


def _code_problems(problem: PlacementProblem) -> list[str]:
    n_segments, n_locations, n_sources = len(problem.segments), len(problem.locations), len(problem.sources)
    n_networks = np.iinfo(np.int32).max
    columns = (
        ("demand.segment", problem.demand.segment, 0, n_segments),
        ("demand.location", problem.demand.location, 0, n_locations),
        ("current_segment", problem.current_segment, 0, n_segments),
        ("current_source", problem.current_source, 0, n_sources),
        ("sources.location", problem.sources.location, -1, n_locations),
        ("sources.network", problem.sources.network, -1, n_networks),
        ("sources.tier", problem.sources.tier, 1, 4),
    )
    problems = []
    for name, codes, low, high in columns:
        wrong = np.flatnonzero((codes < low) | (codes >= high))
        if len(wrong):
            shown = f"{name}[{wrong[0]}] is {int(codes[wrong[0]])!r} ({len(wrong)} such)"
            problems.append(f"{shown}; allowed are {low} to {high - 1}.")
    return problems


def _value_problems(problem: PlacementProblem) -> list[str]:
    segments, sources = problem.segments, problem.sources
    inf = float("inf")
    columns: tuple[tuple[str, npt.NDArray[np.generic], float, float, str], ...] = (
        ("segments.bytes", segments.bytes, 1, 2.0**62, "at least 1 byte"),
        ("sources.storage_bytes", sources.storage_bytes, 0, 2.0**62, "0 or more"),
        ("sources.uplink_bytes", sources.uplink_bytes, 0, inf, "0 or more, or infinity"),
        ("sources.survival", sources.survival, 0, 1, "a probability in [0, 1]"),
        ("sources.egress_cost_per_gb", sources.egress_cost_per_gb, 0, 1e9, "0 or more dollars"),
        ("sources.lat", sources.lat, -90, 90, "degrees in [-90, 90]"),
        ("sources.lon", sources.lon, -180, 180, "degrees in [-180, 180]"),
        ("demand.requests", problem.demand.requests, 0, 1e18, "0 or more, finite"),
        ("demand.dispersion", problem.dispersion, 0, 1e9, "0 or more, finite"),
        ("rtt_ms", problem.rtt_ms, 0, 1e9, "0 or more milliseconds"),
    )
    problems = []
    for name, values, low, high, allowed in columns:
        flat = np.ravel(values)
        wrong = np.flatnonzero(~((flat >= low) & (flat <= high)))  # a NaN fails both comparisons
        if len(wrong):
            shown = f"{name}[{wrong[0]}] is {flat[wrong[0]].item()!r} ({len(wrong)} such)"
            problems.append(f"{shown}; expected {allowed}.")
    return problems


def _duplicate_problems(problem: PlacementProblem) -> list[str]:
    segments, demand = problem.segments, problem.demand
    content = _codes(segments.content)
    columns: tuple[tuple[str, npt.NDArray[np.int64], tuple[npt.NDArray[np.generic], ...]], ...] = (
        ("segments", _pairs(content, segments.segment), (segments.content, segments.segment)),
        ("sources", _codes(problem.sources.source), (problem.sources.source,)),
        ("locations", _codes(problem.locations), (problem.locations,)),
        ("demand rows", _pairs(demand.segment, demand.location), (demand.segment, demand.location)),
        (
            "current copies",
            _pairs(problem.current_segment, problem.current_source),
            (problem.current_segment, problem.current_source),
        ),
    )
    problems = []
    for name, keys, shown in columns:
        order = np.argsort(keys, kind="stable")
        repeats = order[1:][np.diff(keys[order]) == 0]
        if len(repeats):
            first = tuple(column[repeats.min()] for column in shown)
            key = tuple(item.item() if isinstance(item, np.generic) else item for item in first)
            value = key if len(key) > 1 else key[0]
            problems.append(f"The {name} hold {value!r} more than once; expected each once.")
    return problems


def _codes(ids: npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
    """Equal numbers for equal ids, (n,)."""
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in ids.tolist()], dtype=np.int64)


def _pairs(first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Equal numbers for equal pairs; both arrays may hold any 32-bit integers, (n,)."""
    return np.asarray(first.astype(np.int64) * 2**32 + second)
