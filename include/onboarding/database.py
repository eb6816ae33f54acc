"""A table of a database as what a draft is made from: `postgresql://user@host/db/schema.table`.

No password goes into the draft: its source names the variable of the environment that will hold the
URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from include.errors import ConfigError
from include.ingestion.sql_source import sample_table
from include.object_stores import SCHEMES
from include.object_stores import shown as without_secrets
from include.onboarding.profile import Delivered, Table

MOST = 200_000  # rows that a draft is made from
_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
"""The drivers that are looked for, where a URL names none."""
_SECRETS = ("password", "passwd", "pwd", "sslpassword")
"""Parameters of a URL that drivers read a password from."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a table is: the URL of its database without a password, and its name there."""

    url: str
    password: str | None
    table: tuple[str, ...]
    variable: str


def is_address(text: str) -> bool:
    """Tell whether a text names a table of a database rather than a file."""
    return re.match(r"[a-z][a-z0-9+_]*://", text) is not None


def parse_address(text: str) -> Address:
    """Return what an address says.

    Raises:
        ConfigError: it is no URL that ends in a table.
    """
    import sqlalchemy

    if text.partition("://")[0] in SCHEMES:
        raise ConfigError(
            f"{without_secrets(text)} is an object store's, and a draft is made from a table on "
            "this machine; copy one of its files here and draft from that, then write `path: "
            f"{without_secrets(text)}` under its source"
        )
    wanted = "write dialect://user@host/db/schema.table"
    try:
        url = sqlalchemy.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # a port that is none
        raise ConfigError(f"the address of a database cannot be read; {wanted}") from None
    database, slash, table = (url.database or "").rpartition("/")
    parts = tuple(table.split("."))
    if not slash or not database or not all(parts) or len(parts) > 2:
        shown = url.set(
            query={name: value for name, value in url.query.items() if not _is_secret(name)}
        ).render_as_string(hide_password=True)
        raise ConfigError(f"{shown} names no table of a database; {wanted}")
    base = re.sub(r"[^A-Z0-9]+", "_", database.rpartition("/")[2].upper()).strip("_")
    base = base if base[:1].isalpha() else f"DB_{base}"
    driver = _DRIVERS.get(url.drivername, url.drivername)
    # A password in the query is one as well: drivers take it from there.
    asides = [value for name, value in url.query.items() if _is_secret(name)]
    password = url.password if url.password is not None else next(iter(asides), None)
    query = {name: value for name, value in url.query.items() if not _is_secret(name)}
    # Not by `url.set(password=None)`: there None means to leave it as it is.
    whole = sqlalchemy.URL.create(driver, url.username, None, url.host, url.port, database, query)
    return Address(
        whole.render_as_string(hide_password=False),
        _text_of(password),
        parts,
        f"{base}_URL",
    )


def _is_secret(name: str) -> bool:
    return name.lower() in _SECRETS


def _text_of(password: object) -> str | None:
    """Return a password of a URL as text; of one that is given twice the last."""
    if password is None:
        return None
    return str(password[-1]) if isinstance(password, tuple) else str(password)


def read_database(address: Address) -> Table:
    """Return a table of a database, of which a sample is read where it is large.

    Raises:
        ConfigError: the URL cannot be used.
        SourceError: the database does not answer, or the table has no rows.
    """
    rows, name = sample_table(address.url, address.table, MOST + 1, address.password)
    sampled = len(rows) > MOST
    rows = rows.slice(0, MOST)
    cells = {f"c{place}": rows.column(place) for place in range(rows.num_columns)}
    cells["row"] = pa.chunked_array([pa.array(range(1, len(rows) + 1), pa.int64())])
    answer = {"columns": rows.column_names, "dialect": None, "nested": {}}
    source = (
        f"    sql: {{url_env: {address.variable}, query: {_quoted(f'SELECT * FROM {name}')}}}",
        f"    # only the first {MOST} rows that the database gave were looked at"
        if sampled
        else "",
    )
    return Table(
        Path(address.table[-1]),
        Delivered("sql", answer, pa.table(cells), tuple(line for line in source if line)),
    )


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)
