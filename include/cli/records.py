"""Commands that read or mend what is on record: status, heal, audit list, audit verify."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.context import (
    Limit,
    UseCaseArgument,
    actor,
    current_settings,
    find_use_case,
    open_records,
)
from include.cli.models import model_rows, show_models
from include.cli.output import json_option, print_json, print_line, print_table
from include.cli.panels import Suggesting
from include.errors import ConfigError, EvergreenError

if TYPE_CHECKING:
    from include.config.settings import Settings
    from include.records.records import Records

MODELS = 10  # models that `status` lists; `models` lists all
NEWEST, UNFINISHED = 10, 40  # partitions that `status` shows: the newest, and older unfinished ones
STATUS_KEYS = ("partition", "state", "stage", "mode", "target", "detail")
AUDIT_KEYS = ("row", "at", "action", "use_case", "subject", "actor", "details", "hash")

audit_app = typer.Typer(
    cls=Suggesting,
    help="List the audit log, or verify that nobody changed it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def status(
    use_case: UseCaseArgument,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every partition, also older ones that are done.")
    ] = False,
    json: Annotated[bool, json_option(STATUS_KEYS)] = False,
) -> None:
    """Show how far each partition is, and what serves.

    A partition is done, running, waiting (for a stage; `evergreen heal` starts it again), refused
    (a person decides), stale (made of rows that were restated since; run it again) or missing
    (never ingested; `evergreen load-history` fills it). Its target is how far it is to go: data
    (features), judged (evaluation) or deployed. The table has the newest ten partitions and those
    that are not done, --json has all.
    """
    from collections import Counter

    from include.pipeline.status import status_rows

    settings = current_settings()
    case = find_use_case(settings, use_case)
    records = open_records(settings)
    rows = status_rows(records, case)
    if json:
        values = [(row.key, row.kind, row.stage, row.mode, row.target, row.detail) for row in rows]
        print_json(dict(zip(STATUS_KEYS, row, strict=True)) for row in values)
        return
    shown = rows
    if not everything:
        unfinished = [row for row in rows[:-NEWEST] if row.kind != "done"]
        shown = unfinished[-UNFINISHED:] + rows[-NEWEST:]
    columns = ("partition", "is", "stage", "mode", "target", "detail")
    print_table(
        columns, [(row.key, row.kind, row.stage, row.mode, row.target, row.detail) for row in shown]
    )
    _print_arrivals(records, case.name, [row.key for row in shown])
    _print_serving(records, case.name)
    _print_release(settings, case.name)
    if settings.node_urls:
        _print_nodes(settings, case.name)
    counts = Counter(row.kind for row in rows)
    summary = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    print_line(f"{case.name}: {summary or 'no partition yet'}")


def heal(
    use_case: UseCaseArgument,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", "-n", metavar="N", min=1, help="Start at most so many, the newest first."
        ),
    ] = 10,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be started.")
    ] = False,
) -> None:
    """Start waiting partitions again, through Airflow; repair MLflow's aliases; tell what is due.

    What `evergreen status` calls waiting is started where nothing runs for it; refused, stale and
    missing partitions are not. The aliases of models in MLflow are set to what serves. Alerts about
    releases and failed tasks that nobody has taken are sent again, and ends of releases that no run
    saw are announced.
    """
    from include.orchestration import healing
    from include.orchestration.airflow_api import AirflowApi
    from include.pipeline import status as pipeline_status

    settings = current_settings()
    case = find_use_case(settings, use_case)
    records = open_records(settings)
    if not dry_run:
        for alias, number in healing.repair_aliases(settings, records, case.name).items():
            print_line(f"alias {alias} is now {number or 'removed'}, as the routing row says")
        _tell_ends(settings, case.name)
    with AirflowApi(settings) as api:
        rows = pipeline_status.status_rows(records, case)
        active = healing.find_active_keys(api, case.name, [row.key for row in rows])
        releases, queued = healing.plan_releases(records, case.name, active=active)
        taken = {item.key for item in releases}
        plan = releases + healing.plan_restarts(
            case.name, rows, active=active | queued | taken, limit=limit
        )
        for item in plan:
            if not dry_run:
                healing.restart_partition(api, item, records=records, actor=actor())
            verb = "would start" if dry_run else "started"
            print_line(f"{item.key}: {verb} {item.stage} ({item.why})")
    if not plan:
        print_line(f"{use_case}: nothing to start; see `evergreen status {use_case}` for refusals")


def _tell_ends(settings: Settings, use_case: str) -> None:
    """Deliver the alerts that are due, then announce the ends of releases that no run saw."""
    from datetime import timedelta

    from include.deployment.release_alerts import deliver_alerts
    from include.orchestration.announcing import announce_missed

    done = deliver_alerts(settings, use_case, actor=actor())
    for alert in done.delivered:
        print_line(f"delivered: {alert}")
    if done.problem:
        print_line(f"an alert is not delivered: {done.problem}")
    for release in announce_missed(settings, use_case, hand=actor(), own=timedelta(0)):
        print_line(f"announced how release {release} ended")


@audit_app.command("verify")
def audit_verify(
    anchor: Annotated[
        str | None,
        typer.Option(
            metavar="ROW:HASH",
            help="What an earlier verification printed, and you kept elsewhere.",
        ),
    ] = None,
) -> None:
    """Verify that no row of the audit log was changed, moved or removed, by its chain of hashes.

    The first such row is named. An anchor also finds rows that were cut off at the end.
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
    print_line(
        f"the audit log is whole: {sequence} rows; an anchor to keep elsewhere: {sequence}:{head}"
    )


@audit_app.command("list")
def audit_list(
    use_case: Annotated[
        str | None,
        typer.Option("--use-case", "-u", metavar="NAME", help="Only rows of this use case."),
    ] = None,
    action: Annotated[
        str | None,
        typer.Option(
            "--action",
            metavar="NAME",
            help="Only rows of this action, such as route.rolled_back.",
        ),
    ] = None,
    limit: Limit = 50,
    json: Annotated[bool, json_option(AUDIT_KEYS)] = False,
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
        print_json(dict(zip(AUDIT_KEYS, row, strict=True)) for row in values)
        return
    columns = ("row", "at", "action", "use case", "subject", "actor", "details")
    print_table(
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


def _print_arrivals(records: Records, use_case: str, keys: Sequence[str]) -> None:
    """Print which partitions took or left late rows, and since when static versions are seen."""
    from include.ingestion import ingest_data

    ingested = records.results.of(use_case, stage="ingest_data")
    for result in ingested:
        if result.key in keys and result.state == "done":
            for text in ingest_data.describe_sources(result):
                print_line(f"{result.key}, {text}")
    for text in ingest_data.describe_observation(ingested):
        print_line(text)


def _print_release(settings: Settings, use_case: str) -> None:
    """Print how far a release is, what is watched, what waits, and a freeze."""
    from include.deployment.control_release import status as release_status

    found = release_status(settings, use_case)
    for name in ("under_way", "watched", "waiting"):
        if found[name] is not None:
            print_line(f"release: {found[name]['says']}, since {found[name]['since']}")
    for probation in found["probations"]:
        print_line(f"release: {probation['says']}")
    if found["frozen"] is not None:
        print_line(f"release: frozen until {found['frozen']['until']}: {found['frozen']['reason']}")


def _print_nodes(settings: Settings, use_case: str) -> None:
    """Print what each node answers that the settings name, whatever the records have heard."""
    from include.deployment.node_orders import look_at_nodes

    for told in look_at_nodes(settings, use_case):
        if told.problem is not None:
            print_line(f"{told.url}: {told.problem}")
            continue
        version = told.answer.get("model_version")
        state = f"model {version} answers" if version is not None else "no model answers"
        print_line(f"{told.url}: {state}, generation {told.answer.get('generation', 'unknown')}")


def _print_serving(records: Records, use_case: str) -> None:
    """Print the newest models, and what each node has loaded."""
    if models := model_rows(records, use_case)[:MODELS]:
        show_models(models)
    generation = records.routes.get(use_case).generation
    for one in records.nodes.of(use_case):
        behind = "" if one.generation == generation else f" of {generation}"
        state = one.state if one.living or one.state == "stopped" else f"{one.state} (silent)"
        line = (
            f"node {one.node}: {one.role} {one.version} {state}, generation {one.generation}"
            f"{behind}, last seen {one.at:%Y-%m-%d %H:%M:%S}"
        )
        if one.reason:
            line += f": {one.reason}"
        if one.next_try:
            line += f"; next try {one.next_try:.0f} s after that"
        print_line(line)
