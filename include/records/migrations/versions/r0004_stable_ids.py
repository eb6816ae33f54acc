"""Digest stable ids instead of words that people read, and name stages as their DAGs.

Digests of trainings, verdicts and drift checks are made anew. Everything that they are made of is
stored, so nothing has to be computed again: a result whose digest was over its words gets the
digest that today's code gives it, and so do the reads of whoever has read it. Audit rows stay as
they were written. A result that an earlier version recorded with less than today's digest is over
stays as it is, and is computed again when it is next run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

from include.records.read_blocks import LONG, join_blocks, split_into_blocks

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

RESULTS = sa.table(
    "results",
    *(
        sa.column(name, sa.Text)
        for name in ("use_case", "key", "stage", "state", "digest", "outputs", "reads")
    ),
)
LEASES = sa.table("leases", sa.column("stage", sa.Text))
READS = sa.table("reads", *(sa.column(name, sa.Text) for name in ("use_case", "digest", "reads")))
MODELS = sa.table(
    "models",
    sa.column("use_case", sa.Text),
    sa.column("version", sa.Integer),
    sa.column("model_digest", sa.Text),
)

NAMES = {
    "ingestion": "ingest_data",
    "validation": "validate_data",
    "features": "materialize_features",
    "training": "train_model",
    "evaluation": "evaluate_model",
    "bento": "package_model",
    "deployment": "deploy_model",
    "drift": "check_drift",
}
# in order: each reads those before it.
STAGES = ("training", "evaluation", "bento", "deployment", "drift")
READ = ("training", "evaluation")  # stages that others read by their names
CHECKS = {
    "mature rows of each class": "mature_rows",
    "share of censored decisions": "censored_share",
    "AUC": "auc",
    "AUC, too good to be true": "max_auc",
    "calibration error": "calibration_error",
    "AUC over the logistic yardstick": "over_baseline",
    "release": "release",
    "candidate": "candidate",
}
OPPONENT = re.compile(r"AUC difference to version \d+, lower end")
OUTROLLED = re.compile(r"trained in generation (\d+), before the rollback of generation (\d+);")
TOLD = ("counts", "split", "metrics", "training_set", "feature_auc", "leaks")
JUDGED = ("counts", "split", "metrics", "feature_auc", "leaks")


def upgrade() -> None:
    """Write the digests anew, one use case and one result at a time."""
    connection = op.get_bind()
    for use_case in connection.scalars(sa.select(RESULTS.c.use_case).distinct()).all():
        _use_case(connection, use_case)
    for table in (RESULTS, LEASES):
        for before, now in NAMES.items():
            connection.execute(sa.update(table).where(table.c.stage == before).values(stage=now))


def _use_case(connection: sa.Connection, use_case: str) -> None:
    models = dict(
        connection.execute(
            sa.select(MODELS.c.version, MODELS.c.model_digest).where(MODELS.c.use_case == use_case)
        ).all()
    )
    renamed: dict[tuple[str, str, str], str] = {}  # stage, key and digest of before: digest of now
    told: dict[str, Any] = {}  # what each training told, by partition
    for stage in STAGES:
        chosen = (RESULTS.c.use_case == use_case, RESULTS.c.stage == stage)
        for key in connection.scalars(sa.select(RESULTS.c.key).where(*chosen)).all():
            same = (*chosen, RESULTS.c.key == key)
            row = connection.execute(sa.select(RESULTS).where(*same)).one()
            outputs, reads = (
                json.loads(row.outputs),
                _reads(connection, use_case, json.loads(row.reads)),
            )
            if stage == "training":
                told[key] = outputs
            before = [list(read) for read in reads]
            for read in reads:
                read[2] = renamed.get((read[0], read[1], read[2]), read[2])
                if stage == "evaluation" and read[0] == "standing":
                    read[2] = _standing(read[2])
                if (
                    stage == "evaluation"
                    and read[0] == "numbers"
                    and read[2] == _numbers_before(told.get(key, {}))
                ):
                    read[2] = _json_digest(
                        _without_prose({name: told[key].get(name) for name in JUDGED})
                    )
            digest = _digest(stage, row, outputs, reads, models)
            renamed[stage, key, row.digest] = digest
            for read in reads:
                if read[0] in READ:
                    read[0] = NAMES[read[0]]
            values: dict[str, str] = {"digest": digest, "outputs": _text(outputs)}
            if reads != before:
                values["reads"] = _text(_kept(connection, use_case, reads))
            connection.execute(sa.update(RESULTS).where(*same).values(**values))


def _digest(
    stage: str, row: Any, outputs: dict[str, Any], reads: list[list[str]], models: Mapping[int, str]
) -> str:
    """Return the digest of a result as it is made now; `outputs` get the ids that they lack."""
    read = {table: digest for table, _, digest in reads}
    if stage == "training" and row.state == "done":
        if outputs.get("candidate") is None and {"counts", "split"} <= set(outputs):
            return _combine(
                [
                    "no_candidate",
                    _json_digest({name: outputs[name] for name in ("counts", "split")}),
                ]
            )
        if {*JUDGED, "training_set", "model_digest"} <= set(outputs):
            judged = _without_prose({name: outputs[name] for name in JUDGED})
            return _combine(
                [outputs["training_set"]["digest"], outputs["model_digest"], _json_digest(judged)]
            )
    if row.state == "unreadable":
        return _combine(["unreadable", NAMES[stage], row.key])
    checks = outputs.get("checks") or ()
    known = {"opponent", "verdict"} <= set(outputs) and all(
        _check_id(check["name"]) for check in checks
    )
    if stage == "evaluation" and row.state == "done" and checks and known and "training" in read:
        outputs["checks"] = [{"id": _check_id(check["name"]), **check} for check in checks]
        outcome = {True: "pass", False: "fail", None: "hold"}
        values = [
            "" if one["value"] is None else round(one["value"], 9) for one in outputs["checks"]
        ]
        numbers = [
            f"{one['id']}:{outcome[one['passed']]}:{value}"
            for one, value in zip(outputs["checks"], values, strict=True)
        ]
        against = "none" if outputs["opponent"] is None else models.get(outputs["opponent"], "none")
        return _combine(
            [read["training"], outputs["verdict"], against, str(outputs.get("compared")), *numbers]
        )
    if stage == "bento" and row.state == "skipped" and {"partition", "evaluation"} <= set(read):
        return _combine(["skipped", *read["partition"].split("/"), read["evaluation"]])
    if (
        stage == "drift"
        and row.state in ("done", "held")
        and {"views", "features", "reference"} <= set(outputs)
    ):
        reference = outputs["reference"]
        if reference is not None:
            reference["kind"] = {"partition before": "before"}.get(
                reference["kind"], reference["kind"]
            )
        content = [
            f"{name}:{'' if one['psi'] is None else round(one['psi'], 9)}"
            for name, one in outputs["features"].items()
        ]
        lost = {
            view: one["lost"] for view, one in outputs["views"].items() if one["lost"] is not None
        }
        content += [f"lost/{view}:{share:.9f}" for view, share in lost.items()]
        kind, key = ("", "") if reference is None else (reference["kind"], reference["partition"])
        against = (
            ""
            if reference is None or reference["version"] is None
            else models.get(reference["version"], "")
        )
        return _combine([outputs["verdict"], kind, key, against, *content])
    return str(row.digest)


def _check_id(name: str) -> str:
    return "opponent" if OPPONENT.fullmatch(name) else CHECKS.get(name, "")


def _standing(read: str) -> str:
    found = OUTROLLED.match(read)
    if found:
        return f"before_rollback/{found[1]}/{found[2]}"
    return "held" if "was rolled back and is on hold" in read else read


def _numbers_before(told: Mapping[str, Any]) -> str:
    numbers = {name: told.get(name) for name in TOLD}
    return "sha256:" + hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()


def _without_prose(told: dict[str, Any]) -> dict[str, Any]:
    if not told.get("leaks"):
        return told
    found = [
        {name: one[name] for name in ("kind", "level", "columns")}
        for one in told["leaks"].get("found", ())
    ]
    return {**told, "leaks": {**told["leaks"], "found": found}}


def _json_digest(value: object) -> str:
    return (
        "sha256:"
        + hashlib.sha256(
            json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()
    )


def _combine(parts: list[str]) -> str:
    return "sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _reads(connection: sa.Connection, use_case: str, stored: list[Any]) -> list[list[str]]:
    """Return the triples of a stored list, whose blocks stand in a table of their own."""
    blocks = {}
    for digest in (one for one in stored if isinstance(one, str)):
        query = sa.select(READS.c.reads).where(
            READS.c.use_case == use_case, READS.c.digest == digest
        )
        blocks[digest] = json.loads(connection.execute(query).scalar_one())
    return [list(read) for read in join_blocks(stored, blocks)]


def _kept(connection: sa.Connection, use_case: str, reads: list[list[str]]) -> list[Any]:
    """Return what is stored of a list of triples; missing blocks of a long one are written."""
    if len(reads) <= LONG:
        return list(reads)
    blocks = split_into_blocks(reads)
    for digest, block in blocks.items():
        same = (READS.c.use_case == use_case, READS.c.digest == digest)
        if connection.execute(sa.select(READS.c.digest).where(*same)).first() is None:
            connection.execute(
                sa.insert(READS).values(use_case=use_case, digest=digest, reads=_text(block))
            )
    return list(blocks)
