"""Arrow IPC streams of requests to score, read with suspicion: they come from outside."""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from serving.messages import MAX_ID_LENGTH
from serving.problems import invalid, mistake, too_many_rows

COLUMNS = ("content", "segment", "location")


def read_requests(body: bytes, *, max_rows: int) -> pa.Table:
    """Columns content, segment, location of a stream.

    Raises:
        Problem: 422 with every mistake found.
    """
    try:
        _refuse_compressed(body)
        with pa.ipc.open_stream(pa.BufferReader(body)) as stream:
            _check_schema(stream.schema)
            batches, rows = [], 0
            for batch in stream:
                batch.validate(full=True)
                rows += len(batch)
                if rows > max_rows:
                    raise too_many_rows(rows, max_rows, "max_arrow_rows")
                batches.append(batch.select(list(COLUMNS)))
    except (pa.ArrowException, OSError) as error:
        raise invalid([mistake("#", f"The body is no Arrow IPC stream: {str(error).splitlines()[0]}")]) from None
    if not rows:
        raise invalid([mistake("#", "The stream holds no rows.")])
    table = pa.Table.from_batches(batches)
    problems = [problem for name in COLUMNS for problem in _column_problems(name, table[name])]
    if problems:
        raise invalid(problems)
    plain = [_plain(table[name]) for name in COLUMNS]
    return pa.table(dict(zip(COLUMNS, plain, strict=True)))


def _refuse_compressed(body: bytes) -> None:
    """A small compressed body can unpack to more than the memory holds, so that the body limit would mean nothing."""
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(body)):
        if message.type in ("record batch", "dictionary") and is_compressed(message):
            text = "The stream is compressed; write it without compression, because the body limit counts plain bytes."
            raise invalid([mistake("#", text)])


def is_compressed(message: Any) -> bool:
    """Whether a record or dictionary batch has a compression in its header, a FlatBuffers table.

    Message holds its header in field 2; DictionaryBatch its record batch in field 1; RecordBatch its compression in
    field 3. Fields that are not set have offset 0 in the table's vtable, or lie beyond its end.
    """
    raw = message.metadata.to_pybytes()
    try:
        (root,) = struct.unpack_from("<I", raw, 0)
        path = (2, 1, 3) if message.type == "dictionary" else (2, 3)
        table = root
        for index in path[:-1]:
            place = table + _field_offset(raw, table, index)
            table = place + int(struct.unpack_from("<I", raw, place)[0])
        return _field_offset(raw, table, path[-1]) != 0
    except struct.error:
        raise pa.ArrowInvalid("a message has a damaged header") from None


def _field_offset(raw: bytes, table: int, index: int) -> int:
    vtable = table - int(struct.unpack_from("<i", raw, table)[0])
    (size,) = struct.unpack_from("<H", raw, vtable)
    slot = 4 + 2 * index
    return int(struct.unpack_from("<H", raw, vtable + slot)[0]) if slot < size else 0


def write_table(table: pa.Table) -> bytes:
    """A table as one IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _check_schema(schema: pa.Schema) -> None:
    problems = []
    for name in COLUMNS:
        found = schema.get_all_field_indices(name)
        if len(found) != 1:
            have = ", ".join(schema.names) or "none"
            problems.append(mistake(f"#/{name}", f"Expected one column {name!r}, got {len(found)}; columns: {have}."))
            continue
        kind = _value_type(schema.field(found[0]).type)
        fits = pt.is_integer(kind) if name == "segment" else pt.is_string(kind) or pt.is_large_string(kind)
        if not fits:
            wanted = "integers" if name == "segment" else "strings"
            problems.append(mistake(f"#/{name}", f"Expected {wanted}, got {schema.field(found[0]).type}."))
    if problems:
        raise invalid(problems)


def _column_problems(name: str, values: Any) -> list[dict[str, str]]:
    if values.null_count:
        return [mistake(f"#/{name}", f"{values.null_count:,} values are null; every request needs one.")]
    if name == "segment":
        # Before any cast: an unsigned column may hold more than an int64 does.
        least, most = (bound.as_py() for bound in pc.min_max(_decoded(values)).values())
        bad = least < 0 or most > 2**31 - 1
        return [mistake(f"#/{name}", f"Expected 0 to {2**31 - 1}, got {least} to {most}.")] if bad else []
    longest = max((_longest(chunk) for chunk in values.chunks), default=0)
    if longest > MAX_ID_LENGTH:
        return [mistake(f"#/{name}", f"An id has {longest:,} bytes, at most {MAX_ID_LENGTH} are read.")]
    return []


def _longest(chunk: Any) -> int:
    """Bytes of the longest string; of a dictionary, before it is spread over the rows."""
    strings = chunk.dictionary if pt.is_dictionary(chunk.type) else chunk
    return int(pc.max(pc.binary_length(strings)).as_py() or 0)


def _plain(values: Any) -> Any:
    decoded = _decoded(values)
    return decoded.cast(pa.int64()) if pt.is_integer(decoded.type) else decoded.cast(pa.string())


def _decoded(values: Any) -> Any:
    return values.cast(values.type.value_type) if pt.is_dictionary(values.type) else values


def _value_type(kind: Any) -> Any:
    return kind.value_type if pt.is_dictionary(kind) else kind
