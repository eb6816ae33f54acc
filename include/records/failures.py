"""Tell which failures of a database may pass, and explain the others with their remedy."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from include.errors import Busy, ConfigError, Conflict, Unavailable

LOCK_SECONDS = 30  # that a transaction waits for another's lock
# SQLSTATEs after which the same transaction may succeed: it lost against another one (40001,
# 40P01), the server is stopping or starting (57P01 to 57P03), or has no connection left (53300).
_TRANSIENT_STATES = {"40001", "40P01", "57P01", "57P02", "57P03", "53300"}
# Class names of psycopg's errors; without a SQLSTATE no server has answered.
_UNREACHABLE = {"OperationalError", "ConnectionTimeout"}
# What a server says, also without a SQLSTATE, where another try meets the same answer.
_LASTING = (
    "authentication failed",
    "does not exist",
    "pg_hba.conf",
    "no password supplied",
    "not permitted to log in",
)


def is_transient(error: BaseException) -> bool:
    """Tell whether the same transaction may succeed when it is tried again."""
    if not isinstance(error, DBAPIError):
        return False
    state = str(getattr(error.orig, "sqlstate", None) or "")
    # Class 08 of the SQLSTATEs is connection failures.
    if error.connection_invalidated or state in _TRANSIENT_STATES or state.startswith("08"):
        return True
    if isinstance(error.orig, sqlite3.Error) or type(error.orig).__name__ not in _UNREACHABLE:
        return False
    return not state and not any(phrase in str(error.orig) for phrase in _LASTING)


def explain(error: SQLAlchemyError, *, database: str, secrets: Sequence[str] = ()) -> Exception:
    """Return the error as one of ours, with its remedy and without the secrets.

    `database` is its address as people may see it. What is none of the database's failures, such as
    a mistake in our own SQL, comes back as it is.
    """
    origin = getattr(error, "orig", None) or error
    text = " ".join(str(origin).split()) or type(origin).__name__
    for secret in secrets:
        text = text.replace(secret, "***") if secret else text
    state = str(getattr(origin, "sqlstate", None) or "")
    # From the particular to the general: a full disk, say, is also an operational error.
    if "no such table" in text or state == "42P01":
        return ConfigError(
            f"the records database {database} has no tables yet ({text}); `make run` creates them, "
            "or `evergreen migrate` as its owner"
        )
    if "database is locked" in text or state == "55P03":
        return Busy(
            f"another process kept {database} locked for {LOCK_SECONDS} s; end it (see `evergreen "
            "status`), then rerun"
        )
    if state == "42501":
        # Without the guard's place in the code, which the server tells with it.
        said = getattr(getattr(origin, "diag", None), "message_primary", None) or text
        # An outage for whoever asks: a node goes back by itself where its role may not write.
        return Unavailable(
            f"the records database {database} does not let this role do that ({said}); a "
            "restore and a move need EVERGREEN_RECORDS_OWNER_URL (compose: the service `owner`); "
            "else run `evergreen migrate` as the owner, which writes what each role may do"
        )
    if isinstance(error, IntegrityError):
        return Conflict(
            f"the records database {database} refuses the row ({text}); it clashes with one that "
            "is there"
        )
    if isinstance(error, PoolTimeout):
        return Unavailable(
            f"all connections to {database} are in use by this process; run fewer threads at once"
        )
    if "not a database" in text or "malformed" in text:
        return Unavailable(f"{database} is damaged ({text}); restore it from a copy")
    if "disk is full" in text or state == "53100":
        return Unavailable(
            f"no space is left for {database} ({text}); free some, then rerun: nothing was half "
            "written"
        )
    if _is_outage(error, text, state):
        return Unavailable(
            f"the records database {database} does not answer ({text}); start it, or correct "
            "EVERGREEN_RECORDS_URL"
        )
    return error


def _is_outage(error: SQLAlchemyError, text: str, state: str) -> bool:
    """Tell whether the database cannot be reached or used, whoever asks and whatever for."""
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.OperationalError):
        return any(phrase in text for phrase in ("unable to open", "readonly", "disk I/O"))
    return (
        error.connection_invalidated
        # Classes of SQLSTATEs: connection, resources, operator intervention, authorization, and a
        # database that is not there.
        or state[:2] in {"08", "53", "57", "28", "3D"}
        or (not state and type(error.orig).__name__ in _UNREACHABLE)
    )
