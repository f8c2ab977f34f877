"""The scene: one code for every segment, source and place, from the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import InputError
from pipelines.scene import Catalogue, read_scene
from tests.conftest import TinyHome
from tests.pipelines.tiny_scene import FAR, NEAR, POP, tiny_scene


@given(st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 500)), min_size=1, max_size=20))
def test_catalogue__segments_add_up_to_their_contents(sizes: list[tuple[int, int]]) -> None:
    """No byte of a content is lost or counted twice, whatever the sizes; no segment is empty or too long."""
    size, step = (np.array(column, dtype=np.int64) for column in zip(*sizes, strict=True))
    catalogue = Catalogue(np.array([f"c{i}" for i in range(len(size))], dtype=object), size, step)
    assert np.bincount(catalogue.content_of_segment, catalogue.sizes).tolist() == size.tolist()
    assert catalogue.sizes.min() >= 1
    assert (catalogue.sizes <= step[catalogue.content_of_segment]).all()
    back = catalogue.first_segment[catalogue.content_of_segment] + catalogue.number_of_segment
    assert back.tolist() == list(range(len(catalogue.sizes)))


def test_reach__a_pop_serves_all_and_a_node_its_own_place_and_the_near_ones() -> None:
    """Own location however slow; others within the round trip: 50 ms are over 25 and within 60."""
    scene = tiny_scene()
    assert scene.reach(25.0).tolist() == [[True, True, False], [True, False, True]]
    assert scene.reach(60.0).all()
    assert tiny_scene(rtt_ms=np.full((2, 3), 900, dtype=np.float32)).reach(25.0)[0].tolist() == [True, True, False]


def test_codes__what_is_unknown_is_minus_one() -> None:
    """Callers drop unknown ids; a wrapped-around index would name the last one."""
    scene = tiny_scene()
    assert scene.source_codes(np.array(["far", "?", "pop", "near"], dtype=object)).tolist() == [FAR, -1, POP, NEAR]
    assert scene.catalogue.codes(np.array(["film", "?"], dtype=object)).tolist() == [1, -1]
    assert scene.location_codes(np.array(["?", "there"], dtype=object)).tolist() == [-1, 1]


def test_read_scene__of_ingested_tables(tiny_world: TinyHome) -> None:
    """POPs come first, everything is finite where it must be, and measured round trips are kept as they are."""
    from pipelines.store import read_table

    scene = read_scene(tiny_world.tables)
    assert (scene.n_pops, len(scene.source), len(scene.locations), len(scene.catalogue.contents)) == (1, 21, 3, 60)
    assert scene.is_pop.tolist() == [True] + [False] * 20
    assert np.isfinite(scene.rtt_ms).all()
    assert np.isfinite(scene.distance_km).all()
    rtt = read_table(tiny_world.tables, "rtt").to_pylist()
    row = rtt[-1]
    place = scene.location_codes(np.array([row["location"]], dtype=object))[0]
    source = scene.source_codes(np.array([row["source"]], dtype=object))[0]
    assert scene.rtt_ms[place, source] == pytest.approx(row["rtt_ms"], rel=1e-6)


def test_read_scene__names_the_tables_that_are_missing(tmp_path: Path) -> None:
    """Requests alone are enough for forecasts, not for placement."""
    with pytest.raises(InputError, match="missing: contents, locations, pops, nodes"):
        read_scene(tmp_path)
