"""Bring the tables of a test's records back to those of an earlier version."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from include.records.schema import VERSION_TABLE

# What each revision added, the newest first: tables, and columns as TABLE.COLUMN.
ADDED = {
    "0014": ("release_evidence", "probations"),
    "0013": ("models.signature", "models.signing_key", "models.signed_at", "models.signed_as"),
    "0012": (
        "releases",
        "release_beats",
        "release_guards",
        "release_windows",
        "freezes",
        "routes.release_id",
        "routes.mode",
        "routes.share",
        "routes.release_key",
    ),
    "0011": ("epochs",),
    "0010": ("models.bundle_uri", "models.reference_uri", "models.bento_uri"),
    "0009": ("models.collected_at",),
    "0008": ("models.artefact_digest",),
    "0007": ("models.bento_digest",),
    "0006": ("observations",),
    "0005": ("routes.description",),
    "0003": ("reads",),
}


def bring_back(session: Session, revision: str) -> None:
    """Drop what revisions after this one have added; rows of the tables that stay are left."""
    for added, names in ADDED.items():
        if added <= revision:
            break
        for name in names:
            table, _, column = name.partition(".")
            change = (
                f"ALTER TABLE {table} DROP COLUMN {column}" if column else f"DROP TABLE {table}"
            )
            session.execute(text(change))
    session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'"))
