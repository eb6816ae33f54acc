"""What the commands share: their options, the settings, the records, a use case and its keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.suggestions import Mistake, nearest, nearest_key
from include.errors import ConfigError

if TYPE_CHECKING:
    from include.config.settings import Settings
    from include.config.use_case import UseCase
    from include.records.records import Records, Route

UseCaseArgument = Annotated[
    str, typer.Argument(metavar="USE_CASE", help="Name of a use case, such as repayment.")
]
UseCaseOption = Annotated[
    str,
    typer.Option("--use-case", "-u", metavar="NAME", help="Name of a use case, such as repayment."),
]
COMMAND_SECONDS = 10.0  # for so long a command waits for a database that is away
KEY_HELP = "Key of a partition: the first day of its period, YYYY-MM-DD."
Partition = Annotated[str | None, typer.Option("--partition", "-p", metavar="KEY", help=KEY_HELP)]
First = Annotated[
    str | None, typer.Option("--from", metavar="KEY", help="First partition of a range.")
]
Last = Annotated[
    str | None, typer.Option("--to", metavar="KEY", help="Last partition of a range, included.")
]
Limit = Annotated[
    int, typer.Option("--limit", "-n", metavar="N", min=1, help="At most so many rows.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why you do it; kept in the audit log.")
]


def current_settings() -> Settings:
    """Return the settings.

    Raises:
        ConfigError: a wrong one; the message names its variable and never shows its value.
    """
    from include.config.settings import settings

    found = settings()
    # A person is there, and is told sooner than a task.
    return found.model_copy(
        update={"database_patience": min(found.database_patience, COMMAND_SECONDS)}
    )


def open_records(settings: Settings, *, patience: float = COMMAND_SECONDS) -> Records:
    """Return the records, with their tables of this version.

    A connection that is lost is tried again for `patience` seconds.
    """
    from include.records.records import Records

    settings.make_home()
    if settings.records_owner_url.get_secret_value():
        from include.installation.databases import migrate_records

        migrate_records(settings)
    records = Records.open(settings.records_address, patience=patience, pool=settings.database_pool)
    records.migrate()
    return records


def find_use_case(settings: Settings, name: str) -> UseCase:
    """Return a use case by its name.

    Raises:
        Mistake: there is none of this name.
        ConfigError: its file is wrong.
    """
    from include.config.use_case_file import files, find

    names = {path.stem for path in files(settings.usecase_dirs)}
    try:
        return find(name, settings.usecase_dirs)
    except ConfigError as error:
        if name in names:
            raise
        raise Mistake(str(error), wrong=name, meant=nearest(Path(name).stem, names)) from None


def recorded_route(settings: Settings, records: Records, name: str) -> Route:
    """Return the routing row of a use case by its name, without a look into its file.

    What serves is decided by the records: a file that cannot be read is in nobody's way.

    Raises:
        Mistake: neither the records nor a file's name know it.
    """
    from contextlib import suppress

    from include.config.use_case_file import files

    known = set(records.routes.names())
    if name not in known:
        with suppress(OSError, ConfigError):
            known |= {path.stem for path in files(settings.usecase_dirs)}
    if name not in known:
        listed = ", ".join(sorted(known)) or "none"
        text = f"no use case {name!r} is in the records, which know {listed}"
        raise Mistake(text, wrong=name, meant=nearest(name, known))
    return records.routes.get(name)


def checked_key(use_case: UseCase, key: str) -> str:
    """Return a partition key, once it is known to be one of the use case.

    Raises:
        Mistake: it is malformed, or outside the use case's history.
    """
    from include.clock import utc_now
    from include.point_in_time.partitions import period

    try:
        return period(use_case, key).key
    except ConfigError as error:
        raise Mistake(str(error), wrong=key, meant=nearest_key(use_case, key, utc_now())) from None


def wanted_keys(
    use_case: UseCase, partition: str | None, first: str | None, last: str | None
) -> list[str]:
    """Return the keys that `--partition`, or `--from` and `--to`, name."""
    if partition is not None and first is None and last is None:
        return [checked_key(use_case, partition)]
    if partition is None and first is not None and last is not None:
        return keys_between(use_case, first, last)
    raise ConfigError("give either --partition KEY, or --from KEY and --to KEY")


def keys_between(use_case: UseCase, first: str, last: str) -> list[str]:
    """Return the keys from `first` to `last`, both included and at least one."""
    from include.point_in_time.partitions import between

    keys = between(use_case, checked_key(use_case, first), checked_key(use_case, last))
    if not keys:
        raise ConfigError(f"--from {first} is after --to {last}; swap them")
    return keys


def newest_for(use_case: UseCase, keys: Sequence[str]) -> str:
    """Return the newest complete partition of a use case; no key may be after it.

    Raises:
        Mistake: a key is, so its partition is not complete yet.
    """
    from include.clock import utc_now
    from include.point_in_time.partitions import newest_complete

    newest = newest_complete(use_case, utc_now())
    late = [key for key in keys if newest is None or key > newest]
    if newest is None or late:
        wrong = late[0] if late else use_case.history.first.isoformat()
        message = (
            f"partition {wrong} of {use_case.name} is not complete yet; the newest complete "
            f"one is {newest or 'none'}"
        )
        raise Mistake(message, wrong=wrong, meant=newest)
    return newest


def actor() -> str:
    """Return who gives the command, for the audit record."""
    import getpass

    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"
