"""The lines of the prediction log: their format, by version, and how one is read.

A line is one JSON object. Version 1 had no `v`; up to version 2 rows of batches bore no mark. What
a later version adds gets a default here, so lines of before are read as they are; a line of a
version that this code does not know is set aside, since it would lose what it does not know of.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import msgspec

VERSION = 3
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_EARLIEST = 946_684_800_000_000  # 2000-01-01, in microseconds since 1970
_LATEST = 7_258_118_400_000_000  # 2200-01-01


# The flag of an answer that was scored without its features, as the store was away.
DEGRADED = "degraded"
FALLBACK = "fallback"  # the arm of the model before the champion


class UnreadableLine(ValueError):
    """A line that cannot be read; says why, without what stands in it."""


class Line(msgspec.Struct, kw_only=True):
    """A line as it stands in a segment.

    `outcome` is *answered*, *failed* (no model answered) or *shadow* (asked, not answered with);
    `assigned` is the arm that the request was meant for, `arm` the one that answered; `reason` says
    why they differ, or why nobody answered. Of what *failed*, `arm` is `fallback` where the model
    before the champion was asked too, and failed as well. `at` and `features_at` are microseconds
    since 1970 (version 1: ISO text). `latency_us` runs from the request to its answer, `model_us`
    is the model's own time. `features` is the row that was asked, without what `pii` cuts out.
    `batch` says that it was a row of a batch, which was answered together with others.
    """

    v: _Int64 = 1
    request_id: str
    caller_id: str | None = None
    at: _Int64 | str
    outcome: str = "answered"
    reason: str = ""
    generation: _Int64 | None = None
    release: str | None = None
    step: _Int64 | None = None
    assigned: str | None = None
    arm: str | None = None
    version: _Int64 | None = None
    digest: str | None = None
    feature_set: str | None = None
    entity: str | None = None
    score: float | None = None
    threshold: float | None = None
    decision: str | None = None
    flags: str = ""
    features_at: _Int64 | str | None = None
    latency_us: _Int64 | None = None
    model_us: _Int64 | None = None
    features: msgspec.Raw = msgspec.Raw(b"null")  # in a union it would be decoded
    batch: bool = False


class LoggedLine(NamedTuple):
    """A line as the lake's table holds it; `segment` and `line` together name it for ever."""

    segment: str
    line: int
    at: int
    request_id: str
    caller_id: str | None
    outcome: str
    reason: str
    generation: int | None
    release: str | None
    step: int | None
    assigned: str | None
    arm: str | None
    version: int | None
    digest: str | None
    feature_set: str | None
    entity: str | None
    score: float | None
    threshold: float | None
    decision: str | None
    flags: str
    features_at: int | None
    latency_us: int | None
    model_us: int | None
    features: str | None
    batch: bool


_decode = msgspec.json.Decoder(Line).decode


def read_line(segment: str, number: int, text: bytes) -> LoggedLine:
    """Return a line, whatever version wrote it.

    Raises:
        UnreadableLine: it is no line, is damaged, or is of a later version.
    """
    try:
        line = _decode(text)
        text_of_row = str(line.features, "utf-8")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableLine(_why(error)) from None
    if line.v > VERSION:
        raise UnreadableLine(f"it is of version {line.v}; this code reads up to {VERSION}")
    if text_of_row[0] != "{" and text_of_row != "null":
        raise UnreadableLine("its features are no object")
    at, features_at = line.at, line.features_at
    if isinstance(at, str):
        at = _micros(at)
    if isinstance(features_at, str):
        features_at = _micros(features_at)
    if not _EARLIEST <= at < _LATEST:
        raise UnreadableLine("its time is not between 2000 and 2200")
    # Version 1 knew the champion alone: every request was meant for it.
    assigned = "champion" if line.v == 1 else line.assigned
    return LoggedLine(
        segment,
        number,
        at,
        line.request_id,
        line.caller_id,
        line.outcome,
        line.reason,
        line.generation,
        line.release,
        line.step,
        assigned,
        line.arm,
        line.version,
        line.digest,
        line.feature_set,
        line.entity,
        line.score,
        line.threshold,
        line.decision,
        line.flags,
        features_at,
        line.latency_us,
        line.model_us,
        None if text_of_row == "null" else text_of_row,
        line.batch,
    )


def _micros(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UnreadableLine("its time is no ISO time") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    # By whole parts: a float holds no microseconds of today exactly.
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _why(error: Exception) -> str:
    """Return why a line could not be decoded; msgspec names places, never values."""
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).splitlines()[0][:160]
