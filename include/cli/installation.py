"""Commands about everything on this machine: password, serve, up, stop, reset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from include.cli.context import (
    UseCaseArgument,
    Yes,
    actor,
    current_settings,
    find_use_case,
    open_records,
)
from include.cli.output import confirm, print_line, print_table
from include.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from include.config.tokens import Role

RECORDS_SECONDS = 2.0  # for so long a node that starts waits for the records


def password(
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Those for MLflow's pages.")] = False,
) -> None:
    """Show users and passwords for Airflow's pages, or those for MLflow's."""
    from include.installation import mlflow_login
    from include.orchestration.airflow_login import passwords_of

    settings = current_settings()
    if mlflow:
        secret = settings.secret(mlflow_login.PASSWORD)
        print_line(f"{mlflow_login.ADMIN} {secret.get_secret_value()}")
        return
    try:
        for user, secret in passwords_of(settings).items():
            print_line(f"{user} {secret.get_secret_value()}")
    except Unavailable as error:
        raise ConfigError(str(error)) from None


def airflow_init() -> None:
    """Set up Airflow's own database: tables, and what workers and several users need.

    That is the pool of heavy tasks (EVERGREEN_EXECUTOR=celery), and roles and users
    (EVERGREEN_AIRFLOW_AUTH=fab). `make run` does all of it by itself. It may be repeated: a
    password that was replaced is set anew.
    """
    from include.installation.airflow_database import set_up

    set_up(current_settings(), say=print_line)


def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is: the audit log has it.")],
    role: Annotated[
        list[str],
        typer.Option(
            "--role",
            metavar="ROLE",
            help="predict, read or operate; give it again for more than one.",
        ),
    ],
) -> None:
    """Make a token of the serving node, and show its secret: no command shows it again.

    It goes into HOME/secrets/tokens, which a running node follows. Take its line out to revoke it.
    """
    from include.config.tokens import add_token

    print_line(add_token(current_settings(), name, cast(list["Role"], role)).get_secret_value())


def migrate() -> None:
    """Bring all databases to this version, as their owner, and write what each role may do.

    On one machine that happens by itself. On PostgreSQL run it before anything else of a new
    version, with EVERGREEN_RECORDS_OWNER_URL set; with EVERGREEN_POSTGRES_ADMIN_URL it also makes
    the roles and databases that the other addresses name. It verifies the audit log too. It can be
    run again at any time.
    """
    from include.installation.databases import migrate as migrate_all

    settings = current_settings()
    settings.make_home()
    migrate_all(settings, say=print_line)


def serve() -> None:
    """Run only the serving node, until Ctrl-C; `evergreen up` runs it with everything else.

    Where the records cannot be reached it starts from the rows that it has read last.
    """
    from include.clock import utc_now
    from include.deployment.adoption import adopt_addresses, adopt_signatures
    from include.deployment.apply import adopt_artefacts, adopt_use_cases
    from include.serving.node import serve as serve_node

    settings = current_settings()
    try:
        records = open_records(settings, patience=RECORDS_SECONDS)
        adopt_use_cases(settings, records)
        adopt_artefacts(settings, records)
        adopt_addresses(settings, records)
        is_embedded = not settings.records_url.get_secret_value()
        adopt_signatures(settings, records, at=utc_now(), makes_key=is_embedded)
    except Unavailable as error:
        print_line(f"{error}; the node starts all the same, from the rows that it can read")
    serve_node(settings)


def up(
    use_case: Annotated[
        str | None,
        typer.Option(
            "--use-case", "-u", metavar="NAME", help="Name of a use case; else repayment."
        ),
    ] = None,
    days: Annotated[
        int,
        typer.Option(
            "--days",
            metavar="N",
            min=0,
            help="Also backfill the N partitions before the newest.",
        ),
    ] = 0,
    once: Annotated[
        bool,
        typer.Option("--once", help="Stop everything after the answer, instead of going on."),
    ] = False,
) -> None:
    """Start everything, run the newest partition through Airflow, and answer a request.

    The same as `make run`. Ctrl-C stops everything.
    """
    from include.installation.up import run_main

    settings = current_settings()
    if use_case is not None:
        find_use_case(settings, use_case)
    raise typer.Exit(run_main(use_case=use_case, once=once, days=days))


def stop() -> None:
    """Stop everything that `evergreen up` has started, from another shell.

    Of the installation in EVERGREEN_HOME.
    """
    from include.installation.supervisor import stop as stop_all

    print_line(stop_all(current_settings()))


def reset(use_case: UseCaseArgument, yes: Yes = False) -> None:
    """Delete everything that was made of a use case; its file and the audit log stay.

    That is its lake, records, models, online rows, reports, and what MLflow shows of it (its runs
    are marked as deleted there). It undoes `evergreen try` too. Shows what there is, then asks.
    """
    from include.installation import reset as resetting

    settings = current_settings()
    records = open_records(settings)
    state = resetting.preview(settings, records, use_case)
    if state.empty:
        find_use_case(settings, use_case)  # refuses an unknown name; of a known one nothing is left
        print_line(f"{use_case}: there is nothing to delete")
        return
    print_table(("what", "amount"), state.rows())
    confirm(f"Delete all of this of {use_case}? It cannot be undone.", yes=yes)
    resetting.reset(settings, records, use_case, actor=actor())
    print_line(f"{use_case} is reset; the audit log has an entry")
