"""What can be set about demand forecasts, and within which bounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DemandSettings:
    """Which cells are forecast, over which horizons, and how the residual network is trained."""

    horizons_hours: tuple[int, ...] = (1, 6, 24)
    """Lengths of the windows that are forecast, in hours."""
    minimum_cell_weight: float = 0.1
    """A cell is forecast while its slowest decayed count is at least this, in requests."""
    spread_minimum_per_hour: float = 0.05
    """A content is also forecast at locations where it was never requested, from this expected rate on, per hour."""
    affinity_pseudo_count: float = 5.0
    """Requests that a content needs before its own shares by location outweigh those of all traffic."""
    growth_pseudo_rate_per_hour: float = 20.0
    """Traffic that a location needs before its own daily rhythm outweighs that of all locations, requests per hour."""
    growth_limit: float = 8.0
    """Largest factor, and inverse of the smallest, by which traffic may be expected to change."""
    age_limit_hours: float = 48.0
    """Ages are cut here, in hours; of the order of the warm-up, so that no input grows with the length of the log."""
    origin_every_hours: int = 1
    """Distance of the instants at which training looks forward, in hours."""
    warm_up_hours: int = 24
    """First hours of the training window that only fill the counters."""
    max_cells_per_origin: int = 2500
    """Cells drawn at each training origin; busy cells are likelier, and weighted so that no bias results."""
    hidden_sizes: tuple[int, ...] = (96, 96)
    """Widths of the hidden layers of the residual network."""
    residual_caps: tuple[float, ...] = (2.2, 2.2, 2.2)
    """Largest log-residual by horizon: the mean stays below exp(cap) times the prior, here nine times."""
    input_limit_sd: float = 4.0
    """Inputs of the network are cut at this many standard deviations."""
    learning_rate: float = 0.003
    """Step size of AdamW at the start; it falls to zero along a cosine."""
    averaging: float = 0.998
    """Share of the moving average of the weights that a step leaves in place; the average is what forecasts."""
    weight_decay: float = 0.001
    """Decoupled weight decay of AdamW."""
    batch_rows: int = 2048
    """Rows (cell, horizon) in one training step."""
    max_epochs: int = 10
    """Most passes over the training rows; 0 leaves the prior alone."""
    patience_epochs: int = 4
    """Training stops after this many passes without a better validation loss at any horizon; for each horizon the best
    pass is kept."""
    mean_loss_weight: float = 0.3
    """Weight of the Poisson loss of the mean beside the loss of the whole law: wide laws forgive errors of busy cells."""
    members: int = 2
    """Networks trained from different seeds; their log-residuals and log-dispersions are averaged."""
    boosting_iterations: int = 150
    """Most boosted trees that are blended with the networks where validation says so, by horizon; 0 for none."""

    def __post_init__(self) -> None:
        problems = [
            f"Expected {name} > 0, got {getattr(self, name)!r}."
            for name in (
                "minimum_cell_weight", "spread_minimum_per_hour", "affinity_pseudo_count",
                "growth_pseudo_rate_per_hour", "age_limit_hours", "origin_every_hours", "max_cells_per_origin",
                "input_limit_sd", "learning_rate", "batch_rows", "members",
            )
            if not getattr(self, name) > 0
        ]  # fmt: skip
        problems += [
            f"Expected {name} >= 0, got {getattr(self, name)!r}."
            for name in (
                "warm_up_hours", "weight_decay", "max_epochs", "patience_epochs", "mean_loss_weight",
                "boosting_iterations",
            )
            if not getattr(self, name) >= 0
        ]  # fmt: skip
        if not 0 <= self.averaging < 1:
            problems.append(f"Expected 0 <= averaging < 1, got {self.averaging!r}.")
        if not self.growth_limit > 1:
            problems.append(f"Expected growth_limit > 1, got {self.growth_limit!r}.")
        problems += self._horizon_problems()
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            problems.append(f"Expected hidden_sizes with widths >= 1, got {self.hidden_sizes!r}.")
        if problems:
            raise ValueError(" ".join(problems))

    def horizon_index(self, horizon_hours: float) -> int:
        """Position of a horizon.

        Raises:
            ValueError: this horizon was not fitted.
        """
        if horizon_hours not in self.horizons_hours:
            raise ValueError(f"Expected horizon_hours in {self.horizons_hours}, got {horizon_hours!r}.")
        return self.horizons_hours.index(int(horizon_hours))

    def _horizon_problems(self) -> list[str]:
        horizons = self.horizons_hours
        if not horizons or min(horizons) < 1 or max(horizons) > 24 or list(horizons) != sorted(set(horizons)):
            return [f"Expected horizons_hours as increasing whole hours from 1 to 24, got {horizons!r}."]
        if len(self.residual_caps) != len(horizons) or min(self.residual_caps) <= 0:
            return [f"Expected one residual_caps > 0 for each of {horizons}, got {self.residual_caps!r}."]
        return []
