"""Demand models that must lose to their own prior."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from models.demand.forecaster import DemandForecaster


def biased(model: DemandForecaster, log_factor: float) -> DemandForecaster:
    """The same model with networks that multiply every mean by exp(log_factor), and nothing else learned."""
    assert model.learned is not None
    networks = copy.deepcopy(model.learned.networks)
    with torch.no_grad():
        for member in (member for network in networks for member in network.members):
            member.mean_head.weight.zero_()
            member.mean_head.bias.fill_(log_factor)
    learned = replace(model.learned, networks=networks, boosting_weights=(0.0,) * len(model.learned.boosting_weights))
    return DemandForecaster(
        model.settings,
        prior=model.prior,
        laws=model.laws,
        remainder=model.remainder,
        learned=learned,
        name=model.name,
    )
