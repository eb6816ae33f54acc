"""Keep Airflow's database bounded: what was over long ago is removed by Airflow's own command.

It runs as a child with an environment of its own: tasks, from which it is asked for, are kept from
that database by Airflow.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import NullPool, create_engine, inspect, text

from include import processes
from include.clock import utc_now
from include.config.settings import Settings
from include.config.settings import settings as current_settings
from include.errors import Unavailable
from include.installation.environment import child_environment
from include.installation.housekeeping import remove_oldest
from include.pipeline.task_records import task_records
from include.records.records import AuditEntry, AuditRecord, Records

log = logging.getLogger(__name__)

ACTION = "airflow.trimmed"
EVERYWHERE = ""  # in place of a use case: it is about all of them
TIMEOUT = 3600.0  # seconds: of a first run there are years to remove
BATCH = 10_000  # rows that are removed at once: the scheduler waits for so long for the database
SHOWN = 8  # last lines of a failed command
# Use cases ask for it each at its own minute of the night: the first one is enough.
PAUSE = timedelta(hours=20)
_HELD = re.compile(r"_airflow_deleted__\w+?__(\d{14})(?:__b\d+)?")
_FOUND = re.compile(r"^Checking table (\w+)\s*\nFound (\d+) rows", re.MULTILINE)


def trim(
    settings: Settings,
    records: Records,
    *,
    at: datetime,
    actor: str,
    dry_run: bool = False,
    nightly: bool = False,
) -> dict[str, int]:
    """Remove what is older than `EVERGREEN_AIRFLOW_DAYS`; return how many rows, by table.

    `at` is now. With `nightly` nothing happens where it was done within the last 20 hours, or where
    Airflow is not here for so long.

    Raises:
        Busy: another one is at work.
        Unavailable: Airflow's command fails; the message ends with what it printed.
    """
    if not _is_here(settings):
        return {}
    if nightly and _is_young(settings, at):
        return {}
    if dry_run:
        return _clean(settings, at, "--dry-run")
    with records.leases.claim(
        EVERYWHERE,
        "trim_airflow",
        "all",
        owner=f"trim@{socket.gethostname()}:{os.getpid()}",
        attempt=1,
        ttl=settings.lease_seconds,
    ):
        done = _runs(records)
        if nightly and done and at - done[-1].at < PAUSE:
            return {}
        # First the row: a kill leaves nothing removed that no row tells of.
        _drop_left_behind(settings, [entry.at for entry in done])
        details = {"before": _before(settings, at).isoformat()}
        records.audit.append(AuditEntry(ACTION, EVERYWHERE, "airflow.db", actor, details, at))
        rows = _clean(settings, at, "--skip-archive", "--yes")
    log.info("airflow.db: %d rows removed", sum(rows.values()))
    return rows


def trim_tonight(*, actor: str) -> dict[str, int]:
    """Do what the task of each use case's DAG does: trim, unless another one's has tonight.

    Logs of tasks that several machines write to one folder are bounded here too: there is no
    supervisor that does it.

    Raises: as `trim`.
        OSError: a log cannot be removed.
    """
    here, now = current_settings(), utc_now()
    if here.task_logs is not None:
        bound = round(here.task_log_megabytes * 1e6)
        removed = remove_oldest(here.task_log_folder, bound, now.timestamp())
        log.info("%d logs of tasks removed from %s", removed, here.task_log_folder)
    records = task_records(here)
    return trim(here, records, at=now, actor=actor, nightly=True)


def _runs(records: Records) -> list[AuditRecord]:
    """Return the newest runs on record, the last one last."""
    return records.audit.entries(EVERYWHERE, action=ACTION, limit=100)


def _is_here(settings: Settings) -> bool:
    """Tell whether this process may reach Airflow's database: a Celery worker may not."""
    given = settings.airflow_database_url.get_secret_value()
    return bool(given) or (settings.home / "airflow" / "airflow.db").exists()


def _drop_left_behind(settings: Settings, runs: list[datetime]) -> None:
    """Drop the tables in which killed runs held what they were removing.

    Airflow's command gives such a table the moment in its name. Those that a person keeps, of a
    command without `--skip-archive`, were made at other times.
    """
    # On SQLite the scheduler may hold the file for as long.
    wait = {} if settings.airflow_database_url.get_secret_value() else {"timeout": 60}
    engine = create_engine(settings.airflow_database, poolclass=NullPool, connect_args=wait)
    with engine.begin() as database:
        names = inspect(database).get_table_names()
        for match in filter(None, map(_HELD.fullmatch, names)):
            made = datetime.strptime(match.group(1), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
            if any(0 <= (made - run).total_seconds() + 1 <= TIMEOUT + 1 for run in runs):
                database.execute(text(f'DROP TABLE "{match.group()}"'))


def _is_young(settings: Settings, at: datetime) -> bool:
    """Tell whether the installation has nothing so old yet; the first start has more to do."""
    try:
        made = settings.secret_path("airflow_fernet").stat().st_mtime
    except FileNotFoundError:
        return False
    return made > _before(settings, at).timestamp()


def _before(settings: Settings, at: datetime) -> datetime:
    return at - timedelta(days=settings.airflow_days)


def _clean(settings: Settings, at: datetime, *options: str) -> dict[str, int]:
    command = processes.python_module(
        "airflow",
        *("db", "clean", "--clean-before-timestamp", _before(settings, at).isoformat()),
        *("--batch-size", str(BATCH), "--error-on-cleanup-failure", *options),
    )
    environment = child_environment(settings, "history")
    try:
        done = processes.run(command, environment=environment, folder=Path("/"), timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"Airflow's database was not cleaned within {TIMEOUT:.0f} s; run `evergreen gc` again: "
            "it goes on where this ended"
        ) from None
    printed = done.stdout.decode(errors="replace")
    if done.returncode:
        lines = (printed + done.stderr.decode(errors="replace")).strip().splitlines()[-SHOWN:]
        told = "\n".join(f"  {line}" for line in lines)
        raise Unavailable(f"Airflow's database could not be cleaned; run it again:\n{told}")
    return {table: int(rows) for table, rows in _FOUND.findall(printed) if int(rows)}
