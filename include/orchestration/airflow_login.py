"""Who may use Airflow, and the password of each.

With its simple auth manager there is one administrator, whose password Airflow reads in a file.
With FAB's there are three users, each named as its role; their passwords are secrets of the
installation, and FAB keeps hashes of them.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from pydantic import SecretStr

from include.config.settings import Settings
from include.errors import ConfigError, Unavailable
from include.files import written_aside

ADMIN = "admin"
ROLES = {"admin": "Admin", "op": "Op", "viewer": "Viewer"}
"""The users of FAB, and the role of each."""
PASSWORD_LENGTH = 16  # characters; people type this one


def password_file(settings: Settings) -> Path:
    """Return the file of the simple auth manager's user, readable by its owner only."""
    return settings.home / "secrets" / "airflow_passwords.json"


def secret_name(user: str) -> str:
    """Return the name of the secret that is the password of one of FAB's users."""
    return f"airflow_{user}"


def password_of(settings: Settings, user: str) -> SecretStr:
    """Return the password of a user of Airflow.

    Raises:
        Unavailable: there is none yet.
        ConfigError: the secret is missing, or too short.
    """
    if settings.airflow_auth == "fab":
        return settings.secret(secret_name(user))
    path = password_file(settings)
    try:
        return SecretStr(str(json.loads(path.read_text(encoding="utf-8"))[user]))
    except (OSError, ValueError, KeyError, TypeError):
        raise Unavailable(
            f"{path} holds no password of {user!r}: Airflow was not started here; run `make run`"
        ) from None


def passwords_of(settings: Settings) -> dict[str, SecretStr]:
    """Return the passwords of Airflow's users that this process may know.

    Raises:
        Unavailable: there is none yet.
    """
    if settings.airflow_auth != "fab":
        return {ADMIN: password_of(settings, ADMIN)}
    known = [user for user in ROLES if settings.secret_path(secret_name(user)).exists()]
    if not known:
        raise Unavailable(
            f"{settings.secret_path(secret_name(ADMIN))} is not there yet; `evergreen "
            "airflow-init` makes the users and their passwords"
        )
    return {user: password_of(settings, user) for user in known}


def password_place(settings: Settings, user: str) -> str:
    """Return where the password of a user stands, for a message."""
    if settings.airflow_auth == "fab":
        return str(settings.secret_path(secret_name(user)))
    return str(password_file(settings))


def ensure_password(settings: Settings) -> str | None:
    """Make the password of Airflow's administrator; return it, or None where there was one.

    Raises:
        ConfigError: there is none, or one that can be guessed; Airflow would make up its own and
            print it in a log.
    """
    if settings.airflow_auth == "fab":
        made = not settings.secret_path(secret_name(ADMIN)).exists()
        password = password_of(settings, ADMIN).get_secret_value()
        return password if made else None
    path = password_file(settings)
    if path.exists():
        try:
            known = str(json.loads(path.read_text(encoding="utf-8"))[ADMIN])
        except (OSError, ValueError, KeyError, TypeError):
            known = ""
        if len(known) < PASSWORD_LENGTH:
            raise ConfigError(
                f"{path} holds no password of {ADMIN!r} of {PASSWORD_LENGTH} characters or more. "
                "Put the old file back from a backup, or delete it: the next start makes another "
                "password and shows it"
            )
        return None
    password = secrets.token_urlsafe(12)
    settings.make_home()
    path.parent.mkdir(exist_ok=True, mode=0o700)
    # Durable: what a loss of power left empty would be refused at the next start.
    with written_aside(path, mode=0o600, durable=True) as temporary:
        temporary.write_text(json.dumps({ADMIN: password}), encoding="utf-8")
    return password
