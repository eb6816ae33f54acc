"""Commands that read or mend what is on record: status, heal, score, reset, audit, quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.context import (
    KEY_HELP,
    Partition,
    UseCaseArgument,
    Yes,
    actor,
    as_json,
    ask,
    checked_key,
    current_settings,
    find_use_case,
    open_records,
    say,
    say_json,
    show,
)
from include.cli.models import model_rows, show_models
from include.cli.panels import Suggesting
from include.errors import ConfigError, EvergreenError

if TYPE_CHECKING:
    from include.records.records import Records

SourceName = Annotated[
    str | None, typer.Option("--source", metavar="NAME", help="Only rows of this source.")
]
Rule = Annotated[
    str | None,
    typer.Option(
        "--rule", metavar="RULE", help="Only rows that failed it, such as 'age: below_min'."
    ),
]
Limit = Annotated[
    int, typer.Option("--limit", "-n", metavar="N", min=1, help="At most so many rows.")
]

MODELS = 10  # of which `status` tells; `models` tells of all
STATUS_KEYS = ("partition", "state", "stage", "mode", "target", "detail")
AUDIT_KEYS = ("row", "at", "action", "use_case", "subject", "actor", "details", "hash")
QUARANTINE_KEYS = ("partition", "source", "file", "row", "rule", "redriven_into", "values")

audit_app = typer.Typer(
    cls=Suggesting,
    help="List the audit log, or verify that nobody changed it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
quarantine_app = typer.Typer(
    cls=Suggesting,
    help="List the rows that failed validation, or give them to a later partition.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def status(
    use_case: UseCaseArgument,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every partition, also older ones that are done.")
    ] = False,
    json: Annotated[bool, as_json(STATUS_KEYS)] = False,
) -> None:
    """Show how far each partition is, and what serves.

    A partition is done, running, waiting (for a stage; `evergreen heal` starts it again), refused
    (a person decides), stale (made of rows that were restated since; run it again) or missing
    (never ingested; `evergreen load-history` fills it). Its target says how far it shall go: data
    (features), judged (evaluation) or deployed. The table has the newest ten and what is not done,
    --json has all.
    """
    from collections import Counter

    from include.pipeline.status import status_rows

    settings = current_settings()
    case = find_use_case(settings, use_case)
    records = open_records(settings)
    rows = status_rows(records, case)
    if json:
        values = [(row.key, row.kind, row.stage, row.mode, row.target, row.detail) for row in rows]
        say_json(dict(zip(STATUS_KEYS, each, strict=True)) for each in values)
        return
    shown = (
        rows if everything else [row for row in rows[:-10] if row.kind != "done"][-40:] + rows[-10:]
    )
    columns = ("partition", "is", "stage", "mode", "target", "detail")
    show(
        columns, [(row.key, row.kind, row.stage, row.mode, row.target, row.detail) for row in shown]
    )
    _arrived(records, case.name, [row.key for row in shown])
    _serving(records, case.name)
    counts = Counter(row.kind for row in rows)
    say(
        f"{case.name}: "
        + (
            ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
            or "no partition yet"
        )
    )


def _arrived(records: Records, use_case: str, keys: Sequence[str]) -> None:
    """Say which of the shown partitions took or left late rows, and since when static versions
    are observed.
    """
    from include.ingestion import ingest_data

    ingested = records.results.of(use_case, stage="ingest_data")
    for result in ingested:
        if result.key in keys and result.state == "done":
            for text in ingest_data.describe_sources(result):
                say(f"{result.key}, {text}")
    for text in ingest_data.describe_observation(ingested):
        say(text)


def _serving(records: Records, use_case: str) -> None:
    """Say what serves, and the newest models there are."""
    if models := model_rows(records, use_case)[:MODELS]:
        show_models(models)
    generation = records.routes.get(use_case).generation
    for node in records.nodes.of(use_case):
        behind = "" if node.generation == generation else f" of {generation}"
        say(
            f"node {node.node}: {node.state}, generation {node.generation}{behind}, last sign "
            f"{node.at:%Y-%m-%d %H:%M:%S}"
        )


def heal(
    use_case: UseCaseArgument,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", "-n", metavar="N", min=1, help="Start at most so many, newest first."
        ),
    ] = 10,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be started.")
    ] = False,
) -> None:
    """Start waiting partitions again, through Airflow, where nothing runs for them; repair aliases.

    What `evergreen status` calls waiting is started; refused, stale and missing partitions are not.
    The aliases of models in MLflow are set to what serves.
    """
    from include.orchestration import healing
    from include.orchestration.airflow_api import AirflowApi
    from include.pipeline import status as pipeline_status

    settings = current_settings()
    case = find_use_case(settings, use_case)
    records = open_records(settings)
    if not dry_run:
        for alias, number in healing.repair_aliases(settings, records, case.name).items():
            say(f"alias {alias} is now {number or 'removed'}, as the routing row says")
    with AirflowApi(settings) as api:
        rows = pipeline_status.status_rows(records, case)
        plan = healing.plan(
            case.name,
            rows,
            active=healing.active_keys(api, case.name, [row.key for row in rows]),
            limit=limit,
        )
        for item in plan:
            if not dry_run:
                healing.restart(api, item, records=records, actor=actor())
            say(f"{item.key}: {'would start' if dry_run else 'started'} {item.stage} ({item.why})")
    if not plan:
        say(f"{use_case}: nothing to start; see `evergreen status {use_case}` for refusals")


def score(
    use_case: UseCaseArgument,
    partition: Annotated[str, typer.Option("--partition", "-p", metavar="KEY", help=KEY_HELP)],
    model: Annotated[
        int | None,
        typer.Option(
            "--version", metavar="N", help="Version of the model that scores; else the champion."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="CSV to write; else one in the reports folder."
        ),
    ] = None,
) -> None:
    """Score every entity as of the end of a partition; write the table into the lake and as CSV."""
    from include.scoring import score_entities

    settings = current_settings()
    case = find_use_case(settings, use_case)
    done = score_entities.score(
        case,
        checked_key(case, partition),
        settings=settings,
        records=open_records(settings),
        version=model,
        output=output,
        actor=actor(),
    )
    say(f"{done.rows} entities scored by version {done.version} as of {done.as_of}: {done.path}")


def reset(use_case: UseCaseArgument, yes: Yes = False) -> None:
    """Delete lake, records, online rows and reports of a use case; its file and audit log stay.

    Shows what there is, then asks.
    """
    from include.installation import reset as resetting

    settings = current_settings()
    records = open_records(settings)
    found = resetting.preview(settings, records, use_case)
    if found.empty:
        find_use_case(settings, use_case)  # its file may be gone, but then something is there
        say(f"{use_case}: nothing is there")
        return
    show(("what", "amount"), found.rows())
    ask(f"Delete all of this of {use_case}? It cannot be undone.", yes=yes)
    resetting.reset(settings, records, use_case, actor=actor())
    say(f"{use_case} is reset; the audit log has an entry")


@audit_app.command("verify")
def audit_verify(
    anchor: Annotated[
        str | None,
        typer.Option(
            metavar="ROW:HASH",
            help="Head that an earlier verification printed, and that you kept elsewhere.",
        ),
    ] = None,
) -> None:
    """Verify the audit log's chain of hashes; name the first row that was changed, moved or
    removed.
    """
    records = open_records(current_settings())
    number, _, digest = (anchor or "").partition(":")
    if anchor is not None and not (number.isdigit() and digest):
        raise ConfigError(
            f"--anchor {anchor!r}: give ROW:HASH, as `evergreen audit verify` prints them"
        )
    fault = records.audit.verify(anchor=(int(number), digest) if anchor else None)
    if fault is not None:
        raise EvergreenError(
            f"the audit log is broken: row {fault.sequence} {fault.reason}; compare with a copy "
            "of the database"
        )
    sequence, head = records.audit.head()
    say(f"the audit log is whole: {sequence} rows; head to keep elsewhere: {sequence}:{head}")


@audit_app.command("list")
def audit_list(
    use_case: Annotated[
        str | None,
        typer.Option("--use-case", "-u", metavar="NAME", help="Only rows of this use case."),
    ] = None,
    action: Annotated[
        str | None,
        typer.Option(
            "--action", metavar="ACTION", help="Only this action, such as route.rolled_back."
        ),
    ] = None,
    limit: Limit = 50,
    json: Annotated[bool, as_json(AUDIT_KEYS)] = False,
) -> None:
    """List the newest rows of the audit log, oldest first: who did or decided what, and when.

    With --json the details of a row are JSON text.
    """
    from json import dumps

    entries = open_records(current_settings()).audit.entries(use_case, action=action, limit=limit)
    if json:
        values = [
            (e.sequence, e.at, e.action, e.use_case, e.subject, e.actor, e.details, e.hash)
            for e in entries
        ]
        say_json(dict(zip(AUDIT_KEYS, each, strict=True)) for each in values)
        return
    columns = ("row", "at", "action", "use case", "subject", "actor", "details")
    show(
        columns,
        [
            (
                e.sequence,
                e.at.isoformat(timespec="seconds"),
                e.action,
                e.use_case,
                e.subject,
                e.actor,
                dumps(e.details)[:300],
            )
            for e in entries
        ],
    )


@quarantine_app.command("list")
def quarantine_list(
    use_case: UseCaseArgument,
    partition: Partition = None,
    source: SourceName = None,
    rule: Rule = None,
    limit: Limit = 50,
    to: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="Write all of them to this CSV, to correct and redrive."
        ),
    ] = None,
    json: Annotated[bool, as_json(QUARANTINE_KEYS)] = False,
) -> None:
    """List the rows that failed validation with the rule that each failed, or write them to a CSV.

    `evergreen quarantine redrive --from FILE` takes the corrected CSV. With --json the values of a
    row are JSON text; a list has the first 200 characters of each value, a CSV has all.
    """
    from include.validation import quarantine

    if to is not None and json:
        raise ConfigError("give either --csv FILE or --json")
    settings = current_settings()
    case = find_use_case(settings, use_case)
    records, key = (
        open_records(settings),
        None if partition is None else checked_key(case, partition),
    )
    if to is not None:
        rows = quarantine.find_rows(
            settings, records, case, partition=key, source=source, rule=rule
        )
        say(
            f"{quarantine.export_csv(rows, case, to)} row(s) written to {to}; correct them there, "
            "and delete those that shall stay"
        )
        return
    rows = quarantine.find_rows(
        settings, records, case, partition=key, source=source, rule=rule, limit=limit
    )
    if json:
        say_json(
            dict(zip(QUARANTINE_KEYS, (*row.place, row.rule, row.into, row.values), strict=True))
            for row in rows
        )
        return
    columns, shown = quarantine.as_table(rows, limit)
    show(columns, shown)
    counts = quarantine.count_rules(settings, case, partition=key, source=source)
    there = sum(counts.values()) if rule is None else counts.get(rule, 0)
    say(
        f"{there} row(s) in quarantine"
        + (f", the first {len(shown)} shown" if there > len(shown) else "")
    )


@quarantine_app.command("redrive")
def quarantine_redrive(
    use_case: UseCaseArgument,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why you do it; kept in the audit log.")
    ],
    partition: Partition = None,
    source: SourceName = None,
    rule: Rule = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="COLUMN=VALUE", help="New value for all chosen rows; may be repeated."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="CSV of `quarantine list --csv`, corrected."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Give rows that failed validation, corrected or not, to the next partition to be ingested.

    Say which rows by --partition (and --source, --rule), or by a corrected CSV. Shows them, then
    asks.
    """
    from include.clock import utc_now
    from include.validation import redrive

    if partition is None and file is None:
        raise ConfigError("say which rows: --partition KEY (with --source, --rule), or --from FILE")
    pairs = [text.partition("=") for text in changes or []]
    wrong = [name for name, sign, _ in pairs if not (name and sign)]
    if wrong:
        raise ConfigError(f"--set {wrong[0]!r}: write COLUMN=VALUE")
    if not reason.strip():
        raise ConfigError("--reason needs a text; it goes on the audit record")
    settings = current_settings()
    case, records = find_use_case(settings, use_case), open_records(settings)
    made = {name: value for name, _, value in pairs}
    partition = None if partition is None else checked_key(case, partition)
    plan = redrive.plan_redrive(
        settings,
        records,
        case,
        partition=partition,
        source=source,
        rule=rule,
        changes=made,
        file=file,
    )
    show(("partition", "source", "rows"), plan.counts())
    before = f"; {plan.before} were redriven before and stay out" if plan.before else ""
    say(
        f"{len(plan.rows)} row(s), {plan.corrected} of them corrected, pass the contract "
        f"now{before}"
    )
    ask(f"Give them to {plan.into}, as arrived at the start of its interval?", yes=yes)
    redrive.record_redrive(
        settings, records, case, plan, reason=reason, actor=actor(), at=utc_now()
    )
    say(f"recorded; the next ingestion of {plan.into} takes them in")
