"""The next-content predictor: its two answers agree, it goes on after a restart, and it never fails in the cold."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from models.artefact import save_artefact
from models.counters import CounterStore
from models.errors import ArtefactError, LogOrderError
from models.events import Int32
from models.next_content.memory import StreamMemory
from models.next_content.predictor import FORMAT, KIND, NextContentPredictor
from models.next_content.sessions import SessionBatch
from models.next_content.settings import NextContentSettings, SessionCounterSettings, settings_from
from models.next_content.training import new_memory
from tests.models.small_hybrid import LOG, VALIDATION, distribution, fit, fitted, sessions_of, small

AFTER = LOG.rows(int(np.searchsorted(LOG.ts_us, VALIDATION[1])), len(LOG))
"""The hour after validation."""


def one_session(predictor: NextContentPredictor, *history: int, location: int = 0) -> SessionBatch:
    """A session of these contents at the newest instant, of nobody's device."""
    items = np.array([[-1, *history]], dtype=np.int32)
    return SessionBatch(items, np.array([location], dtype=np.int32), np.array([max(predictor.store.time_us, 0)]))


def cold(predictor: NextContentPredictor, settings: NextContentSettings | None = None) -> NextContentPredictor:
    """The same networks over a memory that holds nothing."""
    settings = settings or predictor.settings
    return NextContentPredictor("cold", new_memory(settings, seed=0), predictor.hybrid, settings)


def test_predict__is_the_order_of_probability() -> None:
    """The ranking is that of the probabilities of all known contents, and gives those same probabilities."""
    predictor, _ = fitted(shortlist=60, counters=SessionCounterSettings(leaders=40))  # every content is on the list
    sessions = sessions_of(predictor, 8, 0)
    found = predictor.predict(sessions, k=40)
    for i in range(len(sessions)):
        p = distribution(predictor, sessions.rows(i, i + 1))[:-1]
        listed = found.content[i][found.content[i] >= 0]
        np.testing.assert_allclose(p[listed], found.probability[i, : len(listed)], rtol=1e-4)
        # The order agrees wherever two probabilities differ by more than batches of other sizes may round.
        assert np.all(np.diff(p[listed]) <= 1e-6)
        rest = np.setdiff1d(np.arange(len(p)), listed)
        assert p[rest].max(initial=0.0) <= p[listed].min() + 1e-6


def test_predict__never_the_current_content() -> None:
    """A session moves on: the content that it is at is neither listed nor given any probability."""
    predictor, _ = fitted()
    n = len(predictor.store.contents)
    items: Int32 = np.arange(n, dtype=np.int32)[:, None]
    sessions = SessionBatch(items, np.zeros(n, np.int32), np.full(n, predictor.store.time_us))
    found = predictor.predict(sessions, k=20)
    assert not np.any(found.content == items)
    assert predictor.probability(sessions, items[:, 0]).tolist() == [0.0] * n


def test_predict__pads_where_the_catalogue_ends() -> None:
    """Thirty-two contents cannot fill fifty places; the rest is -1 with nothing on it."""
    predictor, _ = fitted(shortlist=60)
    found = predictor.predict(one_session(predictor, 3), k=50)
    known = len(predictor.store.contents)
    listed = found.content[0] >= 0
    assert listed.sum() <= known - 1
    assert listed[: listed.sum()].all()
    assert not found.probability[0][~listed].any()
    assert len(set(found.content[0][listed].tolist())) == listed.sum()
    with pytest.raises(ValueError, match="Expected k >= 1, got 0"):
        predictor.predict(one_session(predictor, 3), k=0)


def test_predict__refuses_questions_from_the_past() -> None:
    """The memory would answer with its knowledge of the future; one old question in a batch is enough."""
    predictor, _ = fitted()
    sessions = sessions_of(predictor, 3, 0, minutes=0)
    late = sessions.ts_us.copy()
    late[1] -= 1
    with pytest.raises(LogOrderError, match="cannot answer for"):
        predictor.predict(replace(sessions, ts_us=late))
    with pytest.raises(LogOrderError, match="cannot answer for"):
        predictor.probability(replace(sessions, ts_us=late), np.zeros(3, np.int32))
    with pytest.raises(LogOrderError, match="Feed logs in time order"):
        predictor.update(LOG.rows(0, 5))


def test_judge__agrees_with_both_answers() -> None:
    """One shortlist, two answers: the same as asking for each, and it says what was listed."""
    predictor, _ = fitted()
    sessions = sessions_of(predictor, 70, 1)  # more than one batch of the networks
    content = np.arange(70, dtype=np.int32) % 34 - 1
    found = predictor.judge(sessions, content, k=20)
    alone = predictor.predict(sessions, k=20)
    np.testing.assert_array_equal(found.forecast.content, alone.content)
    np.testing.assert_array_equal(found.forecast.probability, alone.probability)
    np.testing.assert_array_equal(found.probability, predictor.probability(sessions, content))
    here = found.forecast.content == content[:, None]
    np.testing.assert_array_equal(found.listed, here.any(axis=1) & (content >= 0))
    listed = np.flatnonzero(found.listed)
    np.testing.assert_allclose(found.forecast.probability[here & (content >= 0)[:, None]], found.probability[listed])


def test_predict__a_batch_equals_its_sessions_one_by_one() -> None:
    """Who else asks at the same time changes nothing."""
    predictor, _ = fitted()
    sessions = sessions_of(predictor, 20, 2)
    content = np.arange(20, dtype=np.int32)
    whole = predictor.probability(sessions, content)
    singles = [predictor.probability(sessions.rows(i, i + 1), content[i : i + 1])[0] for i in range(20)]
    np.testing.assert_allclose(whole, singles, rtol=1e-4, atol=1e-5)


# ---- going on


@pytest.mark.parametrize("sequence_network", [True, False])
def test_save__loaded_predictor_goes_on_as_if_never_stopped(sequence_network: bool, tmp_path: Path) -> None:
    """Saved, loaded, fed and saved again: the files are those of the predictor that ran on, to the last byte."""
    running, _ = fit(sequence_network=sequence_network)
    running.device_features, running.arrival_features = ("os", "screen"), ("referrer",)
    running.save(tmp_path / "first")
    resumed = NextContentPredictor.load(tmp_path / "first")
    assert (resumed.name, resumed.settings) == (running.name, running.settings)
    assert (resumed.device_features, resumed.arrival_features) == (("os", "screen"), ("referrer",))
    sessions, content = sessions_of(running, 20, 3), np.arange(20, dtype=np.int32)
    np.testing.assert_array_equal(running.probability(sessions, content), resumed.probability(sessions, content))
    for first, last in pairwise([0, 1, 60, len(AFTER)]):
        running.update(AFTER.rows(first, last))
        resumed.update(AFTER.rows(first, last))
    sessions = sessions_of(running, 20, 4)
    one, other = running.predict(sessions), resumed.predict(sessions)
    np.testing.assert_array_equal(one.content, other.content)
    np.testing.assert_array_equal(one.probability, other.probability)
    for predictor, name in ((running, "ran on"), (resumed, "resumed")):
        predictor.save(tmp_path / name)
    for file in sorted((tmp_path / "ran on").rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "resumed" / file.relative_to(tmp_path / "ran on")).read_bytes()


def test_update__moves_the_memory_and_leaves_the_networks() -> None:
    """What was requested since counts at once; gate and re-ranker stay as they were fitted."""
    predictor, _ = fit()
    before = {name: tensor.clone() for name, tensor in predictor.hybrid.state_dict().items()}
    session = one_session(predictor, 3)
    first = predictor.probability(session, np.array([5], dtype=np.int32))
    predictor.update(AFTER)
    assert predictor.store.time_us == AFTER.ts_us[-1]
    for name, tensor in predictor.hybrid.state_dict().items():
        assert tensor.equal(before[name]), name
    later = predictor.probability(one_session(predictor, 3), np.array([5], dtype=np.int32))
    assert later[0] != first[0]


def test_update__portions_do_not_matter() -> None:
    """A stream fed in portions leaves the answers of the same stream fed at once."""
    whole, _ = fit()
    parts, _ = fit()
    whole.update(AFTER)
    for first, last in pairwise([0, 3, 50, 51, len(AFTER)]):
        parts.update(AFTER.rows(first, last))
    sessions = sessions_of(whole, 20, 5)
    np.testing.assert_array_equal(whole.predict(sessions).probability, parts.predict(sessions).probability)


def test_load__another_format_is_refused_naming_both(tmp_path: Path) -> None:
    """A file of the former predictor must not be read as if it were ours."""
    save_artefact(tmp_path / "m", kind=KIND, format=1, hyperparameters={}, state={})
    with pytest.raises(ArtefactError, match=rf"(?s)1.*{FORMAT}|{FORMAT}.*1"):
        NextContentPredictor.load(tmp_path / "m")
    save_artefact(tmp_path / "d", kind="demand", format=FORMAT, hyperparameters={}, state={})
    with pytest.raises(ArtefactError, match="demand"):
        NextContentPredictor.load(tmp_path / "d")


def test_settings__come_back_from_json() -> None:
    """What is saved as lists comes back as the tuples that it was."""
    settings = small(without=("order2", "skip"), evidence_edges=(1.0, 2.0))
    saved = asdict(settings) | {"without": ["order2", "skip"], "evidence_edges": [1.0, 2.0]}
    saved["counters"] = saved["counters"] | {"half_lives_hours": [0.5, 6.0]}
    assert settings_from(saved) == settings


# ---- cold starts


@pytest.mark.parametrize("sequence_network", [True, False])
def test_cold__an_empty_memory_expects_something_unseen(sequence_network: bool) -> None:
    """Before the first request there is one possible outcome, and it is not in any catalogue."""
    trained, _ = fitted(sequence_network=sequence_network)
    empty = cold(trained)
    session = one_session(empty)
    assert empty.predict(session, k=3).content.tolist() == [[-1, -1, -1]]
    assert empty.probability(session, np.array([-1], dtype=np.int32))[0] == pytest.approx(1.0, abs=1e-3)
    empty.update(LOG.rows(0, 30))
    assert distribution(empty, one_session(empty, 0)).sum() == pytest.approx(1.0, abs=1e-3)


def test_cold__unknown_locations_contents_and_first_requests() -> None:
    """A session of nowhere, of one request, of none, and at a content that nobody else knows are all answered."""
    predictor, _ = fitted()
    for session in (
        one_session(predictor, 3, location=-1),
        one_session(predictor, 3, location=99),
        one_session(predictor),
        one_session(predictor, 999),
        one_session(predictor, 999, 3),
    ):
        found = predictor.predict(session, k=5)
        assert (found.content[0] >= 0).all()
        assert np.isfinite(found.probability).all()
        assert distribution(predictor, session).sum() == pytest.approx(1.0, abs=1e-3)


def test_cold__a_content_that_was_never_trained_on_is_predicted() -> None:
    """It needs no retraining: published, it may be listed; requested a few times after a content, it is listed high."""
    predictor, _ = fit()
    code = {str(c): k for k, c in enumerate(predictor.store.contents)}
    known = len(code)
    predictor.store.announce(["breaking"], [predictor.store.time_us])
    session = one_session(predictor, code["c3"])
    first = predictor.probability(session, np.array([known], dtype=np.int32))[0]
    assert first > 0
    rows = LOG.rows(0, 40)
    content = np.where(np.arange(40) % 2, known, code["c3"]).astype(np.int32)
    ts_us = predictor.store.time_us + np.arange(40) * 1_000_000
    session_codes = (np.arange(40) // 2 + LOG.session.max() + 1).astype(np.int32)
    names = np.append(predictor.store.contents[:known], "breaking")
    more = replace(
        rows,
        ts_us=ts_us,
        session=session_codes,
        content=content,
        contents=names,
        appeared_us=None,
        kinds=None,
        visitor=None,
    )
    predictor.update(more)
    session = one_session(predictor, code["c3"])
    assert predictor.probability(session, np.array([known], dtype=np.int32))[0] > first
    assert known in predictor.predict(session, k=3).content[0]


def test_cold__an_empty_batch_has_an_empty_answer() -> None:
    """Nobody asks: shapes hold, nothing fails."""
    predictor, _ = fitted()
    nobody = sessions_of(predictor, 0, 0)
    found = predictor.judge(nobody, np.empty(0, dtype=np.int32), k=7)
    assert found.forecast.content.shape == found.forecast.probability.shape == (0, 7)
    assert (len(found.probability), len(found.listed)) == (0, 0)
    assert predictor.predict(nobody, k=3).content.shape == (0, 3)


def test_memory__without_a_network_remembers_no_trails() -> None:
    """Trails serve the sequence network alone; without one nobody's requests are kept."""
    memory = StreamMemory(CounterStore())
    memory.update(LOG.rows(0, 200))
    assert len(memory.trails) == 0
    assert not memory.refreshes_by(int(LOG.ts_us[-1]))
    memory.update(LOG.rows(0, 0))
    assert memory.time_us == LOG.ts_us[199]


def test_import__needs_no_lightning() -> None:
    """Serving answers without the training framework, which takes seconds to import."""
    code = "import sys, models.next_content.predictor; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_load__on_a_gpu_answers_as_on_the_cpu(tmp_path: Path) -> None:
    """Where the networks compute changes rounding only."""
    predictor, _ = fitted()
    predictor.save(tmp_path / "model")
    there = NextContentPredictor.load(tmp_path / "model", device="cuda")
    sessions = sessions_of(predictor, 20, 3)
    here_found, there_found = predictor.predict(sessions, k=10), there.predict(sessions, k=10)
    np.testing.assert_allclose(there_found.probability, here_found.probability, rtol=1e-3, atol=1e-6)
