"""Commands that read or mend what is on record: status, heal, audit, quarantine, score, reset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.context import (
    Partition,
    UseCaseArgument,
    Yes,
    actor,
    ask,
    current_settings,
    find_use_case,
    open_records,
    say,
    show,
)
from include.errors import ConfigError, EvergreenError

if TYPE_CHECKING:
    from include.records.records import Records

SourceName = Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only rows of this source.")]
Rule = Annotated[str | None, typer.Option("--rule", metavar="RULE", help="Only rows that failed it, such as 'age: below_min'.")]

audit_app = typer.Typer(help="The audit log: list it, or verify its chain.", no_args_is_help=True, rich_markup_mode=None)
quarantine_app = typer.Typer(help="Rows that failed validation.", no_args_is_help=True, rich_markup_mode=None)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(status)
    app.command()(heal)
    app.command()(score)
    app.command()(reset)
    app.add_typer(audit_app, name="audit")
    app.add_typer(quarantine_app, name="quarantine")


def status(
    use_case: UseCaseArgument,
    everything: Annotated[bool, typer.Option("--all", help="Every partition, also all that are done.")] = False,
) -> None:
    """Show what each partition is: done, running, waiting for what, refused why, stale, missing."""
    from collections import Counter

    from include.pipeline.status import status_rows

    settings = current_settings()
    records = open_records(settings)
    rows = status_rows(records, find_use_case(settings, use_case))
    shown = rows if everything else [row for row in rows[:-10] if row.kind != "done"][-40:] + rows[-10:]
    columns = ("partition", "is", "stage", "mode", "target", "detail")
    show(columns, [(row.key, row.kind, row.stage, row.mode, row.target, row.detail) for row in shown])
    _arrived(records, use_case, [row.key for row in shown])
    _serving(records, use_case)
    counts = Counter(row.kind for row in rows)
    say(f"{use_case}: " + (", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "no partition yet"))


def _arrived(records: Records, use_case: str, keys: Sequence[str]) -> None:
    """Say which of the shown partitions took or left late rows, and since when static versions are observed."""
    from include.ingestion import ingest_data

    ingested = records.results(use_case, stage="ingest_data")
    for result in ingested:
        if result.key in keys and result.state == "done":
            for text in ingest_data.told(result.outputs.get("sources", {})):
                say(f"{result.key}, {text}")
    for text in ingest_data.observed(ingested):
        say(text)


def _serving(records: Records, use_case: str) -> None:
    """Say what serves, and the models there are."""
    route = records.route(use_case)
    roles = {route.champion: "champion", route.previous: "previous", route.challenger: "challenger"}
    models = records.models(use_case)[-10:]
    if models:
        held = set(route.held)
        show(
            ("version", "role", "state", "partition", "mode", "digest"),
            [
                (
                    m.version,
                    roles.get(m.version, ""),
                    "on hold" if m.model_digest in held else m.state,
                    m.partition,
                    m.mode,
                    m.model_digest[7:19],
                )
                for m in models
            ],
        )
    for node in records.observed(use_case):
        behind = "" if node.generation == route.generation else f" of {route.generation}"
        say(f"node {node.node}: {node.state}, generation {node.generation}{behind}, last sign {node.at:%Y-%m-%d %H:%M:%S}")


def heal(
    use_case: UseCaseArgument,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Start at most so many, newest first.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be started.")] = False,
) -> None:
    """Start again what stopped below its target, where nothing is queued or running; repair MLflow's aliases."""
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
        plan = healing.plan(case.name, rows, active=healing.active_keys(api, case.name, [row.key for row in rows]), limit=limit)
        for item in plan:
            if not dry_run:
                healing.restart(api, item, records=records, actor=actor())
            say(f"{item.key}: {'would start' if dry_run else 'started'} {item.stage} ({item.why})")
    if not plan:
        say(f"{use_case}: nothing to start; see `evergreen status {use_case}` for refusals")


def score(
    use_case: UseCaseArgument,
    partition: Annotated[str, typer.Option("--partition", "-p", metavar="KEY")],
    model: Annotated[int | None, typer.Option("--version", help="Model version; else the champion.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="CSV file; else in the reports folder.")] = None,
) -> None:
    """Write the scored table of all entities, into the lake and as CSV."""
    from include.scoring import score_entities

    settings = current_settings()
    done = score_entities.score(
        find_use_case(settings, use_case),
        partition,
        settings=settings,
        records=open_records(settings),
        version=model,
        output=output,
        actor=actor(),
    )
    say(f"{done.rows} entities scored by version {done.version} as of {done.as_of}: {done.path}")


def reset(use_case: UseCaseArgument, yes: Yes = False) -> None:
    """Delete everything of a use case but its audit log: lake, records, online rows, reports. Shows it, then asks."""
    from include.installation import reset as resetting

    settings = current_settings()
    records = open_records(settings)
    found = resetting.preview(settings, records, use_case)
    show(("what", "amount"), found.rows())
    if found.empty:
        say(f"{use_case}: nothing is there")
        return
    ask(f"Delete all of this of {use_case}? It cannot be undone.", yes=yes)
    resetting.reset(settings, records, use_case, actor=actor())
    say(f"{use_case} is reset; the audit log has an entry")


@audit_app.command("verify")
def audit_verify(
    anchor: Annotated[str | None, typer.Option(metavar="ROW:HASH", help="A head that was noted earlier, kept elsewhere.")] = None,
) -> None:
    """Verify the hash chain; names the first bad row."""
    records = open_records(current_settings())
    number, _, digest = (anchor or "").partition(":")
    if anchor is not None and not (number.isdigit() and digest):
        raise ConfigError(f"--anchor {anchor!r}: give ROW:HASH, as `evergreen audit verify` prints them")
    fault = records.verify(anchor=(int(number), digest) if anchor else None)
    if fault is not None:
        raise EvergreenError(f"the audit log is broken: row {fault.sequence} {fault.reason}; compare with a copy of the database")
    sequence, head = records.head()
    say(f"the audit log is whole: {sequence} rows; head to keep elsewhere: {sequence}:{head}")


@audit_app.command("list")
def audit_list(
    use_case: Annotated[str | None, typer.Option("--use-case", "-u")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this action, such as route.rolled_back.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 50,
) -> None:
    """List the newest audit rows, oldest of them first."""
    import json

    entries = open_records(current_settings()).entries(use_case, action=action, limit=limit)
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
                json.dumps(e.details)[:300],
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
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 50,
    to: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write them here, to correct and redrive.")] = None,
) -> None:
    """List quarantined rows with the rule that failed, or write them to a CSV for `redrive --from`."""
    from include.validation import quarantine

    settings = current_settings()
    case = find_use_case(settings, use_case)
    records = open_records(settings)
    if to is not None:
        rows = quarantine.found(settings, records, case, partition=partition, source=source, rule=rule)
        say(f"{quarantine.export(rows, case, to)} row(s) written to {to}; correct them there, and delete those that shall stay")
        return
    rows = quarantine.found(settings, records, case, partition=partition, source=source, rule=rule, limit=limit)
    columns, shown = quarantine.listed(rows, limit)
    show(columns, shown)
    counts = quarantine.rules(settings, case, partition=partition, source=source)
    there = sum(counts.values()) if rule is None else counts.get(rule, 0)
    say(f"{there} row(s) in quarantine" + (f", the first {len(shown)} shown" if there > len(shown) else ""))


@quarantine_app.command("redrive")
def quarantine_redrive(
    use_case: UseCaseArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it goes on the audit record.")],
    partition: Partition = None,
    source: SourceName = None,
    rule: Rule = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="COLUMN=VALUE", help="A new value for all chosen rows; may be repeated.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Corrected CSV, begun by `quarantine list --csv`.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Give quarantined rows, corrected or not, to the next partition that is not ingested yet. Shows them, then asks."""
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
    plan = redrive.plan(settings, records, case, partition=partition, source=source, rule=rule, changes=made, file=file)
    show(("partition", "source", "rows"), plan.counts())
    before = f"; {plan.before} were redriven before and stay out" if plan.before else ""
    say(f"{len(plan.rows)} row(s), {plan.corrected} of them corrected, pass the contract now{before}")
    ask(f"Give them to {plan.into}, as arrived at the start of its interval?", yes=yes)
    redrive.redrive(settings, records, case, plan, reason=reason, actor=actor(), at=utc_now())
    say(f"recorded; the next ingestion of {plan.into} takes them in")
