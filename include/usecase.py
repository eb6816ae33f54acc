"""A use case: one YAML file, typed, frozen, with every default in the model.

`load` and `find` read files; `parse` reads text. YAML anchors and aliases are refused and size and depth are
capped while composing, before anything is expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from include.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12
NAME = r"^[a-z][a-z0-9_]{0,47}$"
COLUMN = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"
_DURATION = re.compile(r"^\s*(\d+)\s*(us|ms|s|m|h|d|w)\s*$")
_UNITS = {
    "us": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def parse_duration(value: object) -> timedelta:
    """Return a duration such as `30d`, `2h`, `10m`, `0s`.

    Raises:
        ValueError: the text is no duration.
    """
    if isinstance(value, timedelta):
        return value
    if value == 0:
        return timedelta(0)
    match = _DURATION.match(str(value))
    if match is None:
        raise ValueError(f"{value!r} is no duration; write a number and one of us, ms, s, m, h, d, w, such as 30d")
    try:
        return int(match[1]) * _UNITS[match[2]]
    except OverflowError:
        raise ValueError(f"{value!r} is longer than a calendar holds; write a shorter duration") from None


def format_duration(value: timedelta) -> str:
    """Return the shortest text that `parse_duration` reads back."""
    micros = value // timedelta(microseconds=1)
    if micros == 0:
        return "0s"
    for unit in ("w", "d", "h", "m", "s", "ms", "us"):
        size = _UNITS[unit] // timedelta(microseconds=1)
        if micros % size == 0:
            return f"{micros // size}{unit}"
    raise AssertionError("microseconds divide every duration")


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]
Name = Annotated[str, Field(pattern=NAME)]
ColumnName = Annotated[str, Field(pattern=COLUMN)]
Share = Annotated[float, Field(ge=0, le=1)]
ColumnType = Literal["int64", "float64", "string", "bool", "timestamp", "date"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class History(_Strict):
    """First and last partition key; without `last` the history goes on."""

    first: date
    last: date | None = None

    @model_validator(mode="after")
    def _ordered(self) -> History:
        if self.last is not None and self.last < self.first:
            raise ValueError(f"last ({self.last}) is before first ({self.first})")
        return self


class Entity(_Strict):
    """Whom a score is about; `key` is the column that names it in every source and view."""

    name: Name
    key: ColumnName
    type: Literal["int64", "string"] = "int64"


class Column(_Strict):
    """The contract of one source column; `header` is its name in the source where that differs."""

    type: ColumnType
    header: str | None = None
    nullable: bool = True
    min: float | None = None
    max: float | None = None
    values: list[str] | None = Field(default=None, description="The allowed values, as text.")
    regex: str | None = Field(default=None, max_length=200)
    description: str = ""


class SqlQuery(_Strict):
    """A table or query of a database; the SQLAlchemy URL stands in the environment variable `url_env`."""

    url_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
    query: str


class Simulated(_Strict):
    """A stream of the embedded portfolio simulator."""

    stream: Literal["instalments", "contacts", "accounts"]
    customers: int = Field(default=20_000, ge=1)
    concept_shift: int | None = Field(default=None, ge=0, description="Day (from history.first) of an added concept shift.")


class Source(_Strict):
    """One source: where its rows are, what they must look like, and when they can be known."""

    kind: Literal["events", "static"] = "events"
    path: str | None = Field(
        default=None,
        description="Glob or fsspec URI; `{partition}` is the key, `{data_dir}` the setting; "
        "relative paths start at the YAML's folder.",
    )
    sql: SqlQuery | None = None
    simulator: Simulated | None = None
    format: Literal["auto", "csv", "parquet", "jsonl"] = "auto"
    event_time: ColumnName = "event_timestamp"
    arrival: str = Field(default="created_timestamp", description="A column, or `event + DURATION` (an assumption).")
    valid_from: date | None = Field(default=None, description="Static sources: the day from which the first version is known.")
    date_means: Literal["start_of_day", "end_of_day"] = "start_of_day"
    timezone: str = Field(default="UTC", description="Zone of times that carry none.")
    key: list[ColumnName] = Field(min_length=1, description="Columns that name a record; a later row of them corrects it.")
    columns: dict[ColumnName, Column]
    extra: Literal["refuse", "ignore"] = Field(default="refuse", description="What to do with columns that are not declared.")
    empty: Literal["block", "allow"] = "block"
    gaps: Literal["fail", "allow"] = "fail"
    late: Literal["refuse", "next"] = "refuse"
    max_bad: Share = 0.01
    min_rows: int = Field(default=0, ge=0)
    max_rows: int | None = Field(default=None, ge=1)
    history: History | None = None

    @model_validator(mode="after")
    def _whole(self) -> Source:
        given = [name for name in ("path", "sql", "simulator") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of path, sql, simulator (given: {', '.join(given) or 'none'})")
        if self.kind == "static":
            if self.valid_from is None:
                raise ValueError("a static source needs valid_from: the day from which its first version is known")
        elif self.assumed_lag is None and not re.fullmatch(COLUMN, self.arrival):
            raise ValueError(f"arrival {self.arrival!r} is neither a column nor 'event + DURATION'")
        missing = [name for name in self.key if name not in self.columns and name not in self.time_columns]
        if missing:
            raise ValueError(f"key columns {missing} are not among the declared columns {list(self.columns)}")
        return self

    @property
    def assumed_lag(self) -> timedelta | None:
        """The assumed delay of arrival after the event, or None where a column says it."""
        match = re.match(r"^\s*event\s*\+\s*(\S+)\s*$", self.arrival)
        return parse_duration(match[1]) if match else None

    @property
    def time_columns(self) -> list[str]:
        """The source's own columns that hold its event time and its arrival."""
        if self.kind == "static":
            return []
        return [self.event_time] + ([] if self.assumed_lag is not None else [self.arrival])


class Label(_Strict):
    """The outcome: a source column, or SQL over the curated sources."""

    source: Name | None = None
    column: ColumnName | None = None
    label_time: str = Field(
        default="label_timestamp",
        description="Column that says when the outcome was known, or `event + DURATION` (an assumption).",
    )
    sql: str | None = Field(
        default=None,
        description="A .sql file beside feature_repo/sql, or the query: <entity key>, event_timestamp, label_timestamp, label.",
    )
    lookback: Duration = timedelta(days=60)
    delay: Duration
    max_censored: Share = 0.05

    @model_validator(mode="after")
    def _one_way(self) -> Label:
        if (self.sql is None) == (self.source is None):
            raise ValueError("give either source and column, or sql")
        if self.source is not None and self.column is None:
            raise ValueError("a label from a source needs column")
        return self

    @property
    def assumed_lag(self) -> timedelta | None:
        """The assumed delay of the outcome after the decision, or None where a column says it."""
        match = re.match(r"^\s*event\s*\+\s*(\S+)\s*$", self.label_time)
        return parse_duration(match[1]) if match else None


class View(_Strict):
    """One feature view: a snapshot an entity a partition, or one row a source row."""

    grain: Literal["snapshot", "event"] = "snapshot"
    source: Name | None = Field(default=None, description="Event grain without SQL: the columns are taken from this source.")
    sql: str | None = Field(default=None, description="A .sql file under feature_repo/sql, or the query itself.")
    lookback: Duration = timedelta(days=90)
    ttl: Duration = timedelta(days=35)
    columns: dict[ColumnName, Literal["int64", "float64", "string", "bool"]] = Field(min_length=1)
    description: str = ""

    @model_validator(mode="after")
    def _one_way(self) -> View:
        if (self.sql is None) == (self.source is None):
            raise ValueError("give either source (columns taken as they are) or sql")
        if self.source is not None and self.grain != "event":
            raise ValueError("a view straight from a source is of grain event; write sql for a snapshot")
        return self


class Split(_Strict):
    """How mature rows become train, tune and evaluation."""

    by: Literal["auto", "time", "hash"] = "auto"
    tune: Share = 0.2
    evaluation: Share = 0.2


class Training(_Strict):
    """What is trained, on what."""

    exclude: list[ColumnName] = Field(default_factory=list, description="Features kept but not trained on (protected ones).")
    window: Duration | None = Field(default=None, description="Only decisions so long before as_of; None: all.")
    max_rows: int = Field(default=400_000, ge=100)
    split: Split = Split()
    rounds: int = Field(default=300, ge=1)
    early_stopping: int = Field(default=30, ge=1)
    params: dict[str, float | int | str | bool] = Field(default_factory=dict, description="LightGBM parameters.")
    seed: int = 7


class Gates(_Strict):
    """What a candidate must reach; a missing number or NaN is a hold."""

    min_rows: int = Field(default=500, ge=1, description="Mature rows of each class, in the evaluation part.")
    min_auc: float = Field(default=0.6, ge=0, le=1)
    max_calibration_error: float = Field(default=0.05, ge=0, le=1)
    over_baseline: float = Field(default=0.0, description="AUC by which the candidate must beat the logistic yardstick.")
    margin: float = Field(default=0.01, ge=0, description="Loss of AUC against the opponent that is tolerated.")
    max_feature_auc: float = Field(default=0.98, ge=0.5, le=1, description="A single feature above it is a leak.")


class Fallback(_Strict):
    """What the node does where it has no, or only stale, features."""

    unknown: Literal["refuse", "score"] = "refuse"
    stale: Literal["refuse", "score"] = "refuse"


class Decision(_Strict):
    """How a score becomes a decision."""

    threshold: float = Field(default=0.5, ge=0, le=1)
    at_or_above: str = "accept"
    below: str = "refer"


class Monitoring(_Strict):
    """Limits of the drift check."""

    psi: float = Field(default=0.2, gt=0)
    sample: int = Field(default=20_000, ge=100, description="Rows of the reference kept with a model.")
    report_rows: int = Field(default=5_000, ge=100)


class Wait(_Strict):
    """How long a stage waits for partitions that are coming."""

    transit: Duration = timedelta(minutes=10)
    deadline: Duration = timedelta(hours=6)


class UseCase(_Strict):
    """One use case; see docs/how-to/own-data.md."""

    name: Name
    title: str = ""
    owner: str = "ml-engineering"
    cadence: Literal["day", "week", "month"] = "day"
    cut_off: Duration = timedelta(0)
    availability: Duration = timedelta(0)
    history: History
    entity: Entity
    sources: dict[Name, Source] = Field(min_length=1)
    label: Label
    features: dict[Name, View] = Field(min_length=1)
    training: Training = Training()
    gates: Gates = Gates()
    decision: Decision = Decision()
    fallback: Fallback = Fallback()
    monitoring: Monitoring = Monitoring()
    wait: Wait = Wait()
    folder: Path = Field(default=Path("."), exclude=True, description="Folder of the YAML; set by the loader.")

    @model_validator(mode="after")
    def _consistent(self) -> UseCase:
        for where, name in [("label.source", self.label.source)] + [
            (f"features.{view}.source", spec.source) for view, spec in self.features.items()
        ]:
            if name is not None and name not in self.sources:
                raise ValueError(f"{where}: there is no source {name!r}; sources are {sorted(self.sources)}")
        histories = {"history": self.history} | {f"sources.{name}.history": spec.history for name, spec in self.sources.items()}
        for where, history in histories.items():
            for end in ("first", "last"):
                day = getattr(history, end, None)
                if day is not None and day != (right := period_start(self.cadence, day)):
                    raise ValueError(f"{where}.{end}: {day} lies inside a {self.cadence}; write its key, {right}")
        seen: dict[str, str] = {}
        for view, spec in self.features.items():
            for column in spec.columns:
                if column in seen:
                    raise ValueError(f"feature {column!r} stands in the views {seen[column]!r} and {view!r}; rename one")
                if column in (self.entity.key, "event_timestamp", "created_timestamp", "label", "label_timestamp"):
                    raise ValueError(f"features.{view}: {column!r} is an id, a time or the label, never a feature")
                if spec.source == self.label.source and self.label.column == column and spec.source is not None:
                    raise ValueError(f"features.{view}: {column!r} is the label; it would leak the outcome")
                seen[column] = view
        unknown = [name for name in self.training.exclude if name not in seen]
        if unknown:
            raise ValueError(f"training.exclude names {unknown}, which no view has")
        return self

    @property
    def feature_types(self) -> dict[str, str]:
        """All features, in order of the views, with their types."""
        return {name: kind for view in self.features.values() for name, kind in view.columns.items()}

    @property
    def trained_features(self) -> list[str]:
        """The features that a model reads, in order."""
        return [name for name in self.feature_types if name not in self.training.exclude]


def parse(text: str, *, where: str = "use case", folder: Path = Path(".")) -> UseCase:
    """Read one use case from YAML text.

    Raises:
        ConfigError: with the file, the line, what is wrong and what would be right.
    """
    data, where_is = _compose(text, where)
    try:
        return UseCase.model_validate({**data, "folder": folder})
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error, where, where_is))) from None


def lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line on which each field of a use case's YAML stands, by its path."""
    return _compose(text, "use case")[1]


def load(path: Path) -> UseCase:
    """Read one use case file; its name must be that of the use case."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES // 1024} KB; a use case is a page of YAML, keep SQL in .sql files")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error}); check the path and its permissions") from error
    use_case = parse(text, where=str(path), folder=path.parent.resolve())
    if use_case.name != path.stem:
        raise ConfigError(f"{path}: name is {use_case.name!r}; call the file {use_case.name}.yaml, or change the name")
    return use_case


def files(folders: list[Path]) -> Iterator[Path]:
    """Yield the use case files of the folders, in order of their names."""
    for folder in folders:
        yield from sorted(folder.glob("*.yaml"))


def find(name: str, folders: list[Path]) -> UseCase:
    """Return the use case `name` from the first folder that has it.

    Raises:
        ConfigError: no folder has it; the message lists what there is.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"{name!r} is no use case name; names match {NAME}")
    for folder in folders:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return _load_cached(path, path.stat().st_mtime_ns)
    known = sorted(path.stem for path in files(folders))
    raise ConfigError(f"no use case {name!r}; there are {known}. Add {name}.yaml to one of {[str(f) for f in folders]}")


@lru_cache(maxsize=64)
def _load_cached(path: Path, _changed: int) -> UseCase:
    return load(path)


class _Loader(yaml.SafeLoader):
    """SafeLoader that leaves dates to pydantic and never expands an alias."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in resolvers if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _compose(text: str, where: str) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """Return the mapping and the line of every path in it, refusing what could expand before it does."""
    if len(text.encode()) > MAX_BYTES:
        raise ConfigError(f"{where}: larger than {MAX_BYTES // 1024} KB; a use case is a page of YAML")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise ConfigError(f"{where}, line {line}: anchors (&) and aliases (*) are refused; write the value out")
            if getattr(event, "tag", None):
                raise ConfigError(f"{where}, line {line}: tags (!) are refused; write the plain value")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ConfigError(f"{where}, line {line}: nested deeper than {MAX_DEPTH} levels")
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise ConfigError(f"{where}: must be a mapping that begins with `name: ...`")
            lines: dict[tuple[str, ...], int] = {}
            _walk(node, (), lines, where)
            data = _named(loader.construct_document(node), where)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{at}: not valid YAML ({getattr(error, 'problem', None) or error})") from None
    except ValueError as error:  # YAML's own numbers, such as `0b_` or one of ten thousand digits
        raise ConfigError(f"{where}: a value looks like a number but is none ({error}); put it in quotes") from None
    return data, lines


def _named(data: dict[Any, Any], where: str) -> dict[str, Any]:
    """Refuse keys that YAML did not read as text, such as `1:` or `on:`, at any depth."""
    waiting: list[Any] = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            wrong = [key for key in value if not isinstance(key, str)]
            if wrong:
                raise ConfigError(f"{where}: the key {wrong[0]!r} is no text; put it in quotes, or correct it")
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return data


def _walk(node: yaml.Node, path: tuple[str, ...], lines: dict[tuple[str, ...], int], where: str) -> None:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            if here in lines:
                raise ConfigError(f"{where}, line {key.start_mark.line + 1}: {key.value!r} stands twice; keep one")
            _walk(value, here, lines, where)
            lines[here] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, str(index)), lines, where)


def _explain(error: ValidationError, where: str, lines: dict[tuple[str, ...], int]) -> Iterator[str]:
    for problem in error.errors():
        path = tuple(str(part) for part in problem["loc"])
        told = re.match(r"Value error, ((?:\w+\.)*\w+)", problem["msg"])
        known = path or (tuple(told[1].split(".")) if told else ())
        while known and known not in lines:
            known = known[:-1]
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "is not a known field; see `evergreen usecase schema`, or remove the line"
        elif problem["type"] == "missing":
            message = "is missing; add it"
        yield f"{where}, line {lines.get(known, 1)}: {'.'.join(path) or 'use case'}: {message}"


def period_start(cadence: str, day: date) -> date:
    """Return the first day of the day's period: the day itself, its Monday, or the first of its month."""
    if cadence == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if cadence == "month" else day


def midnight(day: date) -> datetime:
    """Return 00:00 UTC of a day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
