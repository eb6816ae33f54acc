"""SQL sources: a table or query behind a SQLAlchemy URL, read as text by server-side cursors.

The URL stands in an environment variable that the use case names; neither it nor its password is
ever shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from include.config.settings import environment_secret
from include.config.use_case import UseCase
from include.config.use_case_origins import SqlQuery
from include.config.use_case_sources import Source
from include.errors import ConfigError, SourceError
from include.lake.sql import connect, quote, text_literal
from include.point_in_time.partitions import Period

BATCH = 50_000  # rows
# Around the bounds that are pushed down: time zones and `date_means` move a row by less; the exact
# cut is ingestion's.
MARGIN = timedelta(days=2)
# PostgreSQL's object ids of types.
_DATE, _TIMESTAMP, _TIMESTAMPTZ = 1082, 1114, 1184
_FLOATS = (700, 701, 1700)  # float4, float8, numeric: the types that have a NaN
# Types of MySQL's protocol.
_MYSQL = ("mysql", "mariadb")
_MYSQL_MOMENT, _MYSQL_BITS = 7, 16  # timestamp, which is a moment as datetime is none; bit
_MYSQL_TIMES = (_MYSQL_MOMENT, 10, 12, 14)  # with date, datetime, newdate
# A read that loses its database is begun anew, as a whole: so often, with growing pauses.
ATTEMPTS = 4
PAUSE = 0.5  # seconds
CONNECT_SECONDS = 10


def read_sql(name: str, use_case: UseCase, periods: Sequence[Period]) -> pa.Table:
    """Return the rows of a SQL source as text columns.

    PostgreSQL, MySQL and MariaDB give only those that may arrive in the periods, where a column of
    a time type says when; other databases give all, since their columns have no such type. Rows
    without an arrival time come always: they belong to the first partition of the source's history,
    whenever they come.

    Raises:
        SourceError: the database does not answer, or refuses the query.
    """
    import sqlalchemy

    source = use_case.sources[name]
    spec = source.sql
    if spec is None:
        raise ConfigError(f"{use_case.name}: source {name} has no sql")
    url = environment_secret(spec.url_env)
    if url is None:
        raise ConfigError(
            f"{use_case.name}, source {name}: set {spec.url_env} to the SQLAlchemy URL of its "
            "database"
        )
    # A line of its own, so that a comment at the query's end ends there, whatever is put around it.
    secret, query = url.get_secret_value(), spec.query.strip().rstrip(";") + "\n"
    try:
        parsed = sqlalchemy.make_url(secret)
        engine = sqlalchemy.create_engine(
            parsed, poolclass=sqlalchemy.NullPool, connect_args=_patience(parsed)
        )
    except (sqlalchemy.exc.ArgumentError, ImportError):
        raise ConfigError(
            f"{spec.url_env} holds no SQLAlchemy URL that can be used; write "
            "dialect+driver://user:password@host/db"
        ) from None
    if engine.dialect.paramstyle in ("format", "pyformat"):
        query = query.replace("%", "%%")  # the driver reads % as the start of a parameter
    try:
        # Nothing is kept of a read that was cut off: the next begins anew.
        for attempt in Retrying(
            retry=retry_if_exception(_is_away),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=PAUSE, max=10),
            reraise=True,
        ):
            with attempt, engine.connect() as link:
                return _read(link, query, source, use_case, periods)
    except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        raise SourceError(
            _message(name, use_case, spec, error, [secret, parsed.password])
        ) from None
    finally:
        engine.dispose()
    raise AssertionError("the last attempt returns or raises")


def _patience(url: Any) -> dict[str, Any]:
    """Return what the drivers that are installed are told of a database that does not answer."""
    driver = url.get_driver_name()
    if driver not in ("psycopg", "psycopg2", "pymysql", "mysqldb"):
        return {}
    given: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS}
    if driver.startswith("psycopg"):
        # Else a machine that is gone in the middle of a read is noticed after two hours.
        given |= {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    return {name: value for name, value in given.items() if name not in url.query}


def _is_away(error: BaseException) -> bool:
    """Tell whether a database was lost or is not there yet, rather than that it refuses."""
    import sqlalchemy

    if isinstance(error, OSError):
        return True
    if not isinstance(error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError):
        return False
    code = getattr(error.orig, "sqlstate", None) or (getattr(error.orig, "args", ()) or (None,))[0]
    # PostgreSQL's classes 08 and 57, and no code where it did not even answer; MySQL's own numbers.
    lost = (1053, 1927, 2002, 2003, 2006, 2013)
    if isinstance(code, int):
        return code in lost
    is_coded = isinstance(code, str) and re.fullmatch("[0-9A-Z]{5}", code) is not None
    refused = re.search(r"password|authentication|does not exist|no such", str(error.orig))
    return code.startswith(("08", "57P")) if is_coded else refused is None  # type: ignore[union-attr]


def _read(
    link: Any, query: str, source: Source, use_case: UseCase, periods: Sequence[Period]
) -> pa.Table:
    """Read a query in a transaction that can change nothing, as the database's kind needs it."""
    kind = link.engine.dialect.name
    if kind == "postgresql":
        return _postgresql(link, query, source, use_case, periods)
    if kind in _MYSQL:
        _set_up_mysql(link)
        query = _within_mysql(link, query, source, periods)
    elif kind == "sqlite":
        link.exec_driver_sql("PRAGMA query_only = ON")
    streamed = link.execution_options(stream_results=True, max_row_buffer=BATCH)
    # In UTC their text says nothing of a zone, as it always did; in another they would be taken for
    # its local times.
    return _any(streamed, query, use_case.name, zoned=source.timezone.upper() != "UTC")


def _set_up_mysql(link: Any) -> None:
    # Times are those of the session's zone: UTC, whatever the server is set to.
    link.exec_driver_sql("SET time_zone = '+00:00'")
    link.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
    link.commit()  # it holds for the next transaction


def _within_mysql(link: Any, query: str, source: Source, periods: Sequence[Period]) -> str:
    """Return a query of the rows that may arrive in some periods, where a column tells."""
    name = _arrival_column(source)
    if name is None:
        return query
    described = link.exec_driver_sql(
        f"SELECT * FROM ({query}) AS source LIMIT 0"
    ).cursor.description
    if {column[0]: column[1] for column in described}.get(name) not in _MYSQL_TIMES:
        return query
    column = f"source.`{name.replace('`', '``')}`".replace("%", "%%")
    # A zero date is no time either; it is before all that is one.
    bounds = f"{_bounds(column, periods)} OR {column} IS NULL OR {column} < '1000-01-01'"
    bounds += _no_time(f"CAST({column} AS CHAR)", name, source)
    return f"SELECT * FROM ({query}) AS source WHERE {bounds}"


def sample_table(
    url: str, table: Sequence[str], most: int, password: str | None = None
) -> tuple[pa.Table, str]:
    """Return at most so many rows of a database's table as text columns, and its quoted name.

    `table` is its name, after that of its schema where there is one.

    Raises:
        ConfigError: the URL cannot be used.
        SourceError: the database does not answer, or has no such table.
    """
    import sqlalchemy

    shown = sqlalchemy.make_url(url)
    parsed = shown if password is None else shown.set(password=password)
    try:
        engine = sqlalchemy.create_engine(parsed, poolclass=sqlalchemy.NullPool)
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        driver = "install its driver"
        if shown.drivername.endswith("+pymysql"):
            driver = "install its driver (`pip install PyMySQL`)"
        raise ConfigError(
            f"{shown.drivername} cannot be used here ({type(error).__name__}); {driver}, "
            "or name another: dialect+driver://user@host/db/schema.table"
        ) from None
    try:
        with engine.connect() as link:
            name = ".".join(engine.dialect.identifier_preparer.quote(part) for part in table)
            query = f"SELECT * FROM {name} LIMIT {int(most)}"
            if engine.dialect.paramstyle in ("format", "pyformat"):
                query = query.replace("%", "%%")  # the driver reads % as the start of a parameter
            if engine.dialect.name == "postgresql":
                _set_up_postgresql(link)
                names, picked, _ = _picked(link, query, ".".join(table))
                rows = link.exec_driver_sql(f"SELECT {picked} FROM ({query}) AS source").fetchall()
                return _columns(names, rows), name
            if engine.dialect.name in _MYSQL:
                _set_up_mysql(link)  # as ingestion will: a draft says what that is going to read
            return _any(link, query, ".".join(table)), name
    except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        text = " ".join(str(getattr(error, "orig", None) or error).strip().splitlines()[:3])
        if parsed.password:
            text = text.replace(str(parsed.password), "***")
        raise SourceError(
            f"{'.'.join(table)}: the database refuses or does not answer: {text[:400]}; check the "
            "URL, and that it ends in /schema.table"
        ) from None
    finally:
        engine.dispose()


def _message(
    name: str, use_case: UseCase, spec: SqlQuery, error: Exception, secrets: Sequence[object]
) -> str:
    """Return a database's error in words, without the address and password that may be in it."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    text = " ".join(lines[:3])
    for secret in secrets:
        if secret:
            text = text.replace(str(secret), "***")
    return (
        f"{use_case.name}, source {name}: the database of {spec.url_env} refuses or does not "
        f"answer: {text[:400]}; check the query and that the database is up"
    )


def _postgresql(
    link: Any, query: str, source: Source, use_case: UseCase, periods: Sequence[Period]
) -> pa.Table:
    """Read PostgreSQL, which makes the text itself: numbers keep their digits."""
    _set_up_postgresql(link)
    names, picked, types = _picked(link, query, use_case.name)
    where = _pushed_down(source, types, periods)
    streamed = link.execution_options(stream_results=True, max_row_buffer=BATCH)
    result = streamed.exec_driver_sql(f"SELECT {picked} FROM ({query}) AS source{where}")
    parts = [_columns(names, rows) for rows in result.partitions(BATCH)]
    return pa.concat_tables(parts) if parts else _columns(names, [])


def _set_up_postgresql(link: Any) -> None:
    link.exec_driver_sql("SET TRANSACTION READ ONLY")
    link.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
    link.exec_driver_sql("SET LOCAL DateStyle = 'ISO, YMD'")


def _picked(link: Any, query: str, shown: str) -> tuple[list[str], str, dict[str, int]]:
    """Return the columns of a query, the list of them as texts c0, c1, ..., and their types."""
    described = link.exec_driver_sql(
        f"SELECT * FROM ({query}) AS source LIMIT 0"
    ).cursor.description
    types = {column[0]: column[1] for column in described}
    names = [column[0] for column in described]
    _refuse_twins(names, shown)
    picked = ", ".join(
        f"{_text(column, types[column])} AS c{index}" for index, column in enumerate(names)
    )
    return names, picked, types


def _refuse_twins(names: Sequence[str], shown: str) -> None:
    if len(set(names)) != len(names):
        raise SourceError(f"{shown}: the query gives a column twice among {names}; name them apart")


def _text(column: str, kind: int) -> str:
    """Return the expression of a value as text; NaN is no value, as in a Parquet file."""
    name = quote(column).replace("%", "%%")  # as in the query itself
    text = f"CAST(source.{name} AS text)"
    return f"nullif({text}, 'NaN')" if kind in _FLOATS else text


def _pushed_down(source: Source, types: dict[str, int], periods: Sequence[Period]) -> str:
    """Return a WHERE clause for the arrival column where it is a time, else nothing."""
    name = _arrival_column(source)
    if name is None or types.get(name) not in (_DATE, _TIMESTAMP, _TIMESTAMPTZ):
        return ""
    arrival = f"source.{quote(name)}".replace("%", "%%")
    bounds = f"{_bounds(arrival, periods)} OR {arrival} IS NULL OR NOT isfinite({arrival})"
    return f" WHERE {bounds}{_no_time(f'CAST({arrival} AS text)', name, source)}"


def _arrival_column(source: Source) -> str | None:
    """Return the query's column that says when a row arrived, where it may cut rows off.

    An assumed arrival is cut by nobody but ingestion.
    """
    if source.kind == "static" or source.assumed_lag is not None:
        return None
    if source.arrival in source.computed:
        return None
    column = source.columns.get(source.arrival)
    return column.header if column is not None and column.header else source.arrival


def _bounds(arrival: str, periods: Sequence[Period]) -> str:
    first, last = periods[0].arrival_start - MARGIN, periods[-1].as_of + MARGIN
    return f"{arrival} >= '{first:%Y-%m-%d %H:%M:%S}' AND {arrival} < '{last:%Y-%m-%d %H:%M:%S}'"


def _no_time(text: str, header: str, source: Source) -> str:
    """Return the rest of a condition: rows whose time, by its text, stands for none.

    A day such as 1900-01-01 that the source declares as no value is no arrival, as in a file; the
    whole day comes, and ingestion takes what it needs.
    """
    names = (name for name, each in source.columns.items() if (each.header or name) == header)
    column = source.columns.get(next(names, header))
    tokens = None if column is None else column.null_values
    days = {
        token.strip()[:10]
        for token in (source.null_values if tokens is None else tokens)
        if re.match(r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}", token)
    }
    listed = ", ".join(text_literal(day) for day in sorted(days))
    return f" OR left({text}, 10) IN ({listed})" if days else ""


def _columns(names: Sequence[str], rows: Sequence[Any]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    return pa.table(
        {name: pa.array(values, pa.string()) for name, values in zip(names, columns, strict=True)}
    )


def _any(link: Any, query: str, shown: str, *, zoned: bool = False) -> pa.Table:
    """Read any other database; `shown` is how messages call what is read.

    Numbers, times and dates become text by DuckDB, everything else by `_as_text`. `zoned` says that
    moments of MySQL are to carry their zone.
    """
    result = link.exec_driver_sql(query)
    names = list(result.keys())
    _refuse_twins(names, shown)
    is_mysql = link.engine.dialect.name in _MYSQL
    kinds = [column[1] if is_mysql else None for column in result.cursor.description]
    parts = []
    with connect() as con:
        for rows in result.partitions(BATCH):
            columns = [[row[index] for row in rows] for index in range(len(names))]
            for index, kind in enumerate(kinds):
                if kind == _MYSQL_BITS:
                    columns[index] = [_number_of(value) for value in columns[index]]
                elif kind == _MYSQL_MOMENT and zoned:
                    columns[index] = [_in_utc(value) for value in columns[index]]
            arrays = [_as_array(values) for values in columns]
            con.register("rows", pa.table(dict(zip(names, arrays, strict=True))))
            parts.append(
                con.sql("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM rows")
                .to_arrow_table()
                .rename_columns(names)
            )
    return pa.concat_tables(parts) if parts else _columns(names, [])


def _number_of(bits: object) -> object:
    """Return bits as the number that they are, which drivers give as its bytes."""
    return int.from_bytes(bits, "big") if isinstance(bits, bytes) else bits


def _in_utc(value: object) -> object:
    is_bare = isinstance(value, datetime) and value.tzinfo is None
    return value.replace(tzinfo=UTC) if is_bare else value  # type: ignore[attr-defined]


def _as_array(values: list[Any]) -> pa.Array:
    """Return values of one type as an array of it, all others as text."""
    for kind in (bool, int, float, datetime, date, str):
        if all(value is None or type(value) is kind for value in values):
            try:
                return pa.array(values)
            except (pa.ArrowException, OverflowError):  # such as an unsigned number beyond int64
                break
    return pa.array([None if value is None else _as_text(value) for value in values], pa.string())


def _as_text(value: object) -> str:
    """Return a value of a type of its own, or beside others, as text, as a CSV would hold it.

    What is beside it in a batch makes no difference: times and truth values are written as in an
    array of theirs. MySQL's times of day come as spans of time.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal) and value.is_finite():
        return f"{value:f}"  # `str` writes 0.00000000 as 0E-8
    if isinstance(value, datetime):
        zone = "" if value.tzinfo is None else "+00"
        bare = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        text = bare.isoformat(sep=" ")
        return (text.rstrip("0") if bare.microsecond else text) + zone
    if isinstance(value, timedelta):
        sign, seconds = ("-", -value) if value < timedelta(0) else ("", value)
        whole = seconds // timedelta(seconds=1)
        rest = f".{seconds.microseconds:06}".rstrip("0") if seconds.microseconds else ""
        return f"{sign}{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{rest}"
    if isinstance(value, bytes):
        if value in (b"\0", b"\1"):
            return str(value[0])
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    return str(value)
