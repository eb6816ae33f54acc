"""Declare the tables of what is found of a release beside its windows, and after its end."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from include.records.columns import Base


class ReleaseEvidenceRow(Base):
    """What is known of a release beside its windows: gathered in a step, from one source of rows.

    `content` is of `include.deployment.gathered`.
    """

    __tablename__ = "release_evidence"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    release_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    metric: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[dict[str, Any]]
    at: Mapped[datetime]


class ProbationRow(Base):
    """A promoted version whose cohort's outcomes are still to come, from its promotion to its end.

    The times are by the database's clock.
    """

    __tablename__ = "probations"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    release_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    digest: Mapped[str]
    opponent: Mapped[int]  # the champion that both scored with
    state: Mapped[str]
    reason: Mapped[str]
    began_at: Mapped[datetime]
    matures_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
