"""The request log as arrays: what every model reads.

Everything is coded by **order of first appearance**: a location, a visitor or a value when it is first requested with, a
content when it is published or first requested. A prefix of the log therefore has a prefix of each vocabulary, so cutting
the log at an instant also cuts off every content and location that nobody could know yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Reals = npt.NDArray[np.floating[Any]]
Bool = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.object_]
Column = npt.ArrayLike | Sequence[object]
Window = tuple[int, int]
"""[start, end) in microseconds since 1970 UTC."""

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
NEVER_US = int(np.iinfo(np.int64).max)
SEPARATOR = "\x1f"
"""Between the values of a combination: the unit separator, so that ("a b", "c") is not ("a", "b c")."""


def _no_ids() -> Ids:
    return np.empty(0, dtype=object)


@dataclass(frozen=True)
class Catalogue:
    """Contents as their publisher lists them, requested or not.

    Attributes:
        contents: content ids, each once. (m,)
        published_us: microseconds since 1970 UTC, `NEVER_US` where unknown. (m,)
        kinds: what each content is, None where unknown; None when the list does not say. (m,)
    """

    contents: Ids
    published_us: Int64
    kinds: Ids | None = None

    def __post_init__(self) -> None:
        m = len(self.contents)
        if len(self.published_us) != m or (self.kinds is not None and len(self.kinds) != m):
            raise ValueError(f"Expected published_us and kinds of all {m} contents.")
        if len(set(self.contents)) != m:
            raise ValueError("A content is listed twice; keep one row for each.")


@dataclass(frozen=True)
class RequestLog:
    """Requests in time order, as codes into vocabularies that grow with time.

    Attributes:
        ts_us: microseconds since 1970 UTC, non-decreasing. (n,)
        session: session code by order of first appearance; -1 where unknown. (n,)
        content: content code by order of appearance. (n,)
        location: location code by order of first appearance. (n,)
        contents: content ids, by code; contents that were published but not requested yet are among them.
        locations: location ids, by code.
        visitor: code of the user's pseudonym by order of first appearance, -1 where unknown; None without users. (n,)
        features: further columns by name, as codes by order of first appearance; -1 where unknown. name -> (n,)
        feature_values: the values of these columns as text, by code.
        appeared_us: when each content was published or first requested, whichever came first; non-decreasing. None
            where the log was put together without it: then a content is known from its first request. (contents,)
        kinds: code of what each content is, -1 where unknown; None without a catalogue that says. (contents,)
        kind_values: kinds, by code.
        gaps: windows in which requests were not observed, by their start; they may overlap. Missing is not zero.
        gaps_known_us: instant from which each gap could be told from quiet. Gaps are known from their start where it is
            empty.
    """

    ts_us: Int64
    session: Int32
    content: Int32
    location: Int32
    contents: Ids
    locations: Ids
    visitor: Int32 | None = None
    features: Mapping[str, Int32] = field(default_factory=dict)
    feature_values: Mapping[str, Ids] = field(default_factory=dict)
    appeared_us: Int64 | None = None
    kinds: Int32 | None = None
    kind_values: Ids = field(default_factory=_no_ids)
    gaps: tuple[Window, ...] = ()
    gaps_known_us: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._check_lengths()
        self._check_gaps()
        if len(self) and bool(np.any(np.diff(self.ts_us) < 0)):
            row = int(np.flatnonzero(np.diff(self.ts_us) < 0)[0])
            raise ValueError(
                f"Requests must be in time order, but ts_us[{row + 1}] = {int(self.ts_us[row + 1])!r} comes after "
                f"{int(self.ts_us[row])!r}; sort them by ts first."
            )
        appeared_us = self.appeared_us
        if appeared_us is not None and bool(np.any(appeared_us[1:] < appeared_us[:-1])):
            raise ValueError("Contents must be coded in the order in which they appeared; see `with_catalogue`.")

    def _check_lengths(self) -> None:
        by_row = {"session": self.session, "content": self.content, "location": self.location, "visitor": self.visitor}
        for name, codes in (by_row | dict(self.features)).items():
            if codes is not None and len(codes) != len(self):
                raise ValueError(f"{name} has {len(codes)} rows but ts_us has {len(self)}.")
        for name, facts in (("appeared_us", self.appeared_us), ("kinds", self.kinds)):
            if facts is not None and len(facts) != len(self.contents):
                raise ValueError(f"{name} has {len(facts)} entries but there are {len(self.contents)} contents.")
        if self.features.keys() != self.feature_values.keys():
            raise ValueError(
                f"Every feature needs its values: got features {list(self.features)!r} but values of "
                f"{list(self.feature_values)!r}."
            )

    def _check_gaps(self) -> None:
        if self.gaps_known_us and len(self.gaps_known_us) != len(self.gaps):
            raise ValueError(f"Expected an instant for each of {len(self.gaps)} gaps, got {self.gaps_known_us!r}.")
        for start_us, end_us in self.gaps:
            if not start_us < end_us:
                raise ValueError(f"A gap must end after its start, got {(start_us, end_us)!r}.")

    def __len__(self) -> int:
        return len(self.ts_us)

    @classmethod
    def from_columns(
        cls,
        ts_us: Int64,
        session: npt.ArrayLike,
        content: npt.ArrayLike,
        location: npt.ArrayLike,
        *,
        user: Column | None = None,
        features: Mapping[str, Column] | None = None,
    ) -> RequestLog:
        """Sorts by time (stable: equal instants keep their input order) and codes the ids by first appearance."""
        order = np.argsort(ts_us, kind="stable")

        def coded(column: Column) -> tuple[Int32, Ids]:
            return _codes_by_appearance(np.asarray(column, dtype=object)[order])

        codes, contents = coded(content)
        places, locations = coded(location)
        values = {name: coded(column) for name, column in (features or {}).items()}
        ts_us = np.ascontiguousarray(ts_us[order])
        return cls(
            ts_us,
            coded(session)[0],
            codes,
            places,
            contents,
            locations,
            visitor=None if user is None else coded(user)[0],
            features={name: column for name, (column, _) in values.items()},
            feature_values={name: as_text(found) for name, (_, found) in values.items()},
            appeared_us=ts_us[first_rows(codes, len(contents))],
        )

    def described(self, **features: Sequence[str]) -> RequestLog:
        """The same requests with features that combine others: `described(device=("os", "screen"))`.

        A combination is coded by first appearance as every feature is, and unknown where one of its parts is. Features
        that are not combined are dropped; a combination of none is left out.
        """
        codes, values = {}, {}
        for name, parts in features.items():
            if parts:
                codes[name], values[name] = self._combined(parts)
        return replace(self, features=codes, feature_values=values)

    def _combined(self, parts: Sequence[str]) -> tuple[Int32, Ids]:
        key = np.zeros(len(self), dtype=np.int64)
        unknown = np.zeros(len(self), dtype=np.bool_)
        for part in parts:
            column = self.features[part]
            unknown |= column < 0
            key = key * (len(self.feature_values[part]) + 1) + column
        distinct, first, inverse = np.unique(key[~unknown], return_index=True, return_inverse=True)
        order = np.argsort(first)
        code_of = np.empty(len(distinct), dtype=np.int32)
        code_of[order] = np.arange(len(distinct), dtype=np.int32)
        codes = np.full(len(self), -1, dtype=np.int32)
        codes[~unknown] = code_of[inverse]
        rows = np.flatnonzero(~unknown)[first[order]]
        texts = [combined([self.feature_values[p][self.features[p][row]] for p in parts]) for row in rows]
        return codes, np.array(texts, dtype=object)

    def with_catalogue(self, catalogue: Catalogue) -> RequestLog:
        """The same requests, among all contents that were published or requested, coded by order of appearance.

        Of contents that appear at the same instant, those requested at it come first, by their first request; the
        others follow by id. Later requests decide nothing, so the prefix of a log keeps a prefix of the contents. A
        content with neither a publication time nor a request does not appear.
        """
        ids, published_us, kinds = self._merged(catalogue)
        row = first_rows(self.content, len(ids))
        requested_us = np.append(self.ts_us, NEVER_US)[row]
        appeared_us = np.minimum(requested_us, published_us)
        row[requested_us > appeared_us] = len(self)
        order = np.lexsort((ids.astype(str), row, appeared_us))
        order = order[appeared_us[order] < NEVER_US]
        code = np.full(len(ids) + 1, -1, dtype=np.int32)  # the last place answers for content -1
        code[order] = np.arange(len(order), dtype=np.int32)
        kind, kind_values = (None, _no_ids()) if kinds is None else _codes_by_appearance(kinds[order])
        return replace(
            self,
            content=code[self.content],
            contents=ids[order],
            appeared_us=appeared_us[order],
            kinds=kind,
            kind_values=kind_values,
        )

    def with_gaps(self, gaps: Sequence[Window], *, known_us: Sequence[int] | None = None) -> RequestLog:
        """The same requests with more windows that were not observed.

        Args:
            gaps: [start, end) in microseconds.
            known_us: instant from which each could be told from quiet; its start, as of an outage that was announced,
                when left out.
        """
        mine = zip(self.gaps, self.gaps_known_us or [start for start, _ in self.gaps], strict=True)
        theirs = zip(gaps, known_us or [start for start, _ in gaps], strict=True)
        known = sorted({(window, instant) for window, instant in (*mine, *theirs)})
        return replace(
            self, gaps=tuple(window for window, _ in known), gaps_known_us=tuple(instant for _, instant in known)
        )

    def _merged(self, catalogue: Catalogue) -> tuple[Ids, Int64, Ids | None]:
        """The log's contents, then those that only the catalogue lists: ids, instants known so far, kinds."""
        n = len(self.contents)
        code_of = {content: code for code, content in enumerate(self.contents)}
        listed = [code_of.setdefault(content, len(code_of)) for content in catalogue.contents]
        ids = np.array(list(code_of), dtype=object)
        known_us = np.full(len(ids), NEVER_US)
        known_us[listed] = catalogue.published_us
        if self.appeared_us is not None:
            known_us[:n] = np.minimum(known_us[:n], self.appeared_us)
        kinds = None if catalogue.kinds is None else np.full(len(ids), None, dtype=object)
        if kinds is not None:
            kinds[listed] = catalogue.kinds
        return ids, known_us, kinds

    def before(self, cutoff_us: int) -> RequestLog:
        """What was known at `cutoff_us`: earlier requests, and only contents that had appeared and gaps noticed by then."""
        return self._known(0, self._row(cutoff_us), cutoff_us)

    def between(self, start_us: int, end_us: int) -> RequestLog:
        """Requests in [start, end), with vocabulary and gaps as known at `end_us`; codes agree with `before`."""
        end_us = max(start_us, end_us)
        return self._known(self._row(start_us), self._row(end_us), end_us)

    def rows(self, first: int, last: int) -> RequestLog:
        """Rows [first, last), with the whole vocabulary: a view, without a search for what was known then."""
        part = slice(first, last)
        ts_us = self.ts_us[part]
        gaps, gaps_known_us = self._gaps_at(int(ts_us[-1]) if len(ts_us) else 0)
        log = copy(self)
        # Rows of a sound log are sound; checking them again would take most of the time of a question.
        vars(log).update(
            ts_us=ts_us,
            session=self.session[part],
            content=self.content[part],
            location=self.location[part],
            gaps=gaps,
            gaps_known_us=gaps_known_us,
            visitor=None if self.visitor is None else self.visitor[part],
            features={name: codes[part] for name, codes in self.features.items()},
        )
        return log

    def _gaps_at(self, at_us: int) -> tuple[tuple[Window, ...], tuple[int, ...]]:
        """The gaps that were known at an instant, as far as they had come."""
        if not self.gaps:
            return (), ()
        known = zip(self.gaps, self.gaps_known_us or [start for start, _ in self.gaps], strict=True)
        past = [((start, min(end, at_us)), since) for (start, end), since in known if since <= at_us and start < at_us]
        return tuple(window for window, _ in past), tuple(since for _, since in past)

    def _row(self, at_us: int) -> int:
        return int(np.searchsorted(self.ts_us, at_us, side="left"))

    def _known(self, first: int, last: int, at_us: int) -> RequestLog:
        n = _seen(self.content[:last])
        if self.appeared_us is not None:
            n = int(np.searchsorted(self.appeared_us, at_us, side="left"))
        kinds = None if self.kinds is None else self.kinds[:n]
        gaps, gaps_known_us = self._gaps_at(at_us)
        return replace(
            self.rows(first, last),
            gaps=gaps,
            gaps_known_us=gaps_known_us,
            contents=self.contents[:n],
            locations=self.locations[: _seen(self.location[:last])],
            feature_values={name: v[: _seen(self.features[name][:last])] for name, v in self.feature_values.items()},
            appeared_us=None if self.appeared_us is None else self.appeared_us[:n],
            kinds=kinds,
            kind_values=self.kind_values if kinds is None else self.kind_values[: _seen(kinds)],
        )


def first_rows(codes: Int32, n: int) -> Int64:
    """Row at which each code of [0, n) occurs first; `len(codes)` where it does not. (n,)"""
    first = np.full(n + 1, len(codes), dtype=np.int64)  # the last place takes the rows of code -1
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # backwards: the last write to a place is its first row
    return first[:n]


def combined(values: Sequence[object]) -> str:
    """One value for a combination of values: what `RequestLog.described` calls it."""
    return SEPARATOR.join(str(value) for value in values)


def as_text(values: Ids) -> Ids:
    """Values of any type as text, by the same code."""
    return np.array([str(value) for value in values], dtype=object)


def _seen(codes: Int32) -> int:
    """Size of the vocabulary that codes by order of first appearance have reached."""
    return int(codes.max(initial=-1)) + 1


def _codes_by_appearance(values: Ids) -> tuple[Int32, Ids]:
    import pandas as pd

    codes, uniques = pd.factorize(values, use_na_sentinel=True)
    return codes.astype(np.int32), np.asarray(uniques, dtype=object)


def window_name(start_us: int, end_us: int) -> str:
    """Start and end of a window as ISO 8601 instants with a slash between."""
    return "/".join(datetime.fromtimestamp(at / 1e6, tz=UTC).strftime("%Y-%m-%dT%H:%MZ") for at in (start_us, end_us))
