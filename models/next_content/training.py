"""Trains the next-content model: counters and sequence network by playing the log, gate and re-ranker on lessons.

One pass over the log. Requests drawn from the last days of training teach the gate and the re-ranker, requests drawn from
the validation window decide when to stop; each is asked about just before the memory sees it.
"""

from __future__ import annotations

from models.counters import CounterStore
from models.events import HOUR_US, RequestLog
from models.next_content.hybrid_training import History, fit_hybrid
from models.next_content.lessons import Examples, Thinning, collect
from models.next_content.memory import StreamMemory
from models.next_content.predictor import NextContentPredictor
from models.next_content.refresh import Refresher
from models.next_content.sequence import SequenceNetwork
from models.next_content.settings import NextContentSettings
from models.next_content.stream import draw_questions, finish, known_until

NAME = "hybrid"
Window = tuple[int, int]


def fit_next_content(
    log: RequestLog,
    *,
    train: Window,
    validation: Window,
    settings: NextContentSettings | None = None,
    seed: int = 0,
) -> tuple[NextContentPredictor, History]:
    """The hybrid with networks fitted on the training window and a memory as of the end of validation.

    Args:
        log: requests; those before `train[0]` and from `validation[1]` on are not looked at.
        train: [start, end) that fills the counters and teaches the networks.
        validation: [start, end) that decides when to stop; it begins where training ends or later.
        settings: how to fit.
        seed: of the requests drawn and of all networks.

    Returns:
        The predictor, and a row of losses for each pass of each network; pass 0 is the start.

    Raises:
        ValueError: the windows overlap, or one of them holds no request.
    """
    settings = settings or NextContentSettings()
    memory, taught, held_out = learn(log, train=train, validation=validation, settings=settings, seed=seed)
    hybrid, history = fit_hybrid(taught, held_out, settings=settings, seed=seed)
    return NextContentPredictor(NAME, memory, hybrid, settings), history


def learn(
    log: RequestLog, *, train: Window, validation: Window, settings: NextContentSettings, seed: int = 0
) -> tuple[StreamMemory, Examples, Examples]:
    """Plays both windows once. The memory comes back holding everything before `validation[1]`."""
    known = known_until(log, train=train, validation=validation)
    memory = new_memory(settings, seed=seed)
    first_us = max(train[0], train[1] - round(settings.lesson_hours * HOUR_US))
    thinning = Thinning(settings.kept, settings.drawn, seed) if settings.drawn else None
    windows = ((first_us, train[1]), settings.lesson_events, thinning), (validation, settings.validation_events, None)
    examples, fed = [], None
    for window, n, shortened in windows:
        questions = draw_questions(known, window=window, n=n, seed=seed, timeout_us=memory.timeout_us)
        if not len(questions.rows):
            raise ValueError(f"No requests in the window {window!r}; widen it or choose another.")
        found = collect(memory, known, questions, limit=settings.shortlist, fed=fed, thinning=shortened)
        examples.append(found)
        fed = int(questions.rows[-1])
    finish(memory, known, questions.rows)
    return memory, examples[0], examples[1]


def new_memory(settings: NextContentSettings, *, seed: int) -> StreamMemory:
    """An empty memory, with a sequence network where the settings ask for one."""
    refresher = None
    if settings.sequence_network:
        refresher = Refresher(settings.refresh, SequenceNetwork(settings.sequence, seed=seed), seed=seed)
    return StreamMemory(CounterStore(settings.counters.plain), refresher)
