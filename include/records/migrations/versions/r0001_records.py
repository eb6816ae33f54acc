"""The first tables; audit rows can be added, never changed or removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
REFUSAL = "audit rows are never changed or removed"


def text(name: str, *, key: bool = False, null: bool = False) -> sa.Column[str]:
    """Return a text column."""
    return sa.Column(name, sa.Text, primary_key=key, nullable=null)


def whole(name: str, *, key: bool = False, null: bool = False) -> sa.Column[int]:
    """Return an integer column."""
    return sa.Column(name, BIG, primary_key=key, nullable=null, autoincrement=False)


def real(name: str) -> sa.Column[float]:
    """Return a column of double precision."""
    return sa.Column(name, sa.Float(53), nullable=False)


def instant(name: str, *, null: bool = False) -> sa.Column[object]:
    """Return a column of instants."""
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null)


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "partitions",
        text("use_case", key=True),
        text("key", key=True),
        *(text(name) for name in ("mode", "target", "actor")),
        instant("at"),
    )
    op.create_table(
        "leases",
        *(text(name, key=True) for name in ("use_case", "stage", "key")),
        whole("token"),
        text("claim", null=True),
        text("owner"),
        whole("attempt"),
        text("host"),
        whole("pid"),
        text("started"),
        real("ttl"),
        text("clock"),
        real("beat"),
        instant("beat_at", null=True),
    )
    op.create_table(
        "results",
        *(text(name, key=True) for name in ("use_case", "key", "stage")),
        *(
            text(name)
            for name in ("state", "digest", "reason", "outputs", "reads", "memo_key", "mode")
        ),
        instant("started_at"),
        instant("finished_at"),
        real("seconds"),
        text("git_commit"),
        whole("token"),
    )
    op.create_index("results_by_stage", "results", ["use_case", "stage", "key"])
    op.create_table(
        "models",
        text("use_case", key=True),
        whole("version", key=True),
        text("model_digest"),
        text("partition_key"),
        instant("as_of"),
        *(text(name) for name in ("mode", "feature_set", "bundle", "run_id")),
        text("bento_tag", null=True),
        text("pins", null=True),
        text("state"),
        whole("generation"),
        text("manifest"),
    )
    op.create_index("models_by_digest", "models", ["use_case", "model_digest"])
    op.create_table(
        "routes",
        text("use_case", key=True),
        *(whole(name, null=True) for name in ("champion", "previous", "challenger")),
        whole("step"),
        real("weight"),
        text("salt"),
        whole("generation"),
        text("watermark", null=True),
        whole("rollback_generation"),
        text("held"),
    )
    op.create_table(
        "observed",
        text("use_case", key=True),
        text("node", key=True),
        whole("generation"),
        text("state"),
        text("detail"),
        instant("at"),
    )
    op.create_table(
        "feature_sets", text("use_case", key=True), text("version", key=True), text("definition")
    )
    op.create_table(
        "online", text("use_case", key=True), text("feature_set", key=True), text("key", null=True)
    )
    op.create_table(
        "opponents",
        *(text(name, key=True) for name in ("use_case", "model_digest", "mode")),
        whole("version", null=True),
        whole("generation"),
        text("partition_key"),
        instant("at"),
    )
    _audit()


def _audit() -> None:
    op.create_table(
        "audit",
        whole("sequence", key=True),
        *(text(name) for name in ("at", "action", "use_case", "subject", "actor", "details")),
        text("once", null=True),
        text("previous"),
        text("hash"),
        sa.UniqueConstraint("once", name="audit_once"),
    )
    head = op.create_table("audit_head", whole("id", key=True), whole("sequence"), text("hash"))
    op.bulk_insert(head, [{"id": 1, "sequence": 0, "hash": "0" * 64}])
    if op.get_bind().dialect.name == "sqlite":
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{event.lower()} BEFORE {event} ON audit BEGIN SELECT "
                f"RAISE(ABORT, '{REFUSAL}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE "
        f"EXCEPTION '{REFUSAL}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit"
        " FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
    )
