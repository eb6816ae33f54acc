"""Give column types that make both databases answer alike, and JSON that both can hold."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import PurePath
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Float, Integer, Text
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator


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
