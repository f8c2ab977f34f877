"""What a session will request next: Markov counters and a sequence network, weighed by two small networks.

The memory moves with every request; the weights of gate and re-ranker were learnt once and stay. The answer is a
distribution over all known contents and one outcome, `unseen`, for those that nobody knows yet. Item codes and location
codes are the memory's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from models.artefact import load_artefact, save_artefact
from models.counters import CounterStore
from models.events import Bool, Float64, Int32, Int64, RequestLog
from models.next_content.forecast import NextContentForecast, aggregate_by_location
from models.next_content.hybrid import LEAST_OUTSIDE, Hybrid, HybridShape
from models.next_content.judged import Judged
from models.next_content.lessons import hear
from models.next_content.memory import StreamMemory
from models.next_content.refresh import Refresher
from models.next_content.sessions import SessionBatch
from models.next_content.settings import NextContentSettings, settings_from
from models.next_content.shortlist import LEAST, Shortlist

KIND = "next-content"
FORMAT = 2
BATCH = 64
"""Sessions weighed at once: their columns stay in the processor's cache."""

__all__ = ["NextContentForecast", "NextContentPredictor", "SessionBatch", "aggregate_by_location"]


@dataclass(frozen=True)
class Weighed:
    """Logarithms of the answer for a batch.

    Attributes:
        inside: of the shortlist's share that each listed content has. (n, m)
        listed: of the probability that the next content is listed. (n,)
        outside: of the probability that it is not. (n,)
        weights: of the experts after back-off, not a logarithm. (n, experts)
        mix_outside: probability that the mixture leaves outside. (n,)
    """

    inside: Tensor
    listed: Tensor
    outside: Tensor
    weights: Tensor
    mix_outside: Tensor

    @property
    def log_q(self) -> Float64:
        """Log-probability of every listed content. (n, m)"""
        return np.asarray((self.inside + self.listed[:, None]).double().numpy())


class NextContentPredictor:
    """Gate and re-ranker over one memory.

    Attributes:
        name: name of the method in tables.
        memory: counters, trails and sequence network.
        hybrid: gate and re-ranker.
        settings: what both were built with.
        device_features: columns of the requests that make a device, in order; none where devices are not known.
        arrival_features: columns of a session's request before that make an arrival, likewise.
    """

    device_features: tuple[str, ...] = ()
    arrival_features: tuple[str, ...] = ()

    def __init__(self, name: str, memory: StreamMemory, hybrid: Hybrid, settings: NextContentSettings) -> None:
        self.name = name
        self.memory = memory
        self.hybrid = hybrid.eval()
        self.settings = settings

    @property
    def store(self) -> CounterStore:
        """The counters."""
        return self.memory.store

    def update(self, log: RequestLog) -> None:
        """Counts further requests and lets the sequence network learn from them; gate and re-ranker stay.

        Raises:
            LogOrderError: the log begins before the newest instant already fed.
        """
        self.memory.update(log)

    def predict(self, sessions: SessionBatch, *, k: int = 20) -> NextContentForecast:
        """The k likeliest next contents of each session; never the one that it is at.

        Raises:
            LogOrderError: a question is older than the newest request counted.
        """
        return self.judge(sessions, None, k=k).forecast

    def probability(self, sessions: SessionBatch, content: Int32) -> Float64:
        """Probability that each session goes to `content[i]` next; for unknown codes, to any unseen content. (n,)"""
        return self.judge(sessions, content, k=1).probability

    def judge(self, sessions: SessionBatch, content: Int32 | None, *, k: int) -> Judged:
        """Both answers from one shortlist."""
        if k < 1:
            raise ValueError(f"Expected k >= 1, got {k!r}.")
        if len(sessions):
            self.memory.refuse_before(int(sessions.ts_us.min()))
        found = [
            self._judge(sessions.rows(i, i + BATCH), None if content is None else content[i : i + BATCH], k)
            for i in range(0, len(sessions), BATCH)
        ]
        if not found:
            nothing = NextContentForecast(np.empty((0, k), dtype=np.int32), np.empty((0, k)))
            return Judged(nothing, np.empty(0), np.empty(0, dtype=np.bool_))
        contents, probabilities, asked, listed = (np.concatenate(part) for part in zip(*found, strict=True))
        return Judged(NextContentForecast(contents, probabilities), asked, listed)

    def _judge(self, sessions: SessionBatch, content: Int32 | None, k: int) -> tuple[Int32, Float64, Float64, Bool]:
        shortlist = self.memory.shortlist(sessions, limit=self.settings.shortlist)
        weighed = weigh(self.hybrid, shortlist)
        top = best(shortlist, weighed.log_q, k)
        if content is None:
            return *top, np.empty(0), np.empty(0, dtype=np.bool_)
        place = shortlist.place_of(content)
        return *top, given(weighed, place, hear(self.memory, sessions, content).raw), place >= 0

    def save(self, folder: Path) -> None:
        """Writes networks and memory into one folder."""
        tensors = {f"hybrid.{name}": tensor for name, tensor in self.hybrid.state_dict().items()}
        if self.memory.refresher is not None:
            tensors |= {f"refresher.{name}": tensor for name, tensor in self.memory.refresher.state().items()}
        save_artefact(
            folder,
            kind=KIND,
            format=FORMAT,
            hyperparameters=asdict(self.settings),
            state={
                "name": self.name,
                "shape": asdict(self.hybrid.shape),
                "backs_off_to": list(self.hybrid.backs_off_to),
                "device_features": list(self.device_features),
                "arrival_features": list(self.arrival_features),
            },
            tensors=tensors,
            tables=self.memory.to_arrow(),
        )

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Reads a saved predictor, which goes on as the saved one would have.

        Args:
            folder: what `save` wrote.
            device: where the networks compute; counters and shortlists stay in memory.

        Raises:
            ArtefactError: the folder is damaged, of another kind, or of another format.
        """
        saved = load_artefact(folder, kind=KIND, format=FORMAT)
        settings = settings_from(saved.hyperparameters)
        shape = dict(saved.state["shape"])
        hybrid = Hybrid(
            HybridShape(**(shape | {"codes": tuple(shape["codes"])})), backs_off_to=saved.state["backs_off_to"]
        )
        hybrid.load_state_dict(_beneath("hybrid.", saved.tensors))
        hybrid.to(device)
        refresher = None
        if settings.sequence_network:
            state = _beneath("refresher.", saved.tensors)
            refresher = Refresher.from_state(state, settings=settings.refresh, shape=settings.sequence, device=device)
        model = cls(saved.state["name"], StreamMemory.from_arrow(saved.tables, refresher), hybrid, settings)
        model.device_features = tuple(saved.state["device_features"])
        model.arrival_features = tuple(saved.state["arrival_features"])
        return model


@torch.inference_mode()
def weigh(hybrid: Hybrid, shortlist: Shortlist) -> Weighed:
    """What gate and re-ranker make of shortlists, computed where the networks are; the answer is on the CPU."""
    device = hybrid.gate.start.device
    arrays = (shortlist.mass, shortlist.context, shortlist.codes.astype(np.int64), shortlist.contents >= 0)
    columns = torch.from_numpy(shortlist.table).to(device).float()
    mass, context, codes, listed = (torch.from_numpy(array).to(device) for array in arrays)
    log_weights = hybrid.gate(context, codes)
    log_mix, weights = hybrid.mixed(columns, mass, log_weights, floor=LEAST)
    inside, outside, within = hybrid.reranker(columns, log_mix, listed, context, codes)
    # Where nothing is listed, the sequence network has nothing to say: what lies outside is the counters' share.
    spoken = torch.where(listed.any(dim=1), 1.0, 1.0 - weights[:, -1])
    mix_outside = spoken - torch.where(listed, log_mix.exp(), 0.0).sum(dim=1)
    answer = (inside, within, outside, weights, mix_outside.clamp_min(LEAST_OUTSIDE))
    return Weighed(*(tensor.cpu() for tensor in answer))


def given(weighed: Weighed, place: Int64, raw: Float64) -> Float64:
    """Probability of one content for each session, by its place in the shortlist, -1 where it is not listed. (n,)

    What lies outside is shared out as the mixture would; `raw` is what each expert of the counters gives to the content.
    """
    inside = np.exp(np.take_along_axis(weighed.log_q, np.maximum(place, 0)[:, None], axis=1)[:, 0])
    mixed = (weighed.weights[:, :-1].double().numpy() * raw).sum(axis=1)
    share = np.minimum(mixed / np.maximum(weighed.mix_outside.double().numpy(), 1e-12), 1.0)
    return np.asarray(np.where(place >= 0, inside, np.exp(weighed.outside.double().numpy()) * share))


def best(shortlist: Shortlist, log_q: Float64, k: int) -> tuple[Int32, Float64]:
    """The k listed contents of greatest probability, ties by content code. (n, k) each"""
    n, m = log_q.shape
    listed = shortlist.contents >= 0
    order = np.lexsort((shortlist.contents, np.where(listed, -log_q, np.inf)), axis=1)[:, :k]
    contents, probabilities = np.full((n, k), -1, dtype=np.int32), np.zeros((n, k))
    width = min(k, m)
    kept = np.take_along_axis(listed, order, axis=1)
    contents[:, :width] = np.where(kept, np.take_along_axis(shortlist.contents, order, axis=1), -1)
    probabilities[:, :width] = np.where(kept, np.exp(np.take_along_axis(log_q, order, axis=1)), 0.0)
    return contents, probabilities


def _beneath(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
