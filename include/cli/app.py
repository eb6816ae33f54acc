"""`evergreen ...`: everything that a DAG does, from a shell, and what only people do.

Commands import what they need when they run, so `evergreen --help` is quick. Exit codes are those
of include/errors.py. An argument that resembles a right one is answered with the command as it was
probably meant.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from include.cli import (
    backfill,
    backups,
    doctor,
    gc,
    installation,
    keys,
    models,
    new_use_case,
    predictions,
    quarantine,
    records,
    release,
    release_simulation,
    rollback,
    run,
    try_use_case,
    use_case,
)
from include.cli.output import print_line, without_secrets
from include.cli.panels import Panels
from include.cli.suggestions import Mistake
from include.config.no_telemetry import QUIET
from include.errors import EvergreenError
from include.object_stores import redacted

log = logging.getLogger(__name__)

UNEXPECTED = 70  # exit code of an error that is none of ours, as in sysexits.h

app = typer.Typer(
    name="evergreen",
    cls=Panels,
    help="Keeps models on tables up to date: trained, judged and released every period, only on "
    "what was known at the time.",
    epilog="`evergreen COMMAND --help` says what a command does, and lists its options.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    suggest_commands=False,  # Panels does, with the arguments that were given
)
for command in (
    run.run,
    backfill.backfill,
    backfill.score,
    models.models,
    records.status,
    records.heal,
    rollback.rollback,
    new_use_case.new,
    use_case.simulate,
    installation.password,
    installation.token,
    installation.migrate,
    installation.serve,
    installation.up,
    installation.stop,
    installation.reset,
    gc.gc,
    backups.backup,
    backups.restore,
    backups.move,
    doctor.doctor,
):
    app.command()(command)
app.command("load-history")(run.load_history)
app.command("import-predictions")(predictions.import_predictions)
app.command("airflow-init")(installation.airflow_init)
app.command("try")(try_use_case.try_use_case)  # a word of Python: no function has this name
app.command("run-all", hidden=True)(installation.up)
release.release_app.command()(release_simulation.simulate)
app.add_typer(release.release_app, name="release")
app.add_typer(use_case.usecase_app, name="usecase")
app.add_typer(records.audit_app, name="audit")
app.add_typer(keys.keys_app, name="keys")
app.add_typer(quarantine.quarantine_app, name="quarantine")


@app.callback()
def configure(
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Log each step on standard error; give it before the command."
        ),
    ] = False,
) -> None:
    """Keep models on tables up to date."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("include").setLevel(logging.INFO if verbose else logging.WARNING)

    def ours(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.name.startswith("include")

    for handler in logging.getLogger().handlers:
        handler.addFilter(ours)  # libraries set levels of their own when they are imported
    if not verbose:
        warnings.simplefilter("ignore")


@app.command()
def version() -> None:
    """Print the version of Evergreen."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        print_line(f"evergreen {version('evergreen')}")
    except PackageNotFoundError:
        print_line("evergreen (not installed; runs from its source folder)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; an EvergreenError ends as one clear line and its exit code.

    No library reports its use.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # For every process that this one starts too: what is written holds people's data.
    os.umask(0o077)
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app(args=given, prog_name="evergreen")
    except EvergreenError as error:
        message = error.with_suggestion(given) if isinstance(error, Mistake) else str(error)
        sys.stderr.write(f"evergreen: {without_secrets(message)}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no bare traceback
        where = (
            traceback.format_exc()
            if log.isEnabledFor(logging.INFO)
            else "run it with `evergreen -v ...` to see where\n"
        )
        reason = redacted(f"{type(error).__name__}: {error}".splitlines()[0])
        sys.stderr.write(without_secrets(f"evergreen: unexpected {reason}; {redacted(where)}"))
        sys.exit(UNEXPECTED)
