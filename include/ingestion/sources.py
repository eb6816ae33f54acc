"""Readers of the sources that a use case declares: files, SQL, the simulator. Values come as text, columns by their names.

Files are opened by a child process (`file_worker`); local ones must lie in the folder of the use case or in the data folder.
What a read gives is a `Delivery`: text columns under their declared names, `source_file` and `source_row`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from include.config.names import ROWS, is_ours
from include.config.settings import ROOT, Settings
from include.config.use_case import UseCase
from include.config.use_case_sources import Source
from include.errors import ConfigError, SourceError
from include.ingestion.sql_source import read_sql
from include.point_in_time.partitions import Period

FILE, ROW, ARRIVED, MALFORMED = "source_file", "source_row", "arrived_at", "malformed"
REDRIVEN = "redriven://"  # begins the `source_file` of a row that comes out of quarantine; no file's name can begin so
LATE = "late://"  # begins the `source_file` of a late row: `late://PARTITION/FILE`, the closed partition that it belongs to
FILE_SECONDS = 900.0
MAX_FILES = 20_000
_LOCAL_SCHEMES = ("file", "local", "dir", "zip", "tar", "simplecache", "filecache", "blockcache", "reference")
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

    `ordered`: rows stand in the order in which they were written; `files`: their row numbers are those of a file.
    """

    rows: pa.Table
    headers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    ordered: bool = True
    files: bool = True


def partitioned(source: Source) -> bool:
    """Tell whether each partition of the source has files of its own."""
    return source.path is not None and "{partition}" in source.path


def headers(source: Source) -> dict[str, str]:
    """Return the header in the source of every column that is needed, with the name that it gets."""
    named = {column.header or name: name for name, column in source.columns.items()}
    for name in [*source.time_columns, *source.key]:
        if name not in named.values():
            named[name] = name
    taken = [name for name in named.values() if is_ours(name, ROWS)]
    if taken:
        raise ConfigError(
            f"column names {taken} are taken by Evergreen; give the columns another name and say header: {taken[0]}"
        )
    return named


def read(name: str, use_case: UseCase, settings: Settings, reader: FileReader, periods: Sequence[Period]) -> Delivery:
    """Return the rows of a source that may belong to the given periods (in order): a superset, where the source cannot say.

    Raises:
        SourceError: it cannot be reached or read; the message names the file and the place.
    """
    source = use_case.sources[name]
    if source.simulator is not None:
        from include.simulation import arrivals

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
        return Delivery(_named(source, made, origin), {origin: tuple(made.column_names)}, digests, files=False)
    if source.sql is not None:
        found = read_sql(name, use_case, periods)
        found = found.sort_by([(column, "ascending") for column in found.column_names])
        origin = f"sql:{name}"
        named = _named(source, found, origin)
        return Delivery(named, {origin: tuple(found.column_names)}, {origin: source.sql.query}, ordered=False, files=False)
    parts, seen, digests = [], {}, {}
    for shown, path in files_of(name, use_case, settings, periods[0].key, reader):
        answer, table = reader.read(path, shown, _kind(source, path, name), list(headers(source)), dialect(source))
        digests[shown] = answer["sha256"]
        if answer["columns"]:
            seen[shown] = tuple(answer["columns"])
            parts.append(_text(source, table, seen[shown], shown))
    rows = pa.concat_tables(parts, promote_options="default") if parts else pa.table({})
    return Delivery(rows, seen, digests)


def stamps(name: str, use_case: UseCase, settings: Settings, key: str, reader: FileReader) -> dict[str, str]:
    """Return size and time of a partition's files, none of them opened or fetched, by the names that are shown."""
    pattern = (use_case.sources[name].path or "").replace("{partition}", key)
    if "://" in pattern.removeprefix("{data_dir}/"):
        where = f"{use_case.name}, source {name}: path {use_case.sources[name].path!r}"
        return {shown: stamp for shown, _, stamp in _offered(pattern, where)[1]}
    files = [(shown, path.stat()) for shown, path in files_of(name, use_case, settings, key, reader)]
    return {shown: f"{told.st_size}:{told.st_mtime_ns}" for shown, told in files}


def dialect(source: Source) -> dict[str, Any]:
    """Return what a source declares about how its CSV is written."""
    return {name: getattr(source, name) for name in ("separator", "header", "skip", "escape", "encoding")}


def simulated(source: Source, use_case: UseCase, settings: Settings) -> dict[str, str]:
    """Return the digest of a simulated source, from which (and the simulator's code) all its rows follow."""
    assert source.simulator is not None
    told = f"{settings.seed}:{use_case.history.first}:{source.simulator.model_dump_json()}"
    return {f"simulator:{source.simulator.stream}": told}


class FileReader:
    """The child process that opens foreign files: started with the first file, used for all, ended with the block."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._count = 0

    def __enter__(self) -> FileReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """A temporary folder that lives as long as the reader."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="evergreen-read-"))
        return self._folder

    def read(
        self, path: Path, shown: str, kind: str, declared: list[str], dialect: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], pa.Table]:
        """Have the child turn a file into text columns c0, c1, ...; return its answer and the rows.

        Without a dialect, that of a CSV is guessed; the answer says what it is.

        Raises:
            SourceError: the file is damaged, hostile, or killed the child.
        """
        self._count += 1
        out = self.folder / f"{self._count}.arrow"
        request: dict[str, Any] = {
            "path": str(path),
            "kind": kind,
            "declared": declared,
            "out": str(out),
            "temporary": str(self.folder),
        }
        request["dialect"] = dialect
        answer = self._ask(request, shown)
        if "error" in answer:
            raise SourceError(f"{shown}: {answer['error']}")
        if not answer["columns"]:
            return answer, pa.table({})
        with pa.memory_map(str(out)) as file:
            table = pa.ipc.open_file(file).read_all()
        out.unlink()  # the pages stay mapped for as long as the table lives
        return answer, table

    def _ask(self, request: dict[str, Any], shown: str) -> dict[str, Any]:
        child = self._child or self._start()
        stdin, stdout = child.stdin, child.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            ready = select.select([stdout], [], [], FILE_SECONDS)[0]
            line = stdout.readline() if ready else b""
        except BrokenPipeError:
            line, ready = b"", [stdout]
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._stop()
        if not ready:
            raise SourceError(f"{shown}: was not read within {FILE_SECONDS:.0f} s; split it into smaller files")
        raise SourceError(
            f"{shown}: the reader died on it (exit {child.returncode}): damage in the file, or its limits of memory and time; "
            "export it again, or split it"
        )

    def _start(self) -> subprocess.Popen[bytes]:
        kept = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "include.ingestion.file_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            env={**environment, "PYTHONPATH": str(ROOT), "TZ": "UTC", "PYTHONUTF8": "1", "PYTHONNOUSERSITE": "1"},
        )
        return self._child

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
        try:
            child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


def files_of(name: str, use_case: UseCase, settings: Settings, key: str, reader: FileReader) -> list[tuple[str, Path]]:
    """Return the files of a source, each with the name that is shown and kept, sorted by it."""
    pattern = (use_case.sources[name].path or "").replace("{partition}", key)
    where = f"{use_case.name}, source {name}: path {use_case.sources[name].path!r}"
    plain = pattern.removeprefix("{data_dir}/")
    if any(part == ".." for part in re.split(r"[/\\]", plain)) or re.search(r"[\\%\0{}~]|::", plain):
        raise SourceError(
            f"{where} is refused: no '..', backslash, '%', '~', '::', NUL, or placeholder other than {{partition}}, {{data_dir}}"
        )
    if "://" in plain:
        return _remote(plain, where, reader)
    base = (settings.data_dir if plain != pattern else use_case.folder).resolve()
    if Path(plain).is_absolute() and not Path(plain).is_relative_to(base):
        raise SourceError(
            f"{where} is refused: it leaves {base}; put the data beside the YAML, or set EVERGREEN_DATA_DIR and write "
            "{data_dir}/ before it"
        )
    relative = str(Path(plain).relative_to(base)) if Path(plain).is_absolute() else plain
    if base.is_dir() and relative.endswith("/"):
        relative += "*"
    if (base / relative).is_dir():
        relative += "/*"
    found = sorted(base.glob(relative)) if base.is_dir() else []
    named = set(Path(relative).parts)  # what the path itself names is wanted, whatever it begins with
    found = [path for path in found if not any(_passed_over(part) for part in path.relative_to(base).parts if part not in named)]
    if len(found) > MAX_FILES:
        raise SourceError(f"{where} matches {len(found)} files; at most {MAX_FILES} are read: use {{partition}} in the path")
    for path in found:
        try:
            real = path.resolve(strict=True)
            mode = real.stat().st_mode
        except (OSError, RuntimeError) as error:
            raise SourceError(f"{path.relative_to(base)}: cannot be read ({error}); mend the link or the permissions") from None
        if not real.is_relative_to(base):
            raise SourceError(f"{path.relative_to(base)}: is a link that leaves {base}; put the file itself there")
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise SourceError(f"{path.relative_to(base)}: is no regular file; remove it from the folder")
        if not os.access(real, os.R_OK):
            raise SourceError(f"{path.relative_to(base)}: may not be read; mend its permissions")
    files = [(str(path.relative_to(base)), path) for path in found if path.is_file()]
    if not files and not partitioned(use_case.sources[name]):
        raise SourceError(f"{where} matches no file in {base}; put the file there, or mend the path")
    return files


def _passed_over(part: str) -> bool:
    """Tell whether a file or folder is what a writer leaves beside its parts, such as `_SUCCESS`, `_delta_log` or `.crc`."""
    return part.startswith((".", "_"))


def _remote(pattern: str, where: str, reader: FileReader) -> list[tuple[str, Path]]:
    """Fetch the files of a URI into the reader's folder."""
    system, found = _offered(pattern, where)
    files = []
    try:
        for index, (shown, match, _) in enumerate(found):
            target = reader.folder / f"remote-{index}-{re.sub(r'[^A-Za-z0-9._-]', '_', Path(match).name)}"
            system.get_file(match, str(target))
            files.append((shown, target))
    except (OSError, ValueError) as error:
        raise _away(where, error) from None
    if not files and "{partition}" not in where:
        raise SourceError(f"{where} matches no file; check the address")
    return files


def _offered(pattern: str, where: str) -> tuple[Any, list[tuple[str, str, str]]]:
    """Return the file system of a URI, and of each file that it names the shown name, the path, and size with time."""
    import fsspec

    scheme = pattern.partition("://")[0]
    if scheme in _LOCAL_SCHEMES:
        raise SourceError(f"{where} is refused: write local files as a plain path beside the YAML")
    try:
        system, path = fsspec.core.url_to_fs(pattern)
        matches = sorted(system.glob(path)) if re.search(r"[*?\[]", path) else [path] if system.exists(path) else []
        matches = [match for match in matches if match == path or not _passed_over(match.rsplit("/", 1)[-1])]
        told = [(match, system.info(match)) for match in matches[: MAX_FILES + 1]]
    except (OSError, ValueError, ImportError) as error:
        raise _away(where, error) from None
    # Each system names the time of a file's last change otherwise; one that names none is told apart by its size alone.
    times = ("mtime", "LastModified", "last_modified", "updated", "ETag", "etag", "created")
    return system, [
        (f"{scheme}://{match.lstrip('/')}", match, f"{info.get('size')}:{[str(info[name]) for name in times if name in info]}")
        for match, info in told
    ]


def _away(where: str, error: Exception) -> SourceError:
    return SourceError(f"{where} cannot be reached ({type(error).__name__}: {error}); check the address and its credentials")


def _kind(source: Source, path: Path, name: str) -> str:
    if source.format != "auto":
        return source.format
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    kind = _KINDS.get(suffixes[-1].lower()) if suffixes else None
    if kind is None:
        raise SourceError(f"{path.name}: its ending says no format; write format: csv, parquet or jsonl in sources.{name}")
    return kind


def _text(source: Source, table: pa.Table, header: tuple[str, ...], shown: str) -> pa.Table:
    """Give the child's columns their names."""
    columns = {name: table.column(f"c{index}") for index, name in enumerate(header)}
    named = _named(source, pa.table(columns), shown).drop_columns([ROW])
    if MALFORMED in table.column_names:
        named = named.append_column(MALFORMED, table.column(MALFORMED))
    return named.append_column(ROW, table.column("row"))


def _named(source: Source, table: pa.Table, shown: str) -> pa.Table:
    """Return text columns under their declared names (undeclared ones under a plain form of their own), with file and row."""
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
    out[FILE] = pa.DictionaryArray.from_arrays(pa.array([0] * len(table), pa.int32()), pa.array([shown])).cast(pa.string())
    out[ROW] = pa.array(range(1, len(table) + 1), pa.int64())
    return pa.table(out)
