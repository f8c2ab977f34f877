"""Our row with one part taken away or made perfect: what each part is worth, and which one costs the rest.

    no-churn             whoever is up now is believed to stay up
    no-markov            the demand model is asked with transitions withheld; it is not trained again without them
    no-network           the demand model's own prior answers
    greedy               copies are placed one by one, each where it saves most per byte, and no solver follows
    literal-routing      sources are scored by the literal formula
    uniform-routing      any usable source is taken, each with the same probability
    perfect-demand       true requests, our forecast of departures
    perfect-churn        our forecast of requests, true departures

Both at once are the clairvoyant row. The last two rows may look ahead as the clairvoyant row may, and besides as far as
ours does; the best counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from models.churn.operation import RecalibrationSettings
from models.churn.recalibrated import RecalibratedForecaster
from models.demand.withheld import TransitionBlindForecaster
from models.events import HOUR_US
from pipelines.backtest import OptimisingPlanner
from pipelines.contest import Contest, Player, Result
from pipelines.outlook import ClairvoyantOutlook, Expectation, Outlook
from pipelines.plan_rows import all_knowing, best_of, model_outlook, our_outlook, play_knowing, play_ours
from pipelines.planning import NodeOutlook, outlook_from
from pipelines.popularity_outlooks import nodes_now
from pipelines.row_names import Row
from placement.plan import Plan
from placement.problem import PlacementProblem
from placement.solve import solve_greedily

Nodes = Callable[[int, float], NodeOutlook]
"""What is believed of the nodes at an instant, for so many hours."""


class MixedOutlook:
    """Demand as one outlook expects it, nodes as somebody else believes them over the same hours."""

    def __init__(self, demand: Outlook, nodes: Nodes, *, horizon_hours: float) -> None:
        self._demand, self._nodes, self._horizon_hours = demand, nodes, horizon_hours

    def at(self, at_us: int) -> Expectation:
        expected = self._demand.at(at_us)
        hours = expected.horizon_hours or self._horizon_hours
        return replace(expected, nodes=self._nodes(at_us, hours), horizon_hours=hours)


class GreedyPlanner(OptimisingPlanner):
    """Greedy placement under the limits and the judge of the optimiser; refreshes are as ever."""

    def answer(self, problem: PlacementProblem) -> Plan:
        return solve_greedily(problem)


def _no_churn(row: Row, contest: Contest) -> Result:
    hours = contest.run.planning.horizon_hours
    mixed = MixedOutlook(our_outlook(contest), lambda at_us, _: nodes_now(contest.arena, at_us), horizon_hours=hours)
    return play_ours(row, contest, outlook=mixed)


def _no_markov(row: Row, contest: Contest) -> Result:
    blind = TransitionBlindForecaster.of(contest.demand)
    return play_ours(row, contest, outlook=model_outlook(contest, demand=blind))


def _no_network(row: Row, contest: Contest) -> Result:
    return play_ours(row, contest, outlook=model_outlook(contest, demand=contest.demand.prior_only()))


def _greedy(row: Row, contest: Contest) -> Result:
    run = contest.run
    planner = GreedyPlanner(
        contest.arena.scene,
        our_outlook(contest),
        run.planning,
        seed=run.seed,
        refresh=run.refresh,
        reactive=run.reactive,
    )
    return play_ours(row, contest, planner=planner)


def _literal_routing(row: Row, contest: Contest) -> Result:
    return play_ours(row, contest, routing=replace(contest.run.routing, mode="literal"))


def _uniform_routing(row: Row, contest: Contest) -> Result:
    return play_ours(row, contest, routing=replace(contest.run.routing, explore_share=1.0))


def _perfect_demand(row: Row, contest: Contest) -> Result:
    arena = contest.arena
    churn = RecalibratedForecaster(contest.churn, RecalibrationSettings())

    def forecast(at_us: int, hours: float) -> NodeOutlook:
        return outlook_from(churn.forecast(arena.history, at_us=at_us), arena.scene, horizon_hours=hours)

    truths = all_knowing(contest, _hours(contest))
    hours = contest.run.planning.horizon_hours
    mixed = [MixedOutlook(truth, forecast, horizon_hours=hours) for truth in truths]
    return best_of([play_knowing(row, contest, outlook) for outlook in mixed])


def _perfect_churn(row: Row, contest: Contest) -> Result:
    """Where a horizon was not fitted, the demand model cannot look so far."""
    fitted = contest.demand.settings.horizons_hours
    mixed = [true_nodes(contest, hours) for hours in _hours(contest) if hours in fitted]
    return best_of([play_ours(row, contest, outlook=outlook) for outlook in mixed])


def true_nodes(contest: Contest, hours: float) -> MixedOutlook:
    arena = contest.arena
    truth = ClairvoyantOutlook(
        arena.scene,
        arena.stretch.requests,
        arena.world.uptime,
        horizon_hours=hours,
        end_us=arena.stretch.end_us,
        uplinks=arena.world.uplinks,
    )
    return MixedOutlook(
        our_outlook(contest, horizon_hours=hours),
        lambda at_us, ahead: truth.nodes(at_us, truth.until(at_us + round(ahead * HOUR_US))),
        horizon_hours=hours,
    )


def _hours(contest: Contest) -> list[float]:
    """How far ahead ours looks, then how far else the clairvoyant row may."""
    return list(dict.fromkeys((contest.run.planning.horizon_hours, *contest.run.clairvoyant_hours)))


ABLATION_ROWS: dict[Row, Player] = {
    "no-churn": _no_churn,
    "no-markov": _no_markov,
    "no-network": _no_network,
    "greedy": _greedy,
    "literal-routing": _literal_routing,
    "uniform-routing": _uniform_routing,
    "perfect-demand": _perfect_demand,
    "perfect-churn": _perfect_churn,
}
