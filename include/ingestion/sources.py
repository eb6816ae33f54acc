"""Readers of the sources that a use case declares: files, SQL, the simulator.

Values come as text, columns by their names.

Files are opened by a child process (`file_worker`); local ones must lie in the folder of the use
case or in the data folder. What a read gives is a `Delivery`: text columns under their declared
names, `source_file` and `source_row`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.config.names import ROWS
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.errors import SourceError
from include.ingestion.columns import FILE, MALFORMED, ROW, headers
from include.ingestion.file_reader import FileReader
from include.ingestion.files import _offered, files_of
from include.ingestion.sql_source import read_sql
from include.point_in_time.partitions import Period

_KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "csv",
    ".data": "csv",
    ".dat": "csv",
    ".asc": "csv",
    ".test": "csv",
    ".train": "csv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}


@dataclass(frozen=True)
class Delivery:
    """The rows of one read. `headers` and `digests` are by file.

    `ordered`: rows stand in the order in which they were written; `files`: their row numbers are
    those of a file.
    """

    rows: pa.Table
    headers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    ordered: bool = True
    files: bool = True


def read(
    name: str, use_case: UseCase, settings: Settings, reader: FileReader, periods: Sequence[Period]
) -> Delivery:
    """Return the rows of a source that may belong to the given periods (in order): a superset,
    where the source cannot say.

    Raises:
        SourceError: it cannot be reached or read; the message names the file and the place.
    """
    source = use_case.sources[name]
    if source.simulator is not None:
        from include.simulation.streams import arrivals

        made = arrivals(
            source.simulator.stream,
            periods[0].arrival_start,
            periods[-1].as_of,
            seed=settings.seed,
            customers=source.simulator.customers,
            start=use_case.history.first,
            concept_shift=source.simulator.concept_shift,
        )
        digests = simulated(source, use_case, settings)
        (origin,) = digests
        return Delivery(
            _named(source, made, origin), {origin: tuple(made.column_names)}, digests, files=False
        )
    if source.sql is not None:
        found = read_sql(name, use_case, periods)
        found = found.sort_by([(column, "ascending") for column in found.column_names])
        origin = f"sql:{name}"
        named = _named(source, found, origin)
        return Delivery(
            named,
            {origin: tuple(found.column_names)},
            {origin: source.sql.query},
            ordered=False,
            files=False,
        )
    parts, seen, digests = [], {}, {}
    for shown, path in files_of(name, use_case, settings, periods[0].key, reader):
        answer, table = reader.read(
            path, shown, _kind(source, path, name), list(headers(source)), dialect(source)
        )
        digests[shown] = answer["sha256"]
        if answer["columns"]:
            seen[shown] = tuple(answer["columns"])
            parts.append(_text(source, table, seen[shown], shown))
    rows = pa.concat_tables(parts, promote_options="default") if parts else pa.table({})
    return Delivery(rows, seen, digests)


def stamps(
    name: str, use_case: UseCase, settings: Settings, key: str, reader: FileReader
) -> dict[str, str]:
    """Return size and time of a partition's files, none of them opened or fetched, by the names
    that are shown.
    """
    pattern = (use_case.sources[name].path or "").replace("{partition}", key)
    if "://" in pattern.removeprefix("{data_dir}/"):
        where = f"{use_case.name}, source {name}: path {use_case.sources[name].path!r}"
        return {shown: stamp for shown, _, stamp in _offered(pattern, where)[1]}
    files = [
        (shown, path.stat()) for shown, path in files_of(name, use_case, settings, key, reader)
    ]
    return {shown: f"{told.st_size}:{told.st_mtime_ns}" for shown, told in files}


def dialect(source: Source) -> dict[str, Any]:
    """Return what a source declares about how its CSV is written."""
    return {
        name: getattr(source, name)
        for name in ("separator", "header", "skip", "escape", "encoding")
    }


def simulated(source: Source, use_case: UseCase, settings: Settings) -> dict[str, str]:
    """Return the digest of a simulated source, from which (and the simulator's code) all its
    rows follow.
    """
    assert source.simulator is not None
    told = f"{settings.seed}:{use_case.history.first}:{source.simulator.model_dump_json()}"
    return {f"simulator:{source.simulator.stream}": told}


def _kind(source: Source, path: Path, name: str) -> str:
    if source.format != "auto":
        return source.format
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    kind = _KINDS.get(suffixes[-1].lower()) if suffixes else None
    if kind is None:
        raise SourceError(
            f"{path.name}: its ending says no format; write format: csv, parquet or jsonl in "
            f"sources.{name}"
        )
    return kind


def _text(source: Source, table: pa.Table, header: tuple[str, ...], shown: str) -> pa.Table:
    """Give the child's columns their names."""
    columns = {name: table.column(f"c{index}") for index, name in enumerate(header)}
    named = _named(source, pa.table(columns), shown).drop_columns([ROW])
    if MALFORMED in table.column_names:
        named = named.append_column(MALFORMED, table.column(MALFORMED))
    return named.append_column(ROW, table.column("row"))


def _named(source: Source, table: pa.Table, shown: str) -> pa.Table:
    """Return text columns under their declared names (undeclared ones under a plain form of
    their own), with file and row.
    """
    known = headers(source)
    out: dict[str, pa.ChunkedArray] = {}
    taken = {name.lower() for name in [*known.values(), *ROWS]}
    for index, header in enumerate(table.column_names):
        name = known.get(header)
        if name is None:
            name = plain = re.sub(r"\W", "_", header, flags=re.ASCII)[:60] or "_"
            if plain[0].isdigit() or plain.lower() in taken:
                name = plain = f"extra_{plain}"
            while name.lower() in taken:
                name = f"{plain}_{index + 1}"
            taken.add(name.lower())
        column = table.column(index)
        out[name] = column if pa.types.is_string(column.type) else column.cast(pa.string())
    out[FILE] = pa.DictionaryArray.from_arrays(
        pa.array([0] * len(table), pa.int32()), pa.array([shown])
    ).cast(pa.string())
    out[ROW] = pa.array(range(1, len(table) + 1), pa.int64())
    return pa.table(out)
