"""What is true of a synthetic world, as tables that tests hold models against."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.capacity import TIMESTAMP
from pipelines.sizes import Int64
from pipelines.uptime import Outages
from pipelines.visits import HOUR_US, VisitModel, expected_hourly_requests

Objects = npt.NDArray[np.object_]


def visit_tables(model: VisitModel, contents: Objects, locations: Objects, *, zipf_rank: Int64) -> dict[str, pa.Table]:
    """Contents with their weights, tastes, and the chain (null rows of the chain are zero)."""
    popularity, chain = model.popularity, model.chain
    n_locations, n_contents = popularity.taste.shape
    return {
        "truth/contents": pa.table(
            {
                "content": pa.array(contents, pa.string()),
                "published_at": pa.array(popularity.published_us, TIMESTAMP),
                "zipf_rank": pa.array(zipf_rank),
                "weight": pa.array(popularity.weight),
            }
        ),
        "truth/taste": pa.table(
            {
                "location": pa.array(np.repeat(locations, n_contents), pa.string()),
                "content": pa.array(np.tile(contents, n_locations), pa.string()),
                "taste": pa.array(popularity.taste.ravel()),
            }
        ),
        "truth/transitions": pa.table(
            {
                "previous": pa.array(np.repeat(contents, chain.successor.shape[1]), pa.string()),
                "content": pa.array(contents[chain.successor.ravel()], pa.string()),
                "probability": pa.array(chain.probability.ravel()),
            }
        ),
    }


def intensity_table(model: VisitModel, contents: Objects, locations: Objects) -> pa.Table:
    """Expected requests of every hour, content and location that are not zero."""
    expected = expected_hourly_requests(model)
    hour, location, content = np.nonzero(expected)
    return pa.table(
        {
            "hour": pa.array(model.start_us + hour * HOUR_US, TIMESTAMP),
            "content": pa.array(contents[content], pa.string()),
            "location": pa.array(locations[location], pa.string()),
            "requests": pa.array(expected[hour, location, content]),
        }
    )


def outage_tables(outages: Outages, networks: Objects) -> dict[str, pa.Table]:
    """Every outage, and the rate of each network."""
    tables: dict[str, Any] = {
        "truth/networks": {
            "network": pa.array(networks, pa.string()),
            "outages_per_week": pa.array(outages.per_week),
        },
        "truth/outages": {
            "network": pa.array(networks[outages.network], pa.string()),
            "start": pa.array(outages.start_us, TIMESTAMP),
            "end": pa.array(outages.end_us, TIMESTAMP),
        },
    }
    return {name: pa.table(columns) for name, columns in tables.items()}
