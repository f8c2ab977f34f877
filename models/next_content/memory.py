"""All that moves with the stream: counters, trails, and the sequence network that learns from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import pyarrow as pa

from models.counters import CounterStore
from models.events import Ids, RequestLog
from models.next_content.refresh import Refresher
from models.next_content.sequence import SequenceNetwork
from models.next_content.sessions import SessionBatch
from models.next_content.shortlist import Shortlist, draw_up, with_sequence
from models.next_content.trail_memory import Requests, TrailMemory

TRAILS = "trails"


class StreamMemory:
    """What a next-content predictor remembers of the requests so far; every request is fed once, in time order.

    Attributes:
        store: the counters.
        refresher: teaches the sequence network; None without one.
        trails: what visitors requested lately; the sequence network learns from it.
    """

    def __init__(self, store: CounterStore, refresher: Refresher | None = None) -> None:
        self.store = store
        self.refresher = refresher
        self.trails = TrailMemory(timeout_us=store.timeout_us)

    @property
    def time_us(self) -> int:
        """The newest instant fed so far."""
        return self.store.time_us

    @property
    def contents(self) -> Ids:
        return self.store.contents

    @property
    def locations(self) -> Ids:
        return self.store.locations

    @property
    def timeout_us(self) -> int:
        return self.trails.timeout_us

    @property
    def sequence(self) -> SequenceNetwork | None:
        return None if self.refresher is None else self.refresher.network

    def refuse_before(self, at_us: int) -> None:
        """Raises `LogOrderError` where an answer for that instant would contain its own future."""
        self.store.refuse_before(at_us)

    def update(self, log: RequestLog) -> None:
        """Feeds the requests of a log, in order.

        Raises:
            LogOrderError: the log begins before the newest instant already fed.
        """
        if not len(log):
            return
        self.store.update(log)
        if self.refresher is not None:
            trails, came = self.trails.follow(self._requests(log))
            self.refresher.learn(trails, came)

    def end_sessions(self) -> None:
        """Ends every session and forgets whose was which, because what comes next numbers both afresh."""
        self.store.end_sessions()
        self.trails = TrailMemory(timeout_us=self.trails.timeout_us)

    def refreshes_by(self, at_us: int) -> bool:
        """Whether the sequence network changes before it is asked about that instant."""
        return self.refresher is not None and at_us >= self.refresher.due_us

    def shortlist(self, sessions: SessionBatch, *, limit: int) -> Shortlist:
        """The shortlist of each session at its instant, complete."""
        return self.complete(draw_up(self.store, sessions, limit=limit), sessions)

    def complete(self, shortlist: Shortlist, sessions: SessionBatch) -> Shortlist:
        """A shortlist with what the sequence network says now."""
        if self.sequence is None:
            return shortlist
        return with_sequence(shortlist, self.sequence, sessions)

    def _requests(self, log: RequestLog) -> Requests:
        device, arrival = self.store.audiences.codes(log)
        visitor = np.full(len(log), -1, dtype=np.int32) if log.visitor is None else log.visitor
        return Requests(
            log.ts_us,
            visitor,
            log.session,
            self.store.content_ids.recode(log.content, log.contents),
            self.store.location_ids.recode(log.location, log.locations),
            device,
            arrival,
        )

    def to_arrow(self) -> dict[str, pa.Table]:
        """Counters and trails as tables; the refresher is saved by its own `state`."""
        return self.store.to_arrow() | {TRAILS: self.trails.to_arrow(self.time_us)}

    @classmethod
    def from_arrow(cls, tables: Mapping[str, pa.Table], refresher: Refresher | None) -> Self:
        """A memory that goes on as the saved one would have."""
        memory = cls(CounterStore.from_arrow(tables), refresher)
        memory.trails.load(tables[TRAILS])
        return memory
