"""Records that hold arrays, as JSON and back: lists for arrays, null for NaN.

Pydantic knows no arrays, and the records of the models are plain dataclasses that know no pydantic; a saved report needs
both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np


def as_json(value: Any) -> Any:
    """The record with everything in it as JSON knows it."""
    if is_dataclass(value):
        return {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, np.ndarray):
        return as_json(value.tolist())
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def from_json(kind: Any, value: Any) -> Any:
    """The record of this type again.

    Raises:
        ValueError: something in it is missing or has another type.
    """
    if is_dataclass(kind):
        return _record(kind, value)
    if get_origin(kind) is np.ndarray:
        dtype = np.dtype(get_args(get_args(kind)[1])[0])
        return np.array([_number(item) for item in _listed(value)], dtype=dtype)
    if get_origin(kind) is tuple:
        return tuple(from_json(get_args(kind)[0], item) for item in _listed(value))
    if kind is float:
        return _number(value)
    if not isinstance(value, kind):
        raise ValueError(f"Expected {kind.__name__}, got {value!r}.")
    return value


def _record(kind: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"Expected the fields of {kind.__name__}, got {value!r}.")
    hints = get_type_hints(kind)
    missing = [f.name for f in fields(kind) if f.name not in value]
    if missing:
        raise ValueError(f"{kind.__name__} lacks {', '.join(missing)}.")
    return kind(**{f.name: from_json(hints[f.name], value[f.name]) for f in fields(kind)})


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"Expected a list, got {value!r}.")
    return value


def _number(value: Any) -> Any:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"Expected a number or null, got {value!r}.")
    return value
