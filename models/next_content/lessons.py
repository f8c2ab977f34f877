"""Lessons: what the experts said of requests just before they came, and what came.

One pass over the log. Each drawn request is asked about when the memory holds exactly the requests before it. The
sequence network stands still between two refreshes, so that it is asked about many requests at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from models.events import Float64, Int32, Int64, RequestLog
from models.next_content.asking import evidence_from, places
from models.next_content.experts import Answers, Experts, ask, expert_table, experts_of
from models.next_content.memory import StreamMemory
from models.next_content.sessions import SessionBatch
from models.next_content.shortlist import LEAST, Shortlist, draw_up
from models.next_content.stream import Questions
from models.next_content.weights import Evidence, completed


@dataclass(frozen=True)
class Lessons:
    """What the experts gave to the requests asked about.

    Attributes:
        experts: the columns.
        probability: after back-off. (n, experts)
        raw: before back-off. (n, experts)
        evidence: what was known of each session.
    """

    experts: Experts
    probability: Float64
    raw: Float64
    evidence: Evidence

    def rows(self, rows: slice | Int64) -> Lessons:
        e = self.evidence
        evidence = Evidence(e.departures[rows], e.distinct[rows], e.known[rows])
        return Lessons(self.experts, self.probability[rows], self.raw[rows], evidence)


@dataclass(frozen=True)
class Examples:
    """Lessons with their shortlists.

    Attributes:
        lessons: what the counters said of what came.
        shortlist: candidates and their columns, at half precision.
        came: content that came. (n,)
        place: its column in the shortlist, -1 where it is not listed. (n,)
        ts_us: when it came. (n,)
    """

    lessons: Lessons
    shortlist: Shortlist
    came: Int32
    place: Int64
    ts_us: Int64

    def __len__(self) -> int:
        return len(self.came)

    def rows(self, rows: slice | Int64) -> Examples:
        return Examples(
            self.lessons.rows(rows), self.shortlist.rows(rows), self.came[rows], self.place[rows], self.ts_us[rows]
        )

    @property
    def followed(self) -> Float64:
        """What the sequence network gave to what came. (n,)"""
        column = len(self.lessons.experts.names)
        said = self.shortlist.table[np.arange(len(self)), np.maximum(self.place, 0), column].astype(np.float64)
        return np.where(self.place >= 0, np.maximum(np.exp(said) - LEAST, 0.0), 0.0)


@dataclass(frozen=True)
class Thinning:
    """How shortlists that networks are fitted on are shortened; see `Shortlist.thinned`."""

    kept: int
    drawn: int
    seed: int

    def of(self, shortlist: Shortlist, place: Int64, first: int) -> Shortlist:
        """Thinned lists of the questions from number `first` on, the same however they were cut into portions."""
        rows = [
            shortlist.rows(slice(i, i + 1)).thinned(
                place[i : i + 1], kept=self.kept, drawn=self.drawn, rng=np.random.default_rng([self.seed, first + i])
            )
            for i in range(len(shortlist))
        ]
        return Shortlist.joined(rows)


def hear(memory: StreamMemory, sessions: SessionBatch, content: Int32) -> Lessons:
    """What the counters say now of one content for each session."""
    experts, place = experts_of(memory.store), places(memory.store, sessions)
    answers = Answers(*ask(expert_table(memory.store), *place, np.asarray(content, dtype=np.int32)))
    evidence = evidence_from(memory.store, sessions, answers)
    return Lessons(experts, completed(answers.probability, answers.mass, experts), answers.probability, evidence)


def collect(
    memory: StreamMemory,
    log: RequestLog,
    questions: Questions,
    *,
    limit: int,
    fed: int | None = None,
    thinning: Thinning | None = None,
) -> Examples:
    """Plays the log up to the last question and answers with what the memory said of each.

    Args:
        memory: must hold nothing of the first question's instant or later; it is fed on the way.
        log: coded as the memory is.
        questions: rows of the log.
        limit: most candidates of a shortlist.
        fed: rows of the log that the memory holds already; by default those until its newest instant.
        thinning: how to shorten the lists that are kept.
    """
    heard: list[Lessons] = []
    came = log.content[questions.rows]
    desk = _Desk(memory, questions.sessions, came, thinning)
    known = int(np.searchsorted(log.ts_us, memory.time_us, side="right")) if fed is None else fed
    for number, row in enumerate(questions.rows):
        if row > known:
            if memory.refreshes_by(int(log.ts_us[row - 1])):
                desk.ask_sequence()
            memory.update(log.rows(known, int(row)))
            known = int(row)
        session = questions.sessions.rows(number, number + 1)
        heard.append(hear(memory, session, came[number : number + 1]))
        desk.waiting.append(draw_up(memory.store, session, limit=limit))
    desk.ask_sequence()
    shortlist = desk.answered(len(came))
    return Examples(_joined(heard), shortlist, came, shortlist.place_of(came), log.ts_us[questions.rows])


@dataclass
class _Desk:
    """Questions asked of the counters that wait for the sequence network, and the shortlists that are complete."""

    memory: StreamMemory
    sessions: SessionBatch
    came: Int32
    thinning: Thinning | None
    waiting: list[Shortlist] = field(default_factory=list)
    kept: Shortlist | None = None
    n_answered: int = 0

    def ask_sequence(self) -> None:
        """Completes what waits; the network must not have learnt since."""
        if not self.waiting:
            return
        first, last = self.n_answered, self.n_answered + len(self.waiting)
        done = self.memory.complete(Shortlist.joined(self.waiting), self.sessions.rows(first, last))
        if self.thinning is not None:
            done = self.thinning.of(done, done.place_of(self.came[first:last]), first)
        self.waiting.clear()
        self._keep(done.compact(), first, last)
        self.n_answered = last

    def answered(self, n: int) -> Shortlist:
        """All shortlists, in order."""
        if self.kept is None:
            raise ValueError("Nothing was asked; draw at least one question.")
        return self.kept.rows(slice(0, n))

    def _keep(self, done: Shortlist, first: int, last: int) -> None:
        """Copies into room made once for all: lists of many questions fill gigabytes."""
        if self.kept is None:
            self.kept = done.room_for(len(self.came))
        self.kept.put(done, first, last)


def _joined(parts: list[Lessons]) -> Lessons:
    evidence = Evidence(
        *(np.concatenate([getattr(p.evidence, name) for p in parts]) for name in ("departures", "distinct", "known"))
    )
    probability, raw = (np.concatenate([getattr(p, name) for p in parts]) for name in ("probability", "raw"))
    return Lessons(parts[0].experts, probability, raw, evidence)
