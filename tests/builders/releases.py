"""Releases on record, without the stages and nodes that would bring them there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from include.clock import utc_now
from include.config.settings import Settings
from include.models.signing import sign_here, signed_columns
from include.records.records import AuditEntry, Model, Records, Release

AT = datetime(2026, 1, 20, tzinfo=UTC)
PLAN: dict[str, Any] = {
    "kind": "canary",
    "watch": 60.0,
    "steps": [
        {"share": share, "bake": 60.0, "requests": 10, "entities": 5, "deadline": 600.0}
        for share in (0, 500)
    ],
}
"""A plan of a shadow step and one of 5 %."""


def entry(action: str = "test", use_case: str = "shop") -> AuditEntry:
    """Return an entry about nothing in particular."""
    return AuditEntry(action, use_case, "1", "test", {}, AT)


def add_model(records: Records, version: int, key: str, use_case: str = "shop") -> Model:
    """Record a model that has passed its gates."""
    return records.models.add(
        Model(
            use_case=use_case,
            version=version,
            model_digest=f"sha256:{version}",
            partition=key,
            as_of=AT,
            mode="live",
            feature_set="fs",
            bundle="",
            state="challenger",
            generation=records.routes.get(use_case).generation,
        )
    )


def sign_model(settings: Settings, records: Records, version: int, use_case: str = "shop") -> None:
    """Sign a model by the key of an installation, as its packaging does."""
    model = records.models.get(use_case, version)
    assert model is not None
    signed = sign_here(settings, model, at=utc_now(), signed_as="packaging")
    with records.transaction() as session:
        records.models.update(use_case, version, session=session, **signed_columns(signed))


def request(
    records: Records,
    version: int,
    key: str,
    *,
    use_case: str = "shop",
    waits: bool = False,
    plan: dict[str, Any] | None = None,
) -> Release:
    """Record a model and request its release, or queue it."""
    model, route = add_model(records, version, key, use_case), records.routes.get(use_case)
    start = records.releases.wait if waits else records.releases.request
    return start(
        use_case,
        partition=key,
        model=model,
        opponent=route.champion,
        judged_generation=route.generation,
        plan=plan or PLAN,
        description=None,
        entry=entry(use_case=use_case),
    )


def under_way(records: Records, key: str, use_case: str = "shop") -> Release:
    """Have model 1 as champion, and model 2 of a partition in the first step of its release."""
    add_model(records, 1, "2026-01-01", use_case)
    records.routes.change(use_case, set={"champion": 1}, entry=entry(use_case=use_case))
    return records.releases.begin(request(records, 2, key, use_case=use_case), entry())
