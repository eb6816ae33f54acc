"""Declare the tables of the records."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from include.records import evidence_schema  # noqa: F401 - its tables are among the declared ones
from include.records.columns import Base, Json

HEAD = "0014"  # the newest revision in records/migrations
VERSION_TABLE = "evergreen_version"


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
    # Addresses in the store; None: recorded by a version that knew paths alone, or not made yet.
    bundle_uri: Mapped[str | None]
    reference_uri: Mapped[str | None]
    bento_uri: Mapped[str | None]
    # By whom it is signed; None: by nobody, as versions before left it.
    signature: Mapped[str | None]  # in base64, of the row's statement (models/signing)
    signing_key: Mapped[str | None]
    signed_at: Mapped[datetime | None]
    signed_as: Mapped[str | None]  # packaging | upgrade


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
    release_id: Mapped[str | None]  # of the release that the challenger, or the champion, is of
    mode: Mapped[str | None]  # shadow or canary; None: the challenger gets no request
    share: Mapped[int] = mapped_column(server_default="0")  # basis points; `weight` is the same
    release_key: Mapped[str | None]  # of the split of this release's traffic


class ReleaseRow(Base):
    """A release, from its request to its end."""

    __tablename__ = "releases"
    __table_args__ = (Index("releases_by_state", "use_case", "state"),)
    use_case: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    partition: Mapped[str] = mapped_column("partition_key")
    challenger: Mapped[int]
    challenger_digest: Mapped[str]
    bento_digest: Mapped[str | None]
    signature: Mapped[str | None]
    champion: Mapped[int | None]  # when it was requested
    opponent_generation: Mapped[int]  # of the routing row that it was judged in
    plan: Mapped[dict[str, Any]]
    step: Mapped[int]
    state: Mapped[str]
    paused: Mapped[bool]
    suspended: Mapped[bool]
    entered_at: Mapped[datetime]  # the step, by the database's clock
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    verdicts: Mapped[list[Any]]
    reason: Mapped[str]
    gap_seconds: Mapped[float]  # for which its judge was away, in sum
    rolled_back_by_itself: Mapped[bool]
    revision: Mapped[int]  # raised by every change


class ReleaseBeatRow(Base):
    """The judge's last sign of life; the row stays, so that its number goes on rising."""

    __tablename__ = "release_beats"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    release_id: Mapped[str]
    beat: Mapped[int]
    seconds: Mapped[float]  # for which a node goes on after it
    at: Mapped[datetime]


class ReleaseGuardRow(Base):
    """A node that sends a release's traffic home by itself, and why."""

    __tablename__ = "release_guards"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    release_id: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    boot: Mapped[str]
    at: Mapped[datetime]


class ReleaseWindowRow(Base):
    """What a minute of a step brought on a node, by the arm assigned and the arm that answered."""

    __tablename__ = "release_windows"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    release_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    arm: Mapped[str] = mapped_column(primary_key=True)
    answering: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    boot: Mapped[str] = mapped_column(primary_key=True)
    minute: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    counts: Mapped[dict[str, Any]]
    closed: Mapped[bool]  # the boot has ended in order
    at: Mapped[datetime]


class FreezeRow(Base):
    """Until when no release of a use case starts."""

    __tablename__ = "freezes"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    until: Mapped[datetime]
    actor: Mapped[str]
    reason: Mapped[str]
    at: Mapped[datetime]


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


class EpochRow(Base):
    """A life of this database that a restore began; without a row it is the first."""

    __tablename__ = "epochs"
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    backup: Mapped[str]  # the name of the backup that was restored
    at: Mapped[datetime]
