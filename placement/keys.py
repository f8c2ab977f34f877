"""Where keys stand among others: pairs such as (segment, source), each written as one number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def find_keys(
    keys: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64], *, order: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Position of each wanted key, 0 where it is not there, and whether it is. Both are (W,).

    Args:
        keys: ascending, or in any order with `order`. (K,)
        wanted: (W,)
        order: what sorts the keys. (K,)
    """
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    at = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    at = at if order is None else order[at]
    known = keys[at] == wanted
    return np.where(known, at, 0), np.asarray(known)
