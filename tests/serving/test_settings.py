"""The service is configured by its environment: wrong values must be named before it starts, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.settings import ServiceSettings, SettingsError, is_loopback


def test_from_environment__reads_types() -> None:
    """Text becomes numbers and paths; empty means the default."""
    found = ServiceSettings.from_environment(
        {"PREMIRROR_HOME": "/data", "PREMIRROR_PORT": "9", "PREMIRROR_TIME_LIMIT_SECONDS": "0.5", "PREMIRROR_HOST": ""}
    )
    assert (found.home, found.port, found.time_limit_seconds, found.host) == (Path("/data"), 9, 0.5, "127.0.0.1")


def test_from_environment__reports_every_mistake() -> None:
    """Whoever starts the service should correct everything in one go."""
    with pytest.raises(SettingsError) as caught:
        ServiceSettings.from_environment(
            {"PREMIRROR_PORT": "http", "PREMIRROR_MAX_ROWS": "0", "PREMIRROR_HOST": "0.0.0.0"}
        )
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "PREMIRROR_PORT is 'http', which is no whole number" in text
    assert "Expected PREMIRROR_MAX_ROWS >= 1, got 0" in text
    assert "'0.0.0.0', which is not a loopback address" in text


def test_registry_uri__follows_the_home() -> None:
    """Without an address the registry is the SQLite file that the pipelines write."""
    assert ServiceSettings(home=Path("/data")).registry_uri == "sqlite:////data/mlflow.db"
    assert ServiceSettings.from_environment({"MLFLOW_TRACKING_URI": "http://h:1"}).registry_uri == "http://h:1"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.0.1", "::1"])
def test_is_loopback__this_machine(host: str) -> None:
    """All names of this machine are fine."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "127.0.0.1.example.org"])
def test_is_loopback__anything_else(host: str) -> None:
    """A name that only starts like one of ours is another machine's."""
    assert not is_loopback(host)
