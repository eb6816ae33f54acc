"""Readers of the sources that a use case declares: files, SQL, the simulator.

Files are opened by a child process (`file_worker`); local ones must lie in the folder of the use
case or in the data folder. What a read gives is a `Delivery`: every value as text, columns under
their declared names, with `source_file` and `source_row`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from include.config.names import ROWS
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.errors import SourceError
from include.ingestion.columns import FILE, MALFORMED, ROW, headers
from include.ingestion.file_reader import FileReader
from include.ingestion.files import describe_path, files_of
from include.ingestion.formats import ENDINGS, kind_of
from include.ingestion.remote_files import list_remote_files
from include.ingestion.row_digests import with_row_digest
from include.ingestion.sql_source import read_sql
from include.point_in_time.partitions import Period


@dataclass(frozen=True)
class Delivery:
    """The rows of one read; `headers` and `digests` are by file.

    `ordered`: rows stand in the order in which they were written. `files`: their row numbers are
    those of a file.
    """

    rows: pa.Table
    headers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    ordered: bool = True
    files: bool = True


def read_source(
    name: str, use_case: UseCase, settings: Settings, reader: FileReader, periods: Sequence[Period]
) -> Delivery:
    """Return the rows of a source that may belong to the given periods, which stand in order.

    It is a superset where the source cannot say to which one a row belongs.

    Raises:
        SourceError: it cannot be reached or read; the message names the file and the place.
    """
    delivery = _read(name, use_case, settings, reader, periods)
    column = use_case.sources[name].row_digest
    if column is None:
        return delivery
    # Here, where every copy of a row is in sight: its number is part of the key.
    return replace(delivery, rows=with_row_digest(delivery.rows, column, use_case, name))


def _read(
    name: str, use_case: UseCase, settings: Settings, reader: FileReader, periods: Sequence[Period]
) -> Delivery:
    """Return the rows of a source as they were delivered."""
    source = use_case.sources[name]
    if source.simulator is not None:
        return _simulate(source, use_case, settings, periods)
    if source.sql is not None:
        return _query(name, source, use_case, periods)
    parts, header_by_file, digests = [], {}, {}
    for shown, path in files_of(name, use_case, settings, periods[0].key, reader):
        answer, table = reader.read(
            path,
            shown,
            _kind(source, path, name),
            list(headers(source)),
            dialect_of(source),
            sheet=source.sheet,
            member=source.member,
        )
        digests[shown] = answer["sha256"]
        if answer["columns"]:
            header_by_file[shown] = tuple(answer["columns"])
            parts.append(_with_names(source, table, header_by_file[shown], shown))
    rows = pa.concat_tables(parts, promote_options="default") if parts else pa.table({})
    return Delivery(rows, header_by_file, digests)


def stamps_of(
    name: str, use_case: UseCase, settings: Settings, key: str, reader: FileReader
) -> dict[str, str]:
    """Return size and time of a partition's files by their shown names, opening none of them."""
    pattern = (use_case.sources[name].path or "").replace("{partition}", key)
    if "://" in pattern.removeprefix("{data_dir}/"):
        _, remote = list_remote_files(pattern, describe_path(name, use_case))
        return {file.shown: file.stamp for file in remote}
    files = [
        (shown, path.stat()) for shown, path in files_of(name, use_case, settings, key, reader)
    ]
    return {shown: f"{status.st_size}:{status.st_mtime_ns}" for shown, status in files}


def dialect_of(source: Source) -> dict[str, Any]:
    """Return what a source declares about how its CSV is written."""
    return {
        name: getattr(source, name)
        for name in ("separator", "header", "skip", "escape", "encoding", "quote")
    }


def simulator_digest(source: Source, use_case: UseCase, settings: Settings) -> dict[str, str]:
    """Return what a simulated source's rows follow from, beside the simulator's code."""
    assert source.simulator is not None
    seed = f"{settings.seed}:{use_case.history.first}:{source.simulator.model_dump_json()}"
    return {f"simulator:{source.simulator.stream}": seed}


def _simulate(
    source: Source, use_case: UseCase, settings: Settings, periods: Sequence[Period]
) -> Delivery:
    from include.simulation.streams import arrivals

    assert source.simulator is not None
    rows = arrivals(
        source.simulator.stream,
        periods[0].arrival_start,
        periods[-1].as_of,
        seed=settings.seed,
        customers=source.simulator.customers,
        start=use_case.history.first,
        concept_shift=source.simulator.concept_shift,
    )
    digests = simulator_digest(source, use_case, settings)
    (origin,) = digests
    return Delivery(
        _as_text(source, rows, origin), {origin: tuple(rows.column_names)}, digests, files=False
    )


def _query(name: str, source: Source, use_case: UseCase, periods: Sequence[Period]) -> Delivery:
    assert source.sql is not None
    rows = read_sql(name, use_case, periods)
    # A database gives rows in any order: sorted, equal rows get equal numbers.
    rows = rows.sort_by([(column, "ascending") for column in rows.column_names])
    origin = f"sql:{name}"
    return Delivery(
        _as_text(source, rows, origin),
        {origin: tuple(rows.column_names)},
        {origin: source.sql.query},
        ordered=False,
        files=False,
    )


def _kind(source: Source, path: Path, name: str) -> str:
    """Return the format of a file: as declared, else by its ending."""
    if source.format != "auto":
        return source.format
    kind = kind_of(path.name)
    if kind is None:
        raise SourceError(
            f"{path.name}: its ending says no format; write format: csv, parquet, jsonl, json, "
            f"xlsx, arff or feather in sources.{name}. Endings are {ENDINGS}"
        )
    return kind


def _with_names(source: Source, table: pa.Table, header: tuple[str, ...], shown: str) -> pa.Table:
    """Return the rows that the child process read under the names of their columns c0, c1, ..."""
    columns = {name: table.column(f"c{index}") for index, name in enumerate(header)}
    rows = _as_text(source, pa.table(columns), shown).drop_columns([ROW])
    if MALFORMED in table.column_names:
        rows = rows.append_column(MALFORMED, table.column(MALFORMED))
    return rows.append_column(ROW, table.column("row"))


def _as_text(source: Source, table: pa.Table, shown: str) -> pa.Table:
    """Return rows as text columns under their declared names, with file and row number.

    An undeclared column goes by a plain form of its own name.
    """
    names = headers(source)
    out: dict[str, pa.ChunkedArray] = {}
    # In lower case: DuckDB takes names that differ by case alone for one.
    taken = {name.lower() for name in [*names.values(), *source.columns, *ROWS]}
    for index, header in enumerate(table.column_names):
        name = names.get(header)
        if name is None:
            # Letters, digits and underscores alone, 60 characters: a name that every engine takes.
            name = plain = re.sub(r"\W", "_", header, flags=re.ASCII)[:60] or "_"
            if plain[0].isdigit() or plain.lower() in taken:
                name = plain = f"extra_{plain}"
            while name.lower() in taken:
                name = f"{plain}_{index + 1}"
            taken.add(name.lower())
        column = table.column(index)
        out[name] = column if pa.types.is_string(column.type) else column.cast(pa.string())
    out[FILE] = pa.repeat(pa.scalar(shown, pa.string()), len(table))
    out[ROW] = pa.array(np.arange(1, len(table) + 1), pa.int64())
    return pa.table(out)
