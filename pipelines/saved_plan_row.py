"""The row of a plan that exists already, beside every other row."""

from __future__ import annotations

from pipelines.contest import Contest, Result
from pipelines.jobs import iso
from pipelines.row_names import PLAN_ROW
from pipelines.saved_plan import FixedPlan
from pipelines.stretch import Stretch
from placement.replay import Replay


def play_saved(contest: Contest) -> Result:
    """Plays the contest's plan from its instant to the end; until then tier 1 serves, which is said and counted."""
    plan, stretch = contest.plan, contest.arena.stretch
    if plan is None:
        raise ValueError("Expected a contest with a plan.")
    tally = Replay(contest.arena.world, **contest.judge).play(stretch.hours(), [plan.holdings])
    contest.watch(1, 1)
    return Result(PLAN_ROW, tally, [plan.note], notes=_early(plan, stretch))


def _early(plan: FixedPlan, stretch: Stretch) -> tuple[str, ...]:
    """Says how many requests came before the plan."""
    if plan.starts_us <= stretch.start_us:
        return ()
    n = 0
    for part in stretch.hours():
        early = len(part.between(stretch.start_us, plan.starts_us))
        n += early
        if early < len(part):
            break
    return (
        f"Plan {plan.name} starts at {iso(plan.starts_us)}: the {n:,} requests before, of {stretch.n_requests:,}, are "
        "served by tier 1.",
    )
