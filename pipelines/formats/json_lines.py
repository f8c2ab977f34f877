"""Access logs with one JSON object a line; `columns` says which key is which.

A key is a name at the top level, or a path such as `$.client.ip`. Keys named as the columns themselves need no entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.fields import take_field
from pipelines.formats.instants import parse_instants
from pipelines.formats.lines import Lines, read_lines
from pipelines.formats.reading import Bool, Reading, to_bool
from pipelines.formats.records import ROLES, read_records
from pipelines.formats.settings import InputSettings

_QUERY = """
    SELECT ok, CASE WHEN ok THEN json_extract_string(line, $1::VARCHAR[]) END AS fields
    FROM (SELECT line, CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' ELSE false END AS ok FROM lines)
"""


def read_json_lines(path: Path, settings: InputSettings) -> Iterator[Reading]:
    """Requests of one JSON-lines log.

    Raises:
        InputError: the file cannot be read.
    """
    keys = {role: role for role in ROLES} | settings.columns
    with duckdb.connect() as connection:
        for lines in read_lines(path):
            yield _read(lines, keys, settings, connection)


def _read(
    lines: Lines, keys: dict[str, str], settings: InputSettings, connection: duckdb.DuckDBPyConnection
) -> Reading:
    valid, values = _extract(lines.text, list(keys.values()), connection)
    text, number = lines.text, lines.number
    if not valid.all():
        lines.broken.add(number[~valid], text.filter(pa.array(~valid)).to_pylist(), "the line is no JSON object")
        text, number = text.filter(pa.array(valid)), number[valid]
        _, values = _extract(text, list(keys.values()), connection)
    by_role = dict(zip(keys, values, strict=True))
    for role in ("content", "location", "method", "status"):
        # A key that no line of this block has says nothing, rather than something empty.
        if by_role[role].null_count == len(number) and role not in settings.columns:
            del by_role[role]
    by_role["ts"], _ = parse_instants(by_role["ts"], settings)
    return read_records(by_role, number, text, lines.broken, settings)


def _extract(
    text: pa.StringArray, keys: list[str], connection: duckdb.DuckDBPyConnection
) -> tuple[Bool, list[pa.Array]]:
    connection.register("lines", pa.table({"line": text}))
    answer = connection.sql(_QUERY, params=[[_path(key) for key in keys]]).to_arrow_table()
    connection.unregister("lines")
    parts = answer["fields"].combine_chunks()
    counts = pc.fill_null(pc.list_value_length(parts), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    split = (parts.values, parts.offsets.to_numpy()[:-1].astype(np.int64), counts)
    return to_bool(answer["ok"]), [take_field(split, position) for position in range(len(keys))]


def _path(key: str) -> str:
    return key if key.startswith("$") else f"$.{json.dumps(key)}"
