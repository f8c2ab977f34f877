"""The rules by which the newsroom world is joined, in words, and which of its columns are measured.

`world.json` carries both, so that a figure from this world never travels without them. A column that holds both sorts
counts as measured where a column `modelled` of its table marks the rows that are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.capacity import (
    EGRESS_COST_PER_GB,
    LAST_MILE_MEDIAN_MS,
    LAST_MILE_SIGMA,
    REWARD_PER_GB,
    STORAGE_SHARE,
    STORAGE_SIGMA,
    UPLINK_PER_DEMAND,
)
from pipelines.devices import DEPARTURES_WITHIN_DAYS, KNOWN_FOR_DAYS, RESTLESS_DEPARTURES, SEEN_WITHIN_DAYS

if TYPE_CHECKING:
    from pipelines.newsroom import NewsroomSettings

MEASURED = (
    "requests.ts",
    "requests.user",
    "requests.session",
    "requests.content",
    "requests.location",
    "requests.device_group",
    "requests.os",
    "requests.referrer",
    "availability.start",
    "availability.end",
    "availability.end_upper",
    "availability.censored",
    "rtt.rtt_ms",
)
MODELLED = (
    "requests.bytes",
    "contents.bytes",
    "contents.segment_bytes",
    "contents.kind",
    "locations.lat",
    "locations.lon",
    "locations.name",
    "pops.location",
    "pops.lat",
    "pops.lon",
    "pops.storage_bytes",
    "pops.egress_cost_per_gb",
    "nodes.location",
    "nodes.lat",
    "nodes.lon",
    "nodes.network",
    "nodes.storage_bytes",
    "nodes.uplink_bps",
    "nodes.downlink_bps",
    "nodes.device_class",
    "nodes.consent_until",
    "nodes.available_at",
)


def newsroom_rules(settings: NewsroomSettings) -> dict[str, str]:
    """One sentence or two a part of the world."""
    days = f"days 1-{settings.train_days}"
    return {
        "time": f"The first {settings.days} UTC days of clicks from {settings.start}; {days} are the training days.",
        **_demand_rules(settings, days),
        **_device_rules(settings, days),
        "prices": f"Egress costs {EGRESS_COST_PER_GB} $/GB; owners get {REWARD_PER_GB} $/GB served. Pushes and repairs "
        "cost tier-1 egress when they come from tier 1, uplink when from a peer.",
        "telemetry": "There is no public set of device telemetry to join, so the table is left out.",
    }


def _demand_rules(settings: NewsroomSettings, days: str) -> dict[str, str]:
    sizes = settings.sizes
    return {
        "locations": f"The {settings.n_locations} codes with most clicks on {days} keep their code. Every other click "
        f"is at the one location 'elsewhere', which stands at {settings.pop_cities[0]}, has no nodes, is served by "
        "tier 1 and counted.",
        "cities": f"The k-th code with prefix {settings.domestic_prefix!r} by clicks on {days} is the k-th most "
        f"populous city of {settings.domestic_country}; the k-th other code is the k-th of "
        f"{', '.join(settings.foreign_cities)} that has measurements.",
        "round_trips": "Mean measured round trip between the cities, median over both directions and repeats; where "
        "nobody measured (among them every city with itself) the line intercept + slope·km fitted by Huber loss on "
        f"all measured pairs, `rtt.modelled` true. Each node adds a last mile, log-normal, median "
        f"{LAST_MILE_MEDIAN_MS:g} ms, sigma {LAST_MILE_SIGMA:g}; POPs and viewers add none. Rows of 'elsewhere' are "
        "all marked modelled.",
        "pops": f"{', '.join(settings.pop_cities)}; storage stands for unlimited; `location` is the nearest one.",
        "contents": f"One per article. By a hash of its id and the seed {sizes.video_share:.0%} are videos (log-"
        f"normal, median {sizes.video_median_bytes:g} bytes, sigma {sizes.video_sigma:g}, segments of "
        f"{sizes.segment_bytes} bytes), the others pages (median {sizes.page_median_bytes:g} bytes, sigma "
        f"{sizes.page_sigma:g}, one segment). When an article was published is not known.",
        "bytes": f"A page is taken whole. Segment j of a video, from 0, is watched with probability "
        f"{sizes.watch_through:g}^j, by a hash of instant, session, content and seed; the last may be shorter.",
    }


def _device_rules(settings: NewsroomSettings, days: str) -> dict[str, str]:
    return {
        "home": f"Relays up at some instant of the {SEEN_WITHIN_DAYS} days before {settings.relay_sunday} and first "
        f"seen at least {KNOWN_FOR_DAYS} days before: {settings.home_nodes} of any kind, then "
        f"{settings.restless_nodes} of the rest with at least {RESTLESS_DEPARTURES} departures in the "
        f"{DEPARTURES_WITHIN_DAYS} days before; where these are too few, those with two departures follow, then one. "
        f"Shifted so that {settings.relay_sunday} 00:00 falls on {settings.start} 00:00 UTC. A session ended "
        "between `end` and `end_upper`; one that ends after the world is censored at its end.",
        "phones": f"{settings.phones} traces drawn with replacement, each repeated end to end over the week before the "
        "start and the world's days, from a whole-hour offset uniform over the trace; second and later copies have "
        "`availability.modelled` true. Windows without length are dropped; windows that meet at a seam are joined.",
        "places": f"Node location with probability in proportion to (clicks on {days})^0.75, at the city's "
        "coordinates; network uniform among max(3, nodes // 12) of the location. Ids of nodes are new.",
        "uplink": "Home: half of `speed_bps_p10` of a random host, at most 50 Mbit/s; phone: half of `p10_mbps` of a "
        "random link; rows without throughput left out. One factor for all makes the availability-weighted total "
        f"{UPLINK_PER_DEMAND:g} times the mean rate of bytes requested at the {settings.n_locations} locations, both "
        f"over {days}. Downlink: the whole measured throughput, times the same factor.",
        "storage": f"Total of a location: {STORAGE_SHARE[settings.storage_level]:.0%} of the bytes (whole sizes) of "
        f"the distinct contents requested there on an average one of {days}; split among its nodes log-normally, sigma "
        f"{STORAGE_SIGMA:g}.",
        "consent": "Every node consents until 30 days after the world's end and is known from its start.",
    }
