"""What could not be read is not what was seen: which errors say nothing about a model or its data,
only about the reading.

A verdict that rests on one of them is recorded as `unreadable`: it answers for nothing, and is
tried again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
from deltalake.exceptions import DeltaError
from sqlalchemy.exc import InterfaceError, OperationalError

from include.errors import ArtefactError, EvergreenError, SourceError, Unavailable
from include.lake.digests import combine
from include.pipeline.stage import Outcome, StageContext
from include.records.audit import AuditEntry

# A damaged or absent file, a store or database that does not answer, a time-out. OSError holds
# TimeoutError and Arrow's.
UNSEEN: tuple[type[Exception], ...] = (
    ArtefactError,
    SourceError,
    Unavailable,
    OSError,
    duckdb.IOException,
    DeltaError,
    OperationalError,
    InterfaceError,
)


def unreadable_outcome(
    context: StageContext, stage: str, error: Exception, outputs: Mapping[str, Any]
) -> Outcome:
    """Return the outcome of a judgement that could not be reached: a hold for whoever asks, and
    no finding.
    """
    reason = (
        str(error).strip().splitlines()[0][:1000] if str(error).strip() else type(error).__name__
    )
    kind = type(error).__name__ if isinstance(error, EvergreenError) else "Unavailable"
    digest = combine(["unreadable", stage, context.key])
    entry = AuditEntry(
        f"{stage}.unreadable",
        context.use_case.name,
        context.key,
        context.actor,
        {"reason": reason, "mode": context.mode},
        context.started,
        # Not one row a try.
        once=f"{stage}.unreadable/{context.use_case.name}/{context.key}/{combine([reason])}",
    )
    found = {"verdict": "hold", "reasons": [reason], "error": kind, **outputs}
    return Outcome("unreadable", digest, reason, found, entries=(entry,))
