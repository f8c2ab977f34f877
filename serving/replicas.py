"""Sets of replicas in a request's body: names to rows of the forecast, and what can be wrong with them."""

from __future__ import annotations

import numpy as np

from serving import messages as m
from serving.predictor import ChurnAnswerer, ReplicasQuestion
from serving.problems import invalid, mistake


def replicas_question(model: ChurnAnswerer, asked: m.JointChurnRequest) -> ReplicasQuestion:
    """The question in rows of the forecast; a 422 problem that lists every mistake in it."""
    last = float(model.forecast.edges_hours[-1])
    names = [name for asked_set in asked.sets for name in asked_set.nodes]
    rows = model.rows_of(names)
    offsets = np.cumsum([0, *(len(asked_set.nodes) for asked_set in asked.sets)])
    mistakes = []
    if asked.hours > last:
        mistakes.append(
            mistake("#/hours", f"Expected at most {last:g}, the last edge of the model; got {asked.hours:g}.")
        )
    for i, asked_set in enumerate(asked.sets):
        mistakes += _set_mistakes(f"#/sets/{i}", asked_set, rows[offsets[i] : offsets[i + 1]])
    if mistakes:
        raise invalid(mistakes)
    return ReplicasQuestion(rows, offsets, np.array([asked_set.k for asked_set in asked.sets]), asked.hours)


def _set_mistakes(pointer: str, asked_set: m.ReplicaSet, rows: np.ndarray) -> list[dict[str, str]]:
    names = asked_set.nodes
    mistakes = [
        mistake(f"{pointer}/nodes/{j}", f"There is no node {names[j]!r} in the sessions that the model knows.")
        for j in np.flatnonzero(rows < 0)
    ]
    mistakes += [
        mistake(f"{pointer}/nodes/{j}", f"Node {name!r} is in the set already; name each node once.")
        for j, name in enumerate(names)
        if name in names[:j]
    ]
    if asked_set.k > len(names):
        text = f"Expected at most {len(names)}, the number of nodes in the set; got {asked_set.k}."
        mistakes.append(mistake(f"{pointer}/k", text))
    return mistakes
