"""A synthetic world must really follow the truth that it writes down."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.tables import SCHEMAS, ValidationContext, validate
from pipelines.devices import HOUR_US
from pipelines.sizes import part_rng
from pipelines.synthetic import SyntheticSettings
from pipelines.synthetic_tables import build_synthetic
from pipelines.uptime import OnOffSettings, OutageSettings, draw_on_periods, draw_outages
from pipelines.visitors import draw_visit_model
from pipelines.visits import VisitModel, draw_visits, expected_hourly_requests

SMALL = SyntheticSettings(requests=40_000)


@pytest.fixture(scope="module")
def world() -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The small world with 40,000 expected requests, as data frames, and its world.json."""
    tables, facts = build_synthetic(SMALL)
    for name, table in tables.items():
        if name in SCHEMAS:
            context = ValidationContext(
                locations={str(x) for x in tables["locations"]["location"].to_pylist()},
                contents={str(x) for x in tables["contents"]["content"].to_pylist()},
            )
            assert len(validate(name, table, context=context).quarantine) == 0
    return {name: table.to_pandas() for name, table in tables.items()}, facts


@pytest.fixture(scope="module")
def model() -> VisitModel:
    """The truth behind `world`."""
    return draw_visit_model(SMALL)[0]


def test_transitions__follow_the_known_chain(world: tuple[dict[str, pd.DataFrame], Any], model: VisitModel) -> None:
    """Moves along each chain entry are as frequent as r·π + (1-r)·T says, within binomial error."""
    requests = world[0]["requests"].sort_values(["session", "ts"], kind="stable")
    codes = {name: i for i, name in enumerate(world[0]["contents"]["content"])}
    places = {name: i for i, name in enumerate(world[0]["locations"]["location"])}
    content = requests["content"].map(codes).to_numpy()
    moves = np.flatnonzero(requests["session"].to_numpy()[1:] == requests["session"].to_numpy()[:-1])
    previous, following = content[moves], content[moves + 1]
    location = requests["location"].map(places).to_numpy()[moves + 1]
    ts_us = requests["ts"].astype("int64").to_numpy()[moves + 1]
    popularity = np.cumsum(model.popularity.unscaled(), axis=1)
    total = popularity[location, model.popularity.n_published(ts_us) - 1]
    variance_units = []
    for rank in range(SMALL.n_successors):
        target = model.chain.successor[previous, rank]
        drawn = model.popularity.unscaled()[location, target] / total
        expected = 0.3 * drawn + 0.7 * model.chain.probability[previous, rank]
        variance = (expected * (1 - expected)).sum()
        variance_units.append(((following == target).sum() - expected.sum()) / np.sqrt(variance))
    assert np.abs(variance_units).max() < 4


def test_sessions__stop_with_the_known_probability(world: tuple[dict[str, pd.DataFrame], Any]) -> None:
    """Sessions that start a day before the end are geometric: their mean length is 1 / stop = 4."""
    requests = world[0]["requests"]
    sessions = requests.groupby("session")["ts"].agg(["size", "min"])
    length = sessions[sessions["min"] < requests["ts"].max() - pd.Timedelta(days=1)]["size"]
    error = np.sqrt(0.75) / 0.25 / np.sqrt(len(length))  # standard deviation of a geometric length over √n
    assert length.mean() == pytest.approx(4, abs=4 * error)


def test_popularity__is_zipf_and_halves_each_half_life(model: VisitModel) -> None:
    """Session starts, freed of publication and taste, fall as rank^-0.9 and by half in 36 hours."""
    more = replace(model, starts=20 * model.starts, stop=1.0)  # stop at once: every request is a draw from π
    visits = draw_visits(more, part_rng(1, "test"))
    hours = np.arange(model.start_us, model.end_us, HOUR_US)
    share = np.stack([model.popularity.share(int(at)) for at in hours + HOUR_US // 2])  # (hour, location, content)
    hour = (visits.ts_us - model.start_us) // HOUR_US
    starts = np.zeros(share.shape)
    np.add.at(starts, (hour, visits.location, visits.content), 1)
    busy = starts.sum(axis=(0, 1)) > 300
    weight, taste = model.popularity.weight, model.popularity.taste
    arrivals = starts.sum(axis=2)
    age_hours = (hours[:, None] + HOUR_US / 2 - model.popularity.published_us) / HOUR_US
    # π·weight^-1·taste^-1·2^(age/H) is one number an hour and location; the observed share over it leaves the weight.
    scale = (share / taste / weight * 2.0 ** (age_hours[:, None, :] / 36)).max(axis=2)
    exposure = (arrivals * scale)[:, :, None] * taste * 2.0 ** (-age_hours[:, None, :] / 36) * (share > 0)
    observed = starts.sum(axis=(0, 1))[busy] / exposure.sum(axis=(0, 1))[busy]
    rank = weight[busy] ** (-1 / 0.9)
    assert np.polyfit(np.log(rank), np.log(observed), 1)[0] == pytest.approx(-0.9, abs=0.03)
    flat = (arrivals * scale)[:, :, None] * taste * weight * (share > 0)
    day = np.floor(age_hours / 24).astype(int)
    seen = [(starts.sum(axis=1)[day == d].sum() / flat.sum(axis=1)[day == d].sum()) for d in range(8)]
    assert -np.log(2) / np.polyfit(24 * np.arange(8), np.log(seen), 1)[0] == pytest.approx(36, rel=0.08)


def test_intensity__agrees_with_many_draws(model: VisitModel) -> None:
    """Expected hourly requests are what simulation gives on average: total within 1 %, cells within Poisson error."""
    many = replace(model, starts=10 * model.starts)
    visits = draw_visits(many, part_rng(2, "test"))
    expected = 10 * expected_hourly_requests(model)
    seen = np.zeros(expected.shape)
    np.add.at(seen, ((visits.ts_us - model.start_us) // HOUR_US, visits.location, visits.content), 1)
    assert seen.sum() == pytest.approx(expected.sum(), rel=0.01)
    large = expected > 50
    deviation = (seen[large] - expected[large]) / np.sqrt(expected[large])
    # Requests of one session lie together, so the spread is a little above Poisson's 1.
    assert abs(deviation.mean()) < 0.05
    assert 0.9 < deviation.std() < 1.3


def test_on_times__follow_their_weibull() -> None:
    """Uninterrupted on-times have the known mean c·Γ(1 + 1/k), and unplugged ones a fraction u of it."""
    settings = OnOffSettings(nodes=400, on_shape=0.8, on_scale_hours=4, unplugged_share=0.5, unplugged_scale=0.25)
    window_us = (0, 60 * 24 * HOUR_US)
    periods = draw_on_periods(settings, np.zeros(400), window_us=window_us, rng=part_rng(3, "test"))
    inside = (periods.start_us > 0) & (periods.end_us < window_us[1])
    hours = (periods.end_us - periods.start_us) / HOUR_US
    mean = 4 * 1.1330  # Γ(1 + 1/0.8) = Γ(2.25) = 1.1330
    assert hours[inside & periods.charging].mean() == pytest.approx(mean, rel=0.03)
    assert hours[inside & ~periods.charging].mean() == pytest.approx(mean / 4, rel=0.03)


def test_outages__occur_at_their_rate_and_take_the_whole_network(
    world: tuple[dict[str, pd.DataFrame], dict[str, Any]],
) -> None:
    """Outages come at the rate of their network, and during one no node of the network is up."""
    outages = draw_outages(
        OutageSettings(median_minutes=1), 200, window_us=(0, 52 * 168 * HOUR_US), rng=part_rng(4, "t")
    )
    expected = 52 * outages.per_week.sum()
    assert len(outages.network) == pytest.approx(expected, abs=4 * np.sqrt(expected))
    tables, _ = world
    network = tables["nodes"].set_index("source")["network"]
    up = tables["availability"].assign(network=lambda a: a["node"].map(network))
    ended_at_once = 0
    for outage in tables["truth/outages"].itertuples():
        ours = up[up["network"] == outage.network]
        assert not ((ours["start"] < outage.end) & (ours["end"] > outage.start)).any()
        ended_at_once += int((ours["end"] == outage.start).sum() >= 2)
    assert ended_at_once > len(tables["truth/outages"]) / 2


def test_capacity__is_tied_to_demand(world: tuple[dict[str, pd.DataFrame], dict[str, Any]]) -> None:
    """Uplink weighted by availability is twice mean demand; storage is 40 % of an average day's distinct bytes."""
    figures = world[1]["figures"]
    assert figures["available_uplink_bps"] == pytest.approx(2 * figures["mean_demand_bps"])
    assert figures["storage_bytes_total"] == pytest.approx(0.4 * figures["daily_distinct_bytes_total"], rel=1e-6)


def test_telemetry__shows_what_drives_departures(world: tuple[dict[str, pd.DataFrame], Any]) -> None:
    """Phones on battery stay about 0.3 times as long; homes cannot tell, so their column is empty."""
    telemetry = world[0]["telemetry"]
    homes = telemetry["node"].str.startswith("home")
    assert telemetry.loc[homes, "charging"].isna().all()
    assert telemetry.loc[~homes, "charging"].notna().all()
    sessions = world[0]["availability"].merge(
        telemetry[["node", "ts", "charging"]], left_on=["node", "start"], right_on=["node", "ts"]
    )
    sessions = sessions[~sessions["censored"] & sessions["charging"].notna()]
    hours = (sessions["end"] - sessions["start"]).dt.total_seconds() / 3600
    plugged = sessions["charging"].astype(bool)
    assert hours[~plugged].mean() / hours[plugged].mean() == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"days": 0}, "days >= 1, got 0"),
        ({"start": "yesterday"}, "got 'yesterday'"),
        ({"stop_probability": 0.0}, "stop_probability"),
        ({"n_locations": 99}, "n_locations 99"),
        ({"storage_level": "huge"}, "scarce, medium, ample, got 'huge'"),
        ({"n_contents": 5}, "n_contents >= 24"),
    ],
)
def test_settings__say_what_is_wrong(change: dict[str, Any], words: str) -> None:
    """A setting out of bounds is named with its value and what is allowed."""
    with pytest.raises(ValueError, match=words):
        SyntheticSettings(**change)
