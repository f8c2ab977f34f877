"""The placement programme with scenarios, whole, for small instances.

Sets and data as in `placement/formulation.py`; w scenario of K, with its own requests r^w and sources that are up.
Variables   y, z shared by all scenarios; x^w in each; t and e_w >= 0.
Programme   min  1/K sum_w delivery(x^w) + pushes(y) + penalties(z) + weight (t + 1/((1 - q) K) sum_w e_w)

(1), (2), (4) for each x^w, with survival 1 for what is up and 0 for what is not; (3), (5) to (10) for y and z as they are.
(11) e_w >= unserved_w - t,  unserved_w = sum_k q_s r^w_k (1 - sum_{n in M} x^w_kn)       the tail of what nodes do not serve
"""

from __future__ import annotations

import numpy as np
from ortools.math_opt.python import mathopt

from placement.copies import Copies
from placement.formulation import (
    COPY_RULES,
    SHARE_RULES,
    Answer,
    Programme,
    answered,
    copy_cost,
    copy_variables,
    delivery_cost,
    share_variables,
)
from placement.problem import BYTES_PER_GB, PlacementProblem
from placement.scenarios import RiskSettings, Scenarios


def solve_scenarios(
    problem: PlacementProblem, scenarios: Scenarios, settings: RiskSettings, *, seed: int, hint: Copies | None = None
) -> Answer:
    """The copies of least risk in these scenarios, within the limits of the placement settings."""
    shared, parts = formulate_scenarios(problem, scenarios)
    delivery = mathopt.fast_sum([delivery_cost(part) for part in parts])
    tail = _tail(shared, parts, settings)
    shared.model.minimize(delivery * (1.0 / len(parts)) + copy_cost(shared) + tail)
    return answered(shared, seed, hint)


def formulate_scenarios(problem: PlacementProblem, scenarios: Scenarios) -> tuple[Programme, list[Programme]]:
    """The programme of the copies, and one for the shares in each scenario, over one model."""
    shared = Programme(problem, mathopt.Model(name="placement in scenarios"))
    copy_variables(shared)
    parts = []
    for at in range(len(scenarios)):
        turned_out = scenarios.problem(problem, at)
        part = Programme(turned_out, shared.model, hold=shared.hold, fallback=shared.fallback, scenario=f"@{at}")
        for add in (share_variables, *SHARE_RULES):
            add(part)
        parts.append(part)
    for add in COPY_RULES:
        add(shared)
    return shared, parts


def _tail(shared: Programme, parts: list[Programme], settings: RiskSettings) -> mathopt.LinearSum:
    """(11) What the worst scenarios leave unserved by nodes, priced by the GB."""
    model = shared.model
    threshold, excess = model.add_variable(lb=0.0, name="t"), []
    for at, part in enumerate(parts):
        e = model.add_variable(lb=0.0, name=f"e[{at}]")
        model.add_linear_constraint(e >= _unserved_gb(part) - threshold, name=f"11[{at}]")
        excess.append(e)
    share = 1.0 / ((1.0 - settings.tail) * len(parts))
    return settings.weight_millidollars_per_gb * (threshold + share * mathopt.fast_sum(excess))


def _unserved_gb(part: Programme) -> mathopt.LinearSum:
    problem = part.problem
    sent = (problem.demand_segment_bytes * problem.demand.requests / BYTES_PER_GB).tolist()
    served = [sent[k] * x for (k, n), x in part.serve.items() if not problem.is_pop[n]]
    return float(np.sum(sent)) - mathopt.fast_sum(served)
