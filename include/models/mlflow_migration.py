"""Bring MLflow's database to the version of MLflow that is installed, and write its grants.

On PostgreSQL that is for its owner: tasks only write rows, and MLflow's server only reads them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from sqlalchemy import URL, create_engine
from sqlalchemy.pool import NullPool

from include.models.mlflow_client import connected_to, explained, only_one_process, quiet

VERSION_TABLE = "alembic_version"  # MLflow's own, which it compares at each start


def migrate(url: URL, roles: Mapping[str, bool]) -> str:
    """Make or upgrade the tables as their owner; return the revision that they have then.

    `roles` are those that may read all tables; True: that may write them too, but for the one of
    MLflow's version.

    Raises:
        Unavailable: the database does not answer, or does not let this role do it.
    """
    quiet()
    from mlflow.store.db import utils

    address = url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    with explained(address), only_one_process(address):
        engine = create_engine(address, poolclass=NullPool, hide_parameters=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MLflow's own migrations
            if not utils._all_tables_exist(engine):
                utils._initialize_tables(engine)
            elif utils._get_schema_version(engine) != utils._get_latest_schema_revision():
                utils._upgrade_db(engine)
    with connected_to(address):  # makes the first experiment, which a server that reads cannot
        quote = engine.dialect.identifier_preparer.quote_identifier
        with engine.begin() as connection:
            for name, writes in roles.items():
                role = quote(name)
                statements = [
                    f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}",
                    f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {role}",
                    f"GRANT USAGE ON SCHEMA public TO {role}",
                    f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
                ]
                if writes:
                    statements += [
                        f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
                        f"REVOKE INSERT, UPDATE, DELETE ON {VERSION_TABLE} FROM {role}",
                        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
                    ]
                for statement in statements:
                    connection.exec_driver_sql(statement)
        return str(utils._get_schema_version(engine))
