"""The service without HTTP: the state in use, the task that follows the registry, and the queues."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, TypeVar

import pyarrow as pa

from serving.batching import Batcher, BatchSettings
from serving.metrics import Metrics
from serving.predictor import Columns, DemandQuestion, NextContents, SessionsQuestion
from serving.problems import nothing_answers, too_slow
from serving.readiness import missing_model, missing_plan
from serving.router import PlanInForce, Route, RouteQuestion
from serving.settings import ServiceSettings
from serving.state import Follower, ServiceState

_LOG = logging.getLogger("premirror.serving")
Result = TypeVar("Result")


class Service:
    """What the routes call.

    Attributes:
        settings: limits and paths.
        metrics: figures.
        state: what answers; replaced whole, by one assignment.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.metrics.watch(lambda: self.state)
        self.state = ServiceState()
        self._follower = Follower(settings)
        self._loading = ThreadPoolExecutor(1, "loading")
        self._quick = ThreadPoolExecutor(3, "quick")
        self._bulk = ThreadPoolExecutor(1, "bulk")
        self.demand: Batcher[DemandQuestion, Columns] = self._batcher("/v1/demand")
        self.next_content: Batcher[SessionsQuestion, list[NextContents]] = self._batcher("/v1/next-content")
        self.routes: Batcher[RouteQuestion, Route] = self._batcher("/v1/route")

    def _batcher(self, route: str) -> Batcher[Any, Any]:
        s = self.settings
        limits = BatchSettings(s.max_batch_size, s.batch_timeout_seconds, s.max_waiting)
        return Batcher(limits, self._quick, observe=self.metrics.batch_size.labels(route).observe)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follows and answers while the block runs."""
        work = [self._follow(), self.demand.run(), self.next_content.run(), self.routes.run()]
        tasks = [asyncio.create_task(coroutine) for coroutine in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for executor in (self._loading, self._quick, self._bulk):
                executor.shutdown(wait=False, cancel_futures=True)
            gc.unfreeze()

    async def _follow(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self.settings.check_every_seconds)

    async def look(self) -> None:
        """One look at the registry and the home folder; whatever happens, something goes on answering."""
        started = time.perf_counter()
        try:
            state = await asyncio.get_running_loop().run_in_executor(self._loading, self._next_state, self.state)
        except Exception as error:  # the last state stays in use
            self.metrics.looks.labels("failed").inc()
            _LOG.error("a look at the registry and the home folder failed: %s", type(error).__name__)
            return
        self.state = state
        self.metrics.looks.labels("done").inc()
        self.metrics.look_seconds.set(time.perf_counter() - started)

    def _next_state(self, last: ServiceState) -> ServiceState:
        state = self._follower.look(last)
        if not state.same_answers(last):
            # What was just loaded stays for long. A full collection that walks through it would stop every request for
            # tenths of a second, so it is done once, now, and these objects are left out of later ones.
            gc.unfreeze()
            gc.collect()
            gc.freeze()
        return state

    def model(self, kind: str) -> Any:
        """What answers for a model; a 503 problem where nothing does."""
        state = self.state
        if state.models[kind].answerer is None:
            raise nothing_answers(missing_model(state, kind))
        return state.models[kind].answerer

    def plan(self) -> PlanInForce:
        """The plan in force; a 503 problem where there is none."""
        state = self.state
        if state.plan.answerer is None:
            raise nothing_answers(missing_plan(state))
        plan: PlanInForce = state.plan.answerer
        return plan

    async def within_limit(self, answer: Awaitable[Result]) -> Result:
        """The answer, or a 504 problem when the time limit passes first."""
        limit = self.settings.time_limit_seconds
        try:
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError:
            _LOG.warning("no answer within %g s (PREMIRROR_TIME_LIMIT_SECONDS)", limit)
            raise too_slow(limit) from None

    async def in_bulk(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Long work in the thread that is there for it, within the time limit."""
        return await self.within_limit(asyncio.get_running_loop().run_in_executor(self._bulk, work, *arguments))

    async def score(self, plan: PlanInForce, asked: pa.Table, *, k: int) -> pa.Table:
        """Scores in bulk; work that nobody waits for any more stops at the next part."""
        stop = Event()
        try:
            return await self.in_bulk(lambda: plan.score_table(asked, k=k, stop=stop))
        finally:
            stop.set()
