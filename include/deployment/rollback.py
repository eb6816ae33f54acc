"""The part of a rollback that the records hold: it needs no MLflow, so a serving node can do it."""

from __future__ import annotations

import logging
from typing import Literal

from include.clock import utc_now
from include.records.records import AuditEntry, Records, Route

log = logging.getLogger(__name__)


def record_rollback(
    records: Records,
    use_case: str,
    actor: str,
    reason: str,
    *,
    of: Literal["champion", "challenger"] = "champion",
    expect_generation: int | None = None,
) -> Route:
    """Serve the last good model again and put the digest of the present one on hold.

    It wins over releases on their way. `expect_generation` is the routing row's that the caller has
    seen (None: the one of now).

    Raises:
        Conflict: there is nothing to go back to, or another hand was faster.
    """
    before = records.routes.get(use_case)
    version = str(getattr(before, of) or "none")
    entry = AuditEntry(
        "release.rolled_back",
        use_case,
        version,
        actor,
        {"reason": reason, "of": of},
        utc_now(),
    )
    generation = before.generation if expect_generation is None else expect_generation
    route = records.routes.rollback(use_case, entry=entry, expect_generation=generation, of=of)
    log.warning("%s: %s %s is rolled back by %s: %s", use_case, of, version, actor, reason)
    return route
