"""Learning during the stream: every few minutes of log time one pass over the requests that came since.

    loss = -log softmax_S(score - log pi)[target]

S holds the targets of the minibatch and contents drawn from those requested in the last hours; pi_i is the chance of
content i to be in S, a correction that makes the sampled softmax agree with the one over all active contents (Bengio
and Senecal, 2008). Where no more are active than are drawn, S is all of them and pi = 1. Embeddings learn by row-wise
Adagrad, the encoder by Adam. Passes happen at instants of a fixed grid and draw from (seed, instant) alone: the
outcome depends on the requests, not on the portions in which they arrived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import LogOrderError
from models.events import DAY_US, HOUR_US, Int32, Int64
from models.next_content.encoders import Trails
from models.next_content.sequence import Float32, SequenceBatch, SequenceNetwork, SequenceSettings

MINUTE_US = 60_000_000
NEVER_US = -1
REFUSED = -1e9
_FIELDS = ("items", "location", "ts_us", "features", "parts")


@dataclass(frozen=True)
class RefreshSettings:
    """How a sequence network learns during the stream."""

    refresh_minutes: float = 10.0
    """Log time between two passes."""
    minibatch: int = 512
    """Requests of one step at most."""
    passes: int = 1
    """Times that each request is learnt from."""
    embedding_rate: float = 0.1
    """Learning rate of the embeddings (Adagrad)."""
    encoder_rate: float = 0.003
    """Learning rate of the encoder (Adam)."""
    negatives: int = 1024
    """Contents drawn for each minibatch besides its targets; all active ones where they are fewer."""
    recent_hours: float = 2.0
    """A content is active when it was requested within so many hours."""
    drawing_power: float = 0.5
    """A content is drawn in proportion to this power of its recent requests."""

    memory_days: float = 0.5
    """Half-life of the sums of squared gradients of the embeddings: contents that live on keep learning."""

    def __post_init__(self) -> None:
        for name in (
            "refresh_minutes",
            "minibatch",
            "passes",
            "embedding_rate",
            "encoder_rate",
            "recent_hours",
            "memory_days",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"Expected {name} > 0, got {getattr(self, name)!r}.")
        if self.negatives < 1 or self.drawing_power < 0:
            raise ValueError(
                f"Expected negatives >= 1 and drawing_power >= 0, got {self.negatives!r} and {self.drawing_power!r}."
            )

    @property
    def refresh_us(self) -> int:
        return round(self.refresh_minutes * MINUTE_US)


class Refresher:
    """Teaches a network from a stream of requests.

    Attributes:
        settings: when and how it learns.
        network: what it teaches; may be asked between any two calls.
        seed: of the order of requests within a pass and of the contents drawn.
        due_us: instant of the next pass, -1 before the first request.
    """

    def __init__(self, settings: RefreshSettings, network: SequenceNetwork, *, seed: int) -> None:
        self.settings = settings
        self.network = network
        self.seed = seed
        self.due_us = NEVER_US
        self._adam = Adam(list(network.encoder.parameters()), rate=settings.encoder_rate)
        self._waiting: list[tuple[SequenceBatch, Int32]] = []
        self._recent = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32))

    def learn(self, batch: SequenceBatch, targets: Int32) -> None:
        """Takes note of requests: the trail before each, and the content it went to; learns from those that are due.

        Raises:
            LogOrderError: the requests are not in time order, or older than the last pass.
        """
        if len(targets) != len(batch):
            raise ValueError(f"Expected {len(batch)} targets, got {len(targets)}.")
        if not len(batch):
            return
        self._check_order(batch.ts_us)
        first = 0
        while first < len(batch):
            self.advance(int(batch.ts_us[first]))
            last = int(np.searchsorted(batch.ts_us, self.due_us, side="left"))
            self._waiting.append((batch.rows(slice(first, last)), np.asarray(targets[first:last], dtype=np.int32)))
            first = last

    def advance(self, now_us: int) -> None:
        """Does the pass that is due by that instant, if any; later requests may not be older than that."""
        if now_us < self.due_us:
            return
        if self._waiting:
            self._learn_waiting()
        self.due_us = (now_us // self.settings.refresh_us + 1) * self.settings.refresh_us

    def state(self) -> dict[str, Tensor]:
        """All that learning on exactly as before needs, besides the settings."""
        batch, targets = _joined(self._waiting, self.network)
        waiting = {name: getattr(batch, name) for name in _FIELDS} | {"targets": targets}
        recent = dict(zip(("ts_us", "content"), self._recent, strict=True))
        arrays = {f"waiting.{name}": array for name, array in waiting.items()}
        arrays |= {f"recent.{name}": array for name, array in recent.items()}
        arrays["clock"] = np.array([self.seed, self.due_us, self._adam.steps], dtype=np.int64)
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        tensors |= {f"network.{name}": tensor for name, tensor in self.network.tensors().items()}
        tensors |= {"adam.mean": self._adam.mean, "adam.square": self._adam.square}
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Tensor],
        *,
        settings: RefreshSettings,
        shape: SequenceSettings,
        device: str = "cpu",
    ) -> Self:
        """A refresher that goes on as the one whose `state()` it is; `shape` are the settings of its network."""
        seed, due_us, steps = state["clock"].tolist()
        network = SequenceNetwork(shape, seed=seed, device=device)
        network.load_tensors({n.removeprefix("network."): t for n, t in state.items() if n.startswith("network.")})
        refresher = cls(settings, network, seed=seed)
        refresher.due_us = due_us
        refresher._adam.load(state["adam.mean"], state["adam.square"], steps)
        refresher._recent = (state["recent.ts_us"].numpy().copy(), state["recent.content"].numpy().copy())
        *fields, targets = (state[f"waiting.{name}"].numpy().copy() for name in (*_FIELDS, "targets"))
        refresher._waiting = [(SequenceBatch(*fields), targets)] if len(targets) else []
        return refresher

    def _check_order(self, ts_us: Int64) -> None:
        newest = int(self._waiting[-1][0].ts_us[-1]) if self._waiting else self.due_us - self.settings.refresh_us
        if (self.due_us != NEVER_US and ts_us[0] < newest) or bool(np.any(np.diff(ts_us) < 0)):
            raise LogOrderError(
                f"Requests to learn from must be in time order and not before {newest} us, got one of {ts_us.min()} us."
            )

    def _learn_waiting(self) -> None:
        batch, targets = _joined(self._waiting, self.network)
        self._waiting = []
        active, requests = self._activity(batch.ts_us, targets)
        kept = 0.5 ** (self.settings.refresh_us / (self.settings.memory_days * DAY_US))
        for table in self.network.rows.values():
            table.fade(kept)
        rng = np.random.default_rng([self.seed, self.due_us])
        steps = -(-len(batch) // self.settings.minibatch)
        for _ in range(self.settings.passes):
            for rows in np.array_split(rng.permutation(len(batch)), steps):
                drawn = draw(active, requests, targets[rows], settings=self.settings, rng=rng)
                self._step(batch.rows(rows), targets[rows], *drawn)

    def _activity(self, ts_us: Int64, targets: Int32) -> tuple[Int32, Int64]:
        """Contents requested lately, by rising code, and how often; those of the pass itself are always among them."""
        oldest_us = min(self.due_us - round(self.settings.recent_hours * HOUR_US), int(ts_us[0]))
        times = np.concatenate([self._recent[0], ts_us])
        contents = np.concatenate([self._recent[1], targets])
        kept = times >= oldest_us
        self._recent = (times[kept], contents[kept])
        active, requests = np.unique(self._recent[1], return_counts=True)
        return active, requests.astype(np.int64)

    def _step(self, batch: SequenceBatch, targets: Int32, compared: Int32, log_chance: Float32) -> None:
        """One step along the gradient of the loss of a minibatch over the compared contents (by rising code)."""
        network = self.network
        trails = Trails.of(batch.items, batch.parts, device=network.device)
        codes, place = np.unique(np.concatenate([trails.items, compared]), return_inverse=True)
        content = network.rows["content"].read(codes).requires_grad_()
        bias = network.rows["bias"].read(compared).requires_grad_()
        learnt = {"content": (codes, content), "bias": (compared, bias)}
        context = torch.zeros((), device=network.device)
        for name, column in network.context_codes(batch).items():
            rows, inverse = np.unique(column, return_inverse=True)
            learnt[name] = (rows, network.rows[name].read(rows).requires_grad_())
            context = context + learnt[name][1].index_select(0, network.tensor(inverse))
        queries = network.encode(content, place[: len(trails.items)], trails, context)
        answers = content.index_select(0, network.tensor(place[len(trails.items) :]))
        logits = torch.addmm(bias[:, 0] - network.tensor(log_chance), queries, answers.T)
        refused = tuple(network.tensor(index) for index in _not_offered(batch.current, targets, compared))
        logits = logits.index_put(refused, logits.new_tensor(REFUSED))
        loss = functional.cross_entropy(logits, network.tensor(np.searchsorted(compared, targets)), reduction="sum")
        torch.autograd.backward([loss])
        self._adam.step()
        for name, (rows, leaf) in learnt.items():
            assert leaf.grad is not None
            network.rows[name].learn(rows, leaf.grad, rate=self.settings.embedding_rate)


class Adam:
    """Adam (Kingma and Ba, 2015) over all parameters as one vector: a few long operations instead of many short."""

    def __init__(self, parameters: Sequence[nn.Parameter], *, rate: float) -> None:
        self.parameters = parameters
        self.rate = rate
        self.steps = 0
        size = sum(parameter.numel() for parameter in parameters)
        self.mean = torch.zeros(size, device=parameters[0].device)
        self.square = torch.zeros_like(self.mean)

    def step(self) -> None:
        """Moves every parameter along its gradient, and forgets the gradient."""
        gradient = torch.cat(
            [torch.zeros_like(p).view(-1) if p.grad is None else p.grad.reshape(-1) for p in self.parameters]
        )
        self.steps += 1
        self.mean.lerp_(gradient, 0.1)
        self.square.lerp_(gradient.square(), 0.001)
        scale = (self.square / (1 - 0.999**self.steps)).sqrt_().add_(1e-8)
        move = self.mean / scale * (self.rate / (1 - 0.9**self.steps))
        with torch.no_grad():
            for parameter, part in zip(
                self.parameters, torch.split(move, [p.numel() for p in self.parameters]), strict=True
            ):
                parameter.sub_(part.view_as(parameter))
                parameter.grad = None

    def load(self, mean: Tensor, square: Tensor, steps: int) -> None:
        self.mean, self.square = mean.to(self.mean.device).clone(), square.to(self.square.device).clone()
        self.steps = steps


def draw(
    active: Int32, requests: Int64, targets: Int32, *, settings: RefreshSettings, rng: np.random.Generator
) -> tuple[Int32, Float32]:
    """Contents that a minibatch is compared on, by rising code, and the log of each one's chance to be among them.

    The contents with the smallest exponential times of rates w = requests^power are drawn; given the first time that is
    not, a content is drawn with chance 1 - exp(-w time). The targets join them.
    """
    if len(active) <= settings.negatives:
        return active, np.zeros(len(active), dtype=np.float32)
    rates = requests.astype(np.float64) ** settings.drawing_power
    times = rng.standard_exponential(len(active)) / rates
    limit = np.partition(times, settings.negatives)[settings.negatives]
    chosen = times < limit
    chosen[np.searchsorted(active, targets)] = True
    log_missed = -rates * limit + len(targets) * np.log1p(-requests / (requests.sum() + 1.0))
    return active[chosen], np.log(-np.expm1(log_missed))[chosen].astype(np.float32)


def _not_offered(current: Int32, targets: Int32, compared: Int32) -> tuple[Int64, Int64]:
    """Rows and columns of the content that each session is at, which is no answer of its own."""
    column = np.minimum(np.searchsorted(compared, current), len(compared) - 1)
    row = np.flatnonzero((compared[column] == current) & (current != targets))
    return row, column[row]


def _joined(waiting: Sequence[tuple[SequenceBatch, Int32]], network: SequenceNetwork) -> tuple[SequenceBatch, Int32]:
    """The portions as one; of the right widths where there is none."""
    if not waiting:
        none = np.empty(0, dtype=np.int32)
        features = np.empty((0, network.settings.features), dtype=np.int32)
        empty = SequenceBatch(none.reshape(0, 1), none, none.astype(np.int64), features)
        return empty, none
    fields = [np.concatenate([getattr(batch, name) for batch, _ in waiting]) for name in _FIELDS]
    return SequenceBatch(*fields), np.concatenate([targets for _, targets in waiting])
