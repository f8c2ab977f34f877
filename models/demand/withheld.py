"""The demand model without its Markov part: asked with transitions withheld, not trained again without them.

Two quantities of a cell come from transitions (`MARKOV_FEATURES`): the flow into it, and the flow into its content
everywhere. Both enter the prior's mixture and the learners' inputs. Zero would say that no session goes on, and would bias
every mean downwards; so each keeps its sum over the cells and is spread as their requests lately are:

    flow'(i, l) = r(i, l) sum flow / sum r         content_flow'(i) = r(i) sum (content_flow share) / sum (r(i) share)

with r the fastest decayed rates. What is left is how much goes on, and nothing of from where to where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from models.counters import CounterStore
from models.demand.cells import CellObserver, CellState
from models.demand.forecaster import DemandForecaster
from models.events import Float64
from models.forecast import DemandForecast


def withhold_transitions(state: CellState) -> CellState:
    """The state of all cells with both flows spread as their requests are; doing it twice changes nothing more."""
    here, everywhere = state.cell_rates[:, 0], state.content_rates[:, 0]
    return replace(
        state,
        flow=_spread(here, like=state.flow),
        content_flow=_spread(everywhere, like=state.content_flow, weight=state.share),
    )


def _spread(rates: Float64, *, like: Float64, weight: Float64 | float = 1.0) -> Float64:
    """The rates times the one factor that gives them the other's weighted sum; zeros where there is no rate at all."""
    total = float((rates * weight).sum())
    return rates * (float((like * weight).sum()) / total if total > 0 else 0.0)


class TransitionBlindForecaster(DemandForecaster):
    """A demand model that is never told a transition; otherwise the model that it was made of."""

    @classmethod
    def of(cls, model: DemandForecaster) -> TransitionBlindForecaster:
        return cls(
            model.settings,
            prior=model.prior,
            laws=model.laws,
            remainder=model.remainder,
            learned=model.learned,
            name=f"{model.name}, transitions withheld",
        )

    def prior_only(self) -> DemandForecaster:
        return TransitionBlindForecaster.of(super().prior_only())

    def law(self, state: CellState, horizon_hours: int) -> tuple[Float64, Float64]:
        return super().law(withhold_transitions(state), horizon_hours)

    def _forecasts(
        self,
        source: CellState | CellObserver,
        store: CounterStore,
        *,
        at_us: int,
        horizons_hours: Sequence[int],
        threads: int = 1,
    ) -> dict[int, DemandForecast]:
        """From all cells at once: sums over them are wanted before any block is forecast."""
        state = source if isinstance(source, CellState) else source.rows(slice(None))
        blind = withhold_transitions(state)
        return super()._forecasts(blind, store, at_us=at_us, horizons_hours=horizons_hours, threads=threads)
