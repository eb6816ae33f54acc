"""Bring every database of an installation to this version, and write what each role may do.

On one machine that happens by itself, as everything starts. On PostgreSQL it is the work of one
process, `evergreen migrate`, which alone has the owner's password. Killed anywhere, it is run
again.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import make_url

from include.clock import utc_now
from include.config.settings import Settings
from include.deployment.adoption import adopt_addresses, adopt_signatures
from include.deployment.apply import adopt_artefacts, adopt_use_cases
from include.errors import ConfigError, EvergreenError
from include.features import feast_tables
from include.installation.postgres_roles import OWNER, make_roles, postgres_url, role_of
from include.models import mlflow_migration
from include.records.records import Records, Roles
from include.records.schema import HEAD


def migrate_records(settings: Settings) -> None:
    """Bring the records to this version if this process may.

    Raises:
        ConfigError: they are older, and this process may not migrate them; or newer.
    """
    records = owners_records(settings)
    records.migrate(roles=roles_of(settings) if _has_owner(settings) else None)


def _has_owner(settings: Settings) -> bool:
    return bool(settings.records_owner_url.get_secret_value())


def owners_records(settings: Settings) -> Records:
    """Return the records as their owner opens them."""
    address = settings.records_owner_url.get_secret_value() or settings.records_address
    return Records.open(address, pool=settings.database_pool)


def roles_of(settings: Settings) -> Roles:
    """Return the roles of workers and nodes, as the addresses of the settings name them."""
    worker = role_of(settings, "records_url")
    if worker == (role_of(settings, OWNER) or worker):
        worker = None  # the owner itself
    return Roles(worker=worker, node=role_of(settings, "records_node_url"))


def migrate(settings: Settings, *, say: Callable[[str], None]) -> None:
    """Make roles and databases, migrate all tables, write all grants, and verify the audit log.

    Each step is told with `say`, and changes nothing where it was done before.

    Raises:
        EvergreenError: a step fails; those before it stay.
    """
    if settings.postgres_admin_url.get_secret_value():
        say(f"roles and databases: {', '.join(make_roles(settings)) or 'all there'}")
    records, roles = owners_records(settings), roles_of(settings)
    migrated = records.migrate(roles=roles)
    was = "new" if migrated.before is None else f"were at {migrated.before}"
    say(
        f"records: tables at {HEAD} ({'as before' if migrated.before == HEAD else was}) in "
        f"{records.database.name}"
    )
    for who, role, granted in (
        ("workers", roles.worker, migrated.roles.worker),
        ("nodes", roles.node, migrated.roles.node),
    ):
        if granted is not None:
            say(f"records: {granted} may do what {who} do")
        elif role is not None:
            raise ConfigError(
                f"the server has no role {role} that could be restricted to what {who} do (there "
                "is none, or it is a superuser or the owner): make one, or give "
                "EVERGREEN_POSTGRES_ADMIN_URL, which makes it"
            )
    if fault := records.audit.verify():
        raise EvergreenError(
            f"the audit log is broken: row {fault.sequence} {fault.reason}; compare with a copy of "
            "the database before anything runs"
        )
    sequence, digest = records.audit.head()
    say(f"audit log: whole, {sequence} rows; an anchor to keep elsewhere: {sequence}:{digest}")
    adopted = [*adopt_use_cases(settings, records), *adopt_artefacts(settings, records)]
    adopt_addresses(settings, records)
    signed = adopt_signatures(settings, records, at=utc_now())
    if signed:
        say(f"signed at upgrade: {', '.join(signed)}")
    if adopted:
        say(f"taken over from the version before: {', '.join(adopted)}")
    _migrate_feast(settings, migrated.roles.worker, say)
    _migrate_mlflow(settings, say)


def _migrate_feast(settings: Settings, worker: str | None, say: Callable[[str], None]) -> None:
    address = postgres_url(settings, OWNER) or postgres_url(settings, "records_url")
    if address is None:
        return  # a file, which is made as it is written
    feast_tables.migrate(address, worker=worker)
    say(f"feast: tables of its registry in schema {feast_tables.SCHEMA}")


def mlflow_owner_address(settings: Settings) -> str:
    """Return the address of MLflow's database as its owner opens it, with a password; not to log.

    Without an owner's address it is that of the tasks.
    """
    address, owner = postgres_url(settings, "mlflow_uri"), postgres_url(settings, OWNER)
    if address is None or owner is None:
        return settings.mlflow_address
    mine = address.set(username=owner.username, password=owner.password)
    return mine.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _migrate_mlflow(settings: Settings, say: Callable[[str], None]) -> None:
    address = postgres_url(settings, "mlflow_uri")
    if address is None:
        return  # a file, whose tables are made as it is first used; or a server's
    writer, reader = address.username, role_of(settings, "mlflow_reader_uri")
    address = make_url(mlflow_owner_address(settings))
    roles = {
        role: writes
        for role, writes in ((writer, True), (reader, False))
        if role is not None and role != address.username
    }
    revision = mlflow_migration.migrate(address, roles)
    said = "".join(f"; {role} {'writes' if writes else 'reads'}" for role, writes in roles.items())
    say(f"mlflow: tables at {revision}{said}")
