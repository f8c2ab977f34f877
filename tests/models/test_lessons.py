"""Lessons, fitting and its windows: what a memory said before a request came, and nothing of what came after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models.events import HOUR_US
from models.next_content.hybrid_training import fit_hybrid, gate_rows, rerank_loss, rerank_rows
from models.next_content.lessons import Examples, Thinning, collect, hear
from models.next_content.shortlist import LEAST
from models.next_content.stream import Questions, draw_questions
from models.next_content.training import fit_next_content, learn, new_memory
from tests.models.small_hybrid import LOG, TRAIN, VALIDATION, fit, fitted, sessions_of, small
from tests.models.tasteful_world import START_US

WINDOW = (START_US + HOUR_US, START_US + 4 * HOUR_US)


def questions(n: int = 40) -> Questions:
    return draw_questions(LOG, window=WINDOW, n=n, seed=1, timeout_us=30 * 60_000_000)


def examples(log: Any = LOG, asked: Questions | None = None, **changes: Any) -> Examples:
    return collect(new_memory(small(), seed=3), log, asked or questions(), limit=20, **changes)


def assert_same(one: Examples, other: Examples) -> None:
    for a, b in ((one.lessons, other.lessons), (one.lessons.evidence, other.lessons.evidence), (one, other)):
        for name, value in vars(a).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, getattr(b, name), err_msg=name)
    for name in ("contents", "table", "mass", "context", "codes"):
        np.testing.assert_array_equal(getattr(one.shortlist, name), getattr(other.shortlist, name), err_msg=name)


def test_collect__is_what_a_memory_fed_up_to_that_row_says() -> None:
    """Each question alone, put to a memory that was fed exactly the requests before it, has the same answer."""
    asked = questions()
    found = examples()
    for number in (0, 7, 20, 39):
        row = int(asked.rows[number])
        memory = new_memory(small(), seed=3)
        memory.update(LOG.rows(0, row))
        session = asked.sessions.rows(number, number + 1)
        alone = memory.shortlist(session, limit=20)
        np.testing.assert_array_equal(found.shortlist.contents[number], alone.contents[0])
        np.testing.assert_allclose(found.shortlist.table[number], alone.table[0], rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(found.shortlist.context[number], alone.context[0])
        heard = hear(memory, session, LOG.content[row : row + 1])
        np.testing.assert_array_equal(found.lessons.raw[number], heard.raw[0])
        np.testing.assert_array_equal(found.lessons.probability[number], heard.probability[0])
    assert found.came.tolist() == LOG.content[asked.rows].tolist()
    assert found.ts_us.tolist() == LOG.ts_us[asked.rows].tolist()


def test_collect__nothing_of_the_row_or_later_leaks() -> None:
    """Other contents and places from a question on change what came, and not a number of what was known before."""
    asked, number = questions(), 25
    cut = int(asked.rows[number])
    content, location = LOG.content.copy(), LOG.location.copy()
    content[cut:], location[cut:] = content[cut:][::-1], location[cut:][::-1]
    other = replace(LOG, content=content, location=location)
    before = slice(0, number + 1)
    known = Questions(asked.rows[before], asked.sessions.rows(0, number + 1))
    one, two = examples(LOG, known), examples(other, known)
    np.testing.assert_array_equal(one.shortlist.table, two.shortlist.table)
    np.testing.assert_array_equal(one.shortlist.context, two.shortlist.context)
    assert_same(one.rows(slice(0, number)), two.rows(slice(0, number)))


def test_collect__goes_on_from_what_the_memory_holds() -> None:
    """Questions of two windows, asked in two calls, are answered as in one."""
    asked = questions()
    memory = new_memory(small(), seed=3)
    halves = [Questions(asked.rows[a:b], asked.sessions.rows(a, b)) for a, b in ((0, 20), (20, 40))]
    first = collect(memory, LOG, halves[0], limit=20)
    second = collect(memory, LOG, halves[1], limit=20, fed=int(halves[0].rows[-1]))
    whole = examples()
    assert_same(whole.rows(slice(0, 20)), first)
    assert_same(whole.rows(slice(20, None)), second)


def test_examples__place_and_followed() -> None:
    """What came is at its place in the list, and the network's share of it is the column's."""
    found = examples()
    listed = found.place >= 0
    assert listed.any()
    rows = np.flatnonzero(listed)
    np.testing.assert_array_equal(found.shortlist.contents[rows, found.place[rows]], found.came[rows])
    column = len(found.lessons.experts.names)
    said = np.exp(found.shortlist.table[rows, found.place[rows], column].astype(float)) - LEAST
    np.testing.assert_allclose(found.followed[rows], np.maximum(said, 0.0))
    assert not found.followed[~listed].any()
    np.testing.assert_array_equal(found.rows(rows).place, found.place[rows])


def test_collect__thinned_lists_keep_what_came() -> None:
    """Shorter lists hold the head, and what came wherever the whole list did; the draws depend on the seed alone."""
    whole, thin = examples(), examples(thinning=Thinning(kept=4, drawn=3, seed=2))
    assert thin.shortlist.contents.shape == (40, 8)
    np.testing.assert_array_equal(thin.place >= 0, whole.place >= 0)
    np.testing.assert_array_equal(thin.shortlist.contents[:, :4], whole.shortlist.contents[:, :4])
    assert_same(thin, examples(thinning=Thinning(kept=4, drawn=3, seed=2)))


def test_draw_questions__moves_of_the_window_only() -> None:
    """Questions lie in the window, in time order, and none repeats the content that its session is at."""
    asked = questions(1000)
    assert np.all(np.diff(asked.rows) > 0)
    assert np.all((LOG.ts_us[asked.rows] >= WINDOW[0]) & (LOG.ts_us[asked.rows] < WINDOW[1]))
    assert np.all(LOG.content[asked.rows] != asked.sessions.last)
    assert len(questions(40).rows) == 40


# ---- fitting


def nll(found: Examples, hybrid: Any) -> float:
    """Negative log-likelihood of what came, as validation counts it."""
    with torch.no_grad():
        return float(rerank_loss(hybrid, rerank_rows(found, hybrid)).mean())


@pytest.mark.parametrize("changes", [{}, {"sequence_network": False}, {"without": ("order2", "skip")}, {"drawn": 0}])
def test_fit_hybrid__is_never_worse_than_the_static_mixture(changes: dict[str, Any]) -> None:
    """Pass 0 is the static mixture; the networks that are kept are at least as good on validation."""
    settings = small(learning_rate=0.02, **changes)
    _, taught, held_out = learn(LOG, train=TRAIN, validation=VALIDATION, settings=settings)
    hybrid, history = fit_hybrid(taught, held_out, settings=settings, seed=0)
    static, _ = fit_hybrid(taught, held_out, settings=replace(settings, epochs=0), seed=0)
    gate = [row["validation_nll"] for row in history if "gate_train_nll" in row]
    reranker = [row["validation_nll"] for row in history if "reranker_train_nll" in row]
    assert [row["epoch"] for row in history] == [0.0, 1.0, 2.0] * 2
    assert min(reranker) == pytest.approx(nll(held_out, hybrid), abs=1e-4)
    assert min(reranker) <= nll(held_out, static) + 1e-3
    assert min(reranker) <= reranker[0]
    # The gate's own loss at pass 0 is that of the weights it starts at.
    log_weights = log_softmax(static.gate.start.double().numpy())
    said = gate_rows(held_out, static)[2].double().numpy()
    assert gate[0] == pytest.approx(-np.logaddexp.reduce(log_weights + said, axis=1).mean(), abs=1e-4)


def log_softmax(start: Any) -> Any:
    return start - np.logaddexp.reduce(start)


def test_fit_hybrid__pass_0_is_kept_where_nothing_helps() -> None:
    """A re-ranker that was taught nonsense (always the last of the list) is thrown away: the start is what is kept."""
    settings = small(learning_rate=0.05, sequence_network=False)
    _, taught, held_out = learn(LOG, train=TRAIN, validation=VALIDATION, settings=settings)
    nonsense = replace(taught, place=(taught.shortlist.contents >= 0).sum(axis=1) - 1)
    hybrid, history = fit_hybrid(nonsense, held_out, settings=settings, seed=0)
    passes = [row["validation_nll"] for row in history if "reranker_train_nll" in row]
    assert min(passes[1:]) > passes[0]
    assert nll(held_out, hybrid) == pytest.approx(passes[0], abs=1e-6)
    assert not hybrid.reranker.pool.weight.any()


def test_fit__same_seed_same_answers() -> None:
    """Two fits of one seed agree to the last bit, another seed draws other lessons; the process's seeds do not matter."""
    one, history = fitted()
    np.random.seed(7)  # noqa: NPY002 - the point: nothing reads it
    again, once_more = fit()
    other, _ = fit(seed=1)
    assert history == once_more
    sessions, content = sessions_of(one, 10, 0), np.arange(10, dtype=np.int32)
    np.testing.assert_array_equal(one.probability(sessions, content), again.probability(sessions, content))
    assert not np.array_equal(one.probability(sessions, content), other.probability(sessions, content))


def test_fit__sees_nothing_outside_its_windows() -> None:
    """Requests before training and from the end of validation on must not move a single weight."""
    one, history = fitted()
    cut, early = fit(LOG.before(VALIDATION[1]))
    assert history == early
    assert one.store.time_us == cut.store.time_us < VALIDATION[1]
    late = (START_US + HOUR_US, TRAIN[1])
    model, _ = fit_next_content(LOG, train=late, validation=VALIDATION, settings=small(epochs=0))
    requested = model.store.popularity.content_first_us[: len(model.store.contents)]
    assert requested.min() >= START_US + HOUR_US


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ((0, 10), (5, 20), r"Validation must begin where training ends or later, got \(0, 10\) and \(5, 20\)"),
        ((10, 0), (20, 30), "Validation must begin where training ends or later"),
        (
            TRAIN,
            (START_US + 100 * HOUR_US, START_US + 101 * HOUR_US),
            r"No requests in the window \(1507\d+, 1507\d+\)",
        ),
        ((START_US - HOUR_US, START_US), VALIDATION, "No requests in the window .*; widen it or choose another"),
    ],
)
def test_fit__refuses_windows_without_meaning(
    train: tuple[int, int], validation: tuple[int, int], message: str
) -> None:
    """Overlap would train on what it is judged by; an empty window teaches nothing."""
    with pytest.raises(ValueError, match=message):
        fit_next_content(LOG, train=train, validation=validation, settings=small())
