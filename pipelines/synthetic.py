"""The settings of a synthetic world: how large it is, and every rate in it.

Who asks for what is written down in `visits.py`, when devices are up in `uptime.py`, what they have in `capacity.py`;
`synthetic_tables.py` puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from pipelines.capacity import STORAGE_SHARE, StorageLevel, day_us
from pipelines.releases import ReleaseSettings
from pipelines.sizes import SizeSettings
from pipelines.uptime import OnOffSettings, OutageSettings

DAY_US = 86_400_000_000
CITIES = (
    ("new-york", 40.7128, -74.0060),
    ("london", 51.5074, -0.1278),
    ("sao-paulo", -23.5505, -46.6333),
    ("mumbai", 19.0760, 72.8777),
    ("tokyo", 35.6762, 139.6503),
    ("johannesburg", -26.2041, 28.0473),
    ("los-angeles", 34.0522, -118.2437),
    ("berlin", 52.5200, 13.4050),
    ("sydney", -33.8688, 151.2093),
    ("mexico-city", 19.4326, -99.1332),
    ("lagos", 6.5244, 3.3792),
    ("seoul", 37.5665, 126.9780),
    ("chicago", 41.8781, -87.6298),
    ("paris", 48.8566, 2.3522),
    ("buenos-aires", -34.6037, -58.3816),
    ("singapore", 1.3521, 103.8198),
    ("madrid", 40.4168, -3.7038),
    ("toronto", 43.6532, -79.3832),
    ("warsaw", 52.2297, 21.0122),
    ("jakarta", -6.2088, 106.8456),
)


@dataclass(frozen=True)
class SyntheticSettings:
    """A synthetic world: how large, and every rate in it."""

    kind: Literal["synthetic"] = "synthetic"
    """Which kind of world this is."""
    name: str = "small"
    """Name of the world; the folder it is built in."""
    seed: int = 7
    """Seed of every draw."""
    start: str = "2026-03-02"
    """First day of the world, UTC."""
    days: int = 8
    """Days in the world."""
    train_days: int = 4
    """Leading days from which uplink and storage are derived."""
    history_days: int = 14
    """Days of device sessions before the start, for churn models."""
    n_locations: int = 6
    """Locations, the first of a built-in list of cities."""
    n_pops: int = 2
    """Points of presence, at the first locations."""
    n_contents: int = 400
    """Contents, those published before the start included."""
    requests: int = 60_000
    """Expected number of requests."""
    users_per_location: int = 500
    """Users of each location; a session belongs to one of them at random."""
    zipf_exponent: float = 0.9
    """Weight of the content of rank k is k^-exponent; ranks have nothing to do with publication."""
    decay_half_life_hours: float = 36.0
    """Time in which a content loses half of its weight, in hours."""
    taste_sigma: float = 0.8
    """Standard deviation of the logarithm of a location's taste for a content; 0 for one taste everywhere."""
    region_taste_sigma: float = 0.0
    """The same for a taste that the locations of a region share: the Americas, Europe and Africa, Asia and Oceania."""
    location_exponent: float = 0.6
    """The k-th location starts sessions in proportion to k^-exponent."""
    daily_amplitude: float = 0.7
    """Height of the daily rhythm: session starts vary between 1 - amplitude and 1 + amplitude times their mean."""
    peak_hour: float = 20.0
    """Local hour with most session starts."""
    daily_power: float = 1.0
    """Power to which the daily rhythm is raised: above 1, sessions crowd in the evening."""
    weekday_factors: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    """Session starts of the days of the week, local, from Monday on, relative to each other."""
    stop_probability: float = 0.25
    """Probability that a session ends after a content."""
    restart_probability: float = 0.3
    """Probability that a session that goes on draws from popularity and not from the chain."""
    n_successors: int = 5
    """Contents that the chain leads to from each content."""
    successors_among: int = 500
    """Successors are drawn from this many contents, the latest before a content or before the start of the world."""
    releases: ReleaseSettings = field(default_factory=ReleaseSettings)
    """When contents come out, and series of episodes."""
    gap_minutes: float = 2.0
    """Mean time between the contents of a session, in minutes."""
    truth_intensity: bool = True
    """Whether to compute the true hourly requests of every content and location; slow for large catalogues, of
    which `pipelines.visits.expected_hourly_requests` computes the hours that are asked for."""
    storage_level: StorageLevel = "medium"
    """Storage of a location as a share of a day's distinct bytes: scarce 10 %, medium 40 %, ample 150 %."""
    consent_share: float = 0.95
    """Share of devices whose owner consents until 30 days after the world's end; the others never do."""
    telemetry_minutes: int = 60
    """Time between two telemetry rows of a device that is up, in minutes."""
    home: OnOffSettings = field(default_factory=OnOffSettings)
    """Devices at home."""
    phone: OnOffSettings = field(
        default_factory=lambda: OnOffSettings(
            nodes=32,
            on_shape=0.8,
            on_scale_hours=4.0,
            off_median_hours=5.0,
            off_sigma=0.8,
            evening_share=0.5,
            unplugged_share=0.3,
            unplugged_scale=0.3,
            uplink_median_bps=2e6,
        )
    )
    """Phones."""
    outages: OutageSettings = field(default_factory=OutageSettings)
    """Outages of whole networks."""
    sizes: SizeSettings = field(default_factory=SizeSettings)
    """Sizes of pages and videos, and how far videos are watched."""

    def __post_init__(self) -> None:
        problems = [*_day_problems(self.start), *self._count_problems(), *self._rate_problems()]
        if self.storage_level not in STORAGE_SHARE:
            allowed = ", ".join(STORAGE_SHARE)
            problems.append(f"Expected storage_level to be one of {allowed}, got {self.storage_level!r}.")
        if problems:
            raise ValueError(" ".join(problems))

    def _count_problems(self) -> list[str]:
        problems = []
        for name in ("days", "n_pops", "requests", "users_per_location", "n_successors", "telemetry_minutes"):
            if getattr(self, name) < 1:
                problems.append(f"Expected {name} >= 1, got {getattr(self, name)!r}.")
        if not 0 < self.train_days <= self.days:
            problems.append(f"Expected 0 < train_days <= days ({self.days!r}), got {self.train_days!r}.")
        if self.history_days < 0:
            problems.append(f"Expected history_days >= 0, got {self.history_days!r}.")
        if not self.n_pops <= self.n_locations <= len(CITIES):
            problems.append(f"Expected n_pops <= n_locations <= {len(CITIES)}, got n_locations {self.n_locations!r}.")
        least = 4 * (self.n_successors + 1) * self.releases.episodes
        if self.n_contents < least:
            problems.append(
                f"Expected n_contents >= {least} for {self.n_successors} successors each, got {self.n_contents!r}."
            )
        if self.successors_among <= self.n_successors:
            problems.append(f"Expected successors_among > n_successors, got {self.successors_among!r}.")
        if self.home.nodes + self.phone.nodes < 1:
            problems.append("Expected at least one node, got home.nodes and phone.nodes 0.")
        return problems

    def _rate_problems(self) -> list[str]:
        problems = []
        for name in ("zipf_exponent", "taste_sigma", "region_taste_sigma", "location_exponent"):
            if getattr(self, name) < 0:
                problems.append(f"Expected {name} >= 0, got {getattr(self, name)!r}.")
        for name in ("daily_amplitude", "restart_probability", "consent_share"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"Expected {name} in [0, 1], got {getattr(self, name)!r}.")
        if not self.daily_power > 0:
            problems.append(f"Expected daily_power > 0, got {self.daily_power!r}.")
        factors = self.weekday_factors
        if len(factors) != 7 or min(factors) < 0 or max(factors) <= 0:
            problems.append(f"Expected seven weekday_factors >= 0, not all 0, got {factors!r}.")
        if not 0 < self.stop_probability <= 1:
            problems.append(f"Expected 0 < stop_probability <= 1, got {self.stop_probability!r}.")
        if self.gap_minutes < 1:
            problems.append(f"Expected gap_minutes >= 1, got {self.gap_minutes!r}.")
        # Shares are kept as powers of two relative to the last publication; 500 half-lives leave doubles ample room.
        if self.decay_half_life_hours * 500 < self.days * 24:
            problems.append(
                f"Expected decay_half_life_hours >= {self.days * 24 / 500:g}, got {self.decay_half_life_hours!r}."
            )
        return problems

    @property
    def start_us(self) -> int:
        return day_us(self.start)

    @property
    def end_us(self) -> int:
        return self.start_us + self.days * DAY_US

    @property
    def train_us(self) -> tuple[int, int]:
        return self.start_us, self.start_us + self.train_days * DAY_US


def _day_problems(value: str) -> list[str]:
    try:
        date.fromisoformat(value)
    except (TypeError, ValueError):
        return [f"Expected start as a day such as '2026-03-02' (in quotes), got {value!r}."]
    return []
