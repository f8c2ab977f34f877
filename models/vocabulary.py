"""Ids and their codes, in order of first appearance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.events import Int32

Ids = npt.NDArray[np.object_]


class Vocabulary:
    """A growing list of ids. Logs coded alike are taken as they are; others are recoded by id."""

    def __init__(self, ids: Ids | None = None) -> None:
        self._ids: Ids = np.empty(64, dtype=object)
        self._size = 0
        self._code_of: dict[object, int] = {}
        self._checked: tuple[int, int, object] = (0, 0, None)
        self._extend(np.empty(0, dtype=object) if ids is None else ids)

    def __len__(self) -> int:
        return self._size

    @property
    def ids(self) -> Ids:
        """Ids by code; a view that later growth leaves untouched."""
        return self._ids[: self._size]

    def recode(self, codes: Int32, ids: Ids) -> Int32:
        """The codes of this vocabulary for rows coded by `ids`; ids that occur in the rows become known."""
        used = int(codes.max(initial=-1)) + 1
        if self._agrees(ids):
            self._extend(ids[self._size : used])
            return codes
        appearing, first = np.unique(codes, return_index=True)
        for code in appearing[np.argsort(first)]:
            if ids[code] not in self._code_of:
                self._extend(ids[code : code + 1])
        mine = np.full(used, -1, dtype=np.int32)
        mine[appearing] = self.codes(ids[appearing])
        return mine[codes]

    def codes(self, ids: npt.ArrayLike) -> Int32:
        """Codes of ids, -1 for unknown ones."""
        return np.array([self._code_of.get(i, -1) for i in np.asarray(ids, dtype=object)], dtype=np.int32)

    def _agrees(self, ids: Ids) -> bool:
        """Whether `ids` and this vocabulary are prefixes of one another; remembered for slices of one array."""
        shared = min(len(ids), self._size)
        place, known, _ = self._checked
        if place == _address(ids) and known >= shared:
            return True
        if not bool(np.all(ids[:shared] == self._ids[:shared])):
            return False
        # Keeping the array alive keeps its address from being given to another one.
        self._checked = (_address(ids), len(ids), ids)
        return True

    def _extend(self, ids: Ids) -> None:
        end = self._size + len(ids)
        if end > len(self._ids):
            longer = np.empty(2 * end, dtype=object)
            longer[: self._size] = self._ids[: self._size]
            self._ids = longer
        self._ids[self._size : end] = ids
        for code in range(self._size, end):
            self._code_of[self._ids[code]] = code
        self._size = end


def _address(ids: Ids) -> int:
    return int(ids.__array_interface__["data"][0])
