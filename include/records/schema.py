"""Declare the tables of the records, and column types that make both databases answer alike."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import PurePath
from typing import Any, TypeVar

from sqlalchemy import BigInteger, DateTime, Dialect, Float, Index, Integer, Text, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.types import TypeDecorator

HEAD = "0009"  # the newest revision in records/migrations
VERSION_TABLE = "evergreen_version"

R = TypeVar("R", bound="Base")
T = TypeVar("T")


def to_json(value: object, *, sort: bool = False) -> str:
    """Return a value as ASCII JSON; NaN and infinities become null.

    PostgreSQL and most readers of JSON know no such numbers.
    """
    return json.dumps(_finite(value), sort_keys=sort, separators=(",", ":"), allow_nan=False)


def json_digest(value: object) -> str:
    """Return the SHA-256 of a value as JSON: the same before it is stored and after it is read."""
    return "sha256:" + hashlib.sha256(to_json(value, sort=True).encode()).hexdigest()


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [
            _finite(item)
            for item in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)
        ]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    item = getattr(value, "item", None)  # a numpy scalar
    return _finite(item()) if callable(item) else value


def words(value: str) -> str:
    """Return text that both databases can hold: no NUL, no lone surrogate."""
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


class Utc(TypeDecorator[datetime]):
    """An instant, in UTC; a naive datetime is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; records hold UTC, pass an aware datetime")
        return value if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """A JSON value as text: the same bytes on every database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: object, dialect: Dialect) -> str:
        return to_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class Words(TypeDecorator[str]):
    """Free text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else words(value)


class Base(DeclarativeBase):
    """All tables; instants are UTC, free text and JSON are safe for both databases."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own declaration
        str: Words,
        int: BigInteger().with_variant(Integer, "sqlite"),
        float: Float(53),
        datetime: Utc,
        dict[str, Any]: Json,
        list[Any]: Json,
        list[str]: Json,
        list[list[str]]: Json,
    }


class PartitionRow(Base):
    """What a partition is meant for; `at` is when that was last raised."""

    __tablename__ = "partitions"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    mode: Mapped[str]
    target: Mapped[str]
    actor: Mapped[str]
    at: Mapped[datetime]


class LeaseRow(Base):
    """Who holds a (use case, stage, key); the row stays, so that its token goes on rising."""

    __tablename__ = "leases"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[int]
    claim: Mapped[str | None]  # the claim that holds it; None: free
    owner: Mapped[str]
    attempt: Mapped[int]
    host: Mapped[str]
    pid: Mapped[int]
    started: Mapped[str]  # of the process, as `liveness.process_start` tells it
    ttl: Mapped[float]
    clock: Mapped[str]  # whose clock `beat` is read from
    beat: Mapped[float]  # the last sign of life, in seconds of that clock
    beat_at: Mapped[datetime | None]  # the same by the wall clock, for after a reboot


class ResultRow(Base):
    """What a stage came to for a partition."""

    __tablename__ = "results"
    __table_args__ = (Index("results_by_stage", "use_case", "stage", "key"),)
    use_case: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    digest: Mapped[str]
    reason: Mapped[str]
    outputs: Mapped[dict[str, Any]]
    # Triples; of a long list the digests of its blocks, which stand in `reads`.
    reads: Mapped[list[Any]]
    memo_key: Mapped[str]
    mode: Mapped[str]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime]
    seconds: Mapped[float]
    git_commit: Mapped[str]
    token: Mapped[int]


class ReadsRow(Base):
    """A block of triples (table, key, digest) that several results have read."""

    __tablename__ = "reads"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)
    reads: Mapped[list[list[str]]]


class AuditRow(Base):
    """An entry of the audit log; its hash is over all other columns and the hash before."""

    __tablename__ = "audit"
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[str]  # ISO text: what is hashed is what is stored
    action: Mapped[str]
    use_case: Mapped[str]
    subject: Mapped[str]
    actor: Mapped[str]
    details: Mapped[str]
    once: Mapped[str | None] = mapped_column(unique=True)  # names the entry, so it is written once
    previous: Mapped[str]
    hash: Mapped[str]


class AuditHead(Base):
    """The end of the audit log: one row, which is locked by whoever appends."""

    __tablename__ = "audit_head"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sequence: Mapped[int]
    hash: Mapped[str]


class ModelRow(Base):
    """A version of a model; `partition` is the one that it was trained for."""

    __tablename__ = "models"
    __table_args__ = (Index("models_by_digest", "use_case", "model_digest"),)
    use_case: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model_digest: Mapped[str]
    partition: Mapped[str] = mapped_column("partition_key")
    as_of: Mapped[datetime]
    mode: Mapped[str]
    feature_set: Mapped[str]
    bundle: Mapped[str]
    run_id: Mapped[str]
    bento_tag: Mapped[str | None]
    pins: Mapped[str | None]
    state: Mapped[str]
    generation: Mapped[int]
    manifest: Mapped[dict[str, Any]]
    bento_digest: Mapped[str | None]  # of the code in the Bento; None: packaged by an earlier one
    artefact_digest: Mapped[str | None]  # of bundle, code and pins together; None: likewise
    collected_at: Mapped[datetime | None]  # when its files were given up; None: they are there


class RouteRow(Base):
    """What serves a use case, and what may serve next."""

    __tablename__ = "routes"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    champion: Mapped[int | None]
    previous: Mapped[int | None]
    challenger: Mapped[int | None]
    step: Mapped[int]
    weight: Mapped[float]  # percent
    salt: Mapped[str]  # of the split of traffic
    generation: Mapped[int]
    watermark: Mapped[str | None]  # the newest partition that was ever released
    rollback_generation: Mapped[int]
    held: Mapped[list[str]]  # digests of models that were rolled back
    # What a node must know of the use case; None: written by a version whose nodes read files.
    description: Mapped[dict[str, Any] | None]


class ObservedRow(Base):
    """The last report of a serving node of the version before; nobody reads it any more."""

    __tablename__ = "observed"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    generation: Mapped[int]
    state: Mapped[str]
    detail: Mapped[Any] = mapped_column(Json)
    at: Mapped[datetime]


class ObservationRow(Base):
    """How far a serving node is with the model of a role, and until when that is believed."""

    __tablename__ = "observations"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    boot: Mapped[str] = mapped_column(primary_key=True)  # names one start of the node
    role: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    digest: Mapped[str]
    state: Mapped[str]
    reason: Mapped[str]
    next_try: Mapped[float]  # seconds from `at`; 0: none is due
    generation: Mapped[int]  # of the routing row that it has read
    at: Mapped[datetime]  # by the database's clock, as is `expires`
    expires: Mapped[datetime]


class FeatureSetRow(Base):
    """A version of a use case's features."""

    __tablename__ = "feature_sets"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    definition: Mapped[dict[str, Any]]


class OnlineRow(Base):
    """The partition whose rows of a feature set are online; None before the first."""

    __tablename__ = "online"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    feature_set: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str | None]


class OpponentRow(Base):
    """Whom a candidate was judged against; `version` None is nobody."""

    __tablename__ = "opponents"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    model_digest: Mapped[str] = mapped_column(primary_key=True)
    mode: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int | None]
    generation: Mapped[int]
    partition: Mapped[str] = mapped_column("partition_key")
    at: Mapped[datetime]


class RedrivenRow(Base):
    """A row that a person took out of quarantine, and the partition that takes it in."""

    __tablename__ = "redriven"
    __table_args__ = (Index("redriven_by_target", "use_case", "into_key"),)
    use_case: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    partition: Mapped[str] = mapped_column("partition_key", primary_key=True)
    file: Mapped[str] = mapped_column(primary_key=True)
    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    into: Mapped[str] = mapped_column("into_key")
    content: Mapped[dict[str, Any]]
    at: Mapped[datetime]


def insert_missing(session: Session, table: type[Base], **values: object) -> bool:
    """Insert a row unless its key is there; tell whether it was inserted. Never fails on a race."""
    statement = _insert_new(session, table).values(_column_values(table, values))
    return session.execute(statement.returning(table.__mapper__.primary_key[0])).first() is not None


def insert_all_missing(
    session: Session, table: type[Base], rows: Sequence[Mapping[str, object]]
) -> None:
    """Insert those rows whose key is not there. Never fails on a race."""
    if rows:
        session.execute(
            _insert_new(session, table), [_column_values(table, values) for values in rows]
        )


def _insert_new(session: Session, table: type[Base]) -> Any:
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    return insert(table.__table__).on_conflict_do_nothing()  # type: ignore[arg-type]


def _column_values(table: type[Base], values: Mapping[str, object]) -> dict[str, object]:
    """Return values by the names of the columns instead of those of the attributes."""
    names = {prop.key: prop.columns[0].name for prop in table.__mapper__.column_attrs}
    return {names[name]: value for name, value in values.items()}


def locked(session: Session, table: type[R], *key: object) -> R | None:
    """Return the row of a primary key as it is now, locked until the transaction ends."""
    columns = table.__mapper__.primary_key
    statement = select(table).where(
        *(column == part for column, part in zip(columns, key, strict=True))
    )
    return session.scalars(
        statement.with_for_update().execution_options(populate_existing=True)
    ).one_or_none()


def plain(kind: type[T], row: object) -> T:
    """Return the frozen dataclass `kind` of a row; fields and columns have equal names."""
    return kind(**{field.name: getattr(row, field.name) for field in dataclasses.fields(kind)})  # type: ignore[arg-type]
