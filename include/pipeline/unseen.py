"""Tell errors of reading, which say nothing about a model or its data, from findings.

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
    """Return the outcome of a judgement that was not reached: a hold for whoever asks."""
    message = str(error).strip()
    reason = message.splitlines()[0][:1000] if message else type(error).__name__
    kind = type(error).__name__ if isinstance(error, EvergreenError) else "Unavailable"
    digest = combine(["unreadable", stage, context.key])
    entry = AuditEntry(
        f"{stage}.unreadable",
        context.use_case.name,
        context.key,
        context.actor,
        {"reason": reason, "mode": context.mode},
        context.started,
        # One row a reason, not one a try.
        once=f"{stage}.unreadable/{context.use_case.name}/{context.key}/{combine([reason])}",
    )
    outputs = {"verdict": "hold", "reasons": [reason], "error": kind, **outputs}
    return Outcome("unreadable", digest, reason, outputs, entries=(entry,))
