"""The commands `backup`, `restore` and `move`: all of an installation, to another place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.context import Yes, actor, current_settings, open_records
from include.cli.output import confirm, print_line

if TYPE_CHECKING:
    from include.backups.restore import Restored
    from include.config.settings import Settings
    from include.records.records import Records


def backup(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A folder, or the URI of an object store.")
    ],
    keep: Annotated[
        int,
        typer.Option(
            "--keep",
            metavar="N",
            min=0,
            help="Then remove all but the newest N backups; 0: keep all.",
        ),
    ] = 0,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="First read all of TARGET, and remove what is damaged: it is written anew.",
        ),
    ] = False,
) -> None:
    """Copy records, MLflow's database, lake and artefacts into TARGET, as of one moment.

    Everything may go on meanwhile. What TARGET has already is not copied again. Not part of it are
    Airflow's history, logs, and secrets: keep HOME/secrets (or your secret files) elsewhere. Where
    single things are missing that the records name, the rest is copied, no older backup is removed,
    and the command ends with 1. So it does where `--verify` finds damage.
    """
    from include.backups import named, take
    from include.backups import verify as verifying
    from include.backups.repository import Repository
    from include.clock import utc_now
    from include.doctor.findings import public

    settings = current_settings()
    records = open_records(settings)
    repository, who = Repository(target), actor()
    take.refuse_inside(settings, repository)
    with take.only_one(settings, records):
        found = verifying.verify(repository, print_line) if verify else verifying.Verified()
        before = take.newest_of(repository, print_line)
        manifest = take.take(
            settings, records, repository, at=utc_now(), actor=who, say=print_line, before=before
        )
        repository.write(manifest)
        take.put_on_record(records, manifest, who, utc_now())
        print_line(f"backup {manifest.name} is in {public(repository.tree.root)}")
        sequence, digest = manifest.audit
        print_line(f"  anchor of its audit log, to keep elsewhere too: {sequence}:{digest}")
        for line in verifying.after_backup(found, repository):
            print_line(f"note: {line}")
        if manifest.missing:
            print_line(
                f"note: the records name what is not there, {named.told(manifest.missing)}: put "
                "it back from an earlier backup, or make it again; until then no backup is removed"
            )
            raise typer.Exit(1)
        if keep:
            gone, pieces = repository.forget(keep, now=utc_now().timestamp())
            print_line(f"  {gone} older backups are removed, with {pieces} pieces")
        if found:
            raise typer.Exit(1)


def restore(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Where `evergreen backup` has put it.")
    ],
    name: Annotated[
        str, typer.Option("--backup", metavar="NAME", help="Which one; else the newest.")
    ] = "",
    yes: Yes = False,
) -> None:
    """Bring a backup into this installation, which must be empty, and raise the epoch.

    The settings say where it goes: another home, PostgreSQL instead of SQLite, a lake in an object
    store. On a PostgreSQL with roles it needs EVERGREEN_RECORDS_OWNER_URL (in compose: the service
    `owner`). Killed half-way, run it again.
    """
    from include.backups.repository import Repository
    from include.backups.restore import restore as restore_backup
    from include.clock import utc_now

    settings = current_settings()
    repository = Repository(source)
    manifest = repository.manifest(name)
    records = _as_owner(settings)
    print_line(
        f"backup {manifest.name} of {manifest.at}: {manifest.file_count} files, "
        f"{manifest.file_bytes / 1e6:.1f} MB, of {', '.join(manifest.use_cases) or 'no use case'}"
    )
    confirm(f"Restore it into {records.database.name} and {settings.home}?", yes=yes)
    made = restore_backup(
        settings,
        records,
        repository,
        manifest,
        at=utc_now(),
        actor=actor(),
        say=print_line,
        origin=source,
    )
    _finish(settings, records, made)


def move(
    home: Annotated[
        Path, typer.Option("--from", metavar="HOME", help="The home folder; it must be stopped.")
    ],
    yes: Yes = False,
) -> None:
    """Bring a stopped home into this installation, such as a laptop's into compose.

    Records, MLflow's database, lake and artefacts go where the settings say; the online features
    are written anew. The home stays as it was. On a PostgreSQL with roles it needs
    EVERGREEN_RECORDS_OWNER_URL (in compose: the service `owner`). Killed half-way, run it again.
    """
    from include.backups.move import move as move_home
    from include.clock import utc_now

    settings = current_settings()
    records = _as_owner(settings)
    confirm(f"Move {home} into {records.database.name} and {settings.home}?", yes=yes)
    made = move_home(home, settings, records, at=utc_now(), actor=actor(), say=print_line)
    _finish(settings, records, made)


def _as_owner(settings: Settings) -> Records:
    """Return the records as their owner opens them: other roles may write no audit row anew.

    Raises:
        ConfigError: the address is another role's.
    """
    from include.installation.databases import owners_records
    from include.records.migrate import refuse_other_role

    open_records(settings).close()
    records = owners_records(settings)
    refuse_other_role(records.database)
    return records


def _finish(settings: Settings, records: Records, made: Restored) -> None:
    """Verify the champions, write the online features, and say what came of it."""
    from include.backups.after import bring_online, examine_champions

    examine_champions(settings, records, made)
    bring_online(settings, records, made, actor=actor(), say=print_line)
    print_line(f"{made.copied} of {made.files} files were copied, the others were there")
    for use_case, version in sorted(made.champions.items()):
        print_line(f"{use_case}: model {version} is champion, its files are as recorded")
    print_line(f"the records are in epoch {made.epoch}; nodes follow them at once")
    for note in made.notes:
        print_line(f"note: {note}")
