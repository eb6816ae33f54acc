"""The entry point of the image: make the environment of one service, then become that service.

    python -m include.installation.container SERVICE [ARGUMENT...]

A container says in its command line what it is, and gets its secrets as files. The service gets
the environment that `make run` gives the same process on one machine: whatever else the container's
environment holds changes nothing.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from include.config.settings import Settings
from include.config.settings import settings as current_settings
from include.errors import ConfigError, EvergreenError
from include.installation.container_init import initialise
from include.installation.container_secrets import UID, make_secrets
from include.installation.environment import child_environment
from include.installation.services import AIRFLOW, WORKER, command_of
from include.processes import python_module

VOLUMES = Path("/srv/volumes")
# Credentials of object stores, and addresses of databases that use cases read (`url_env`); not
# every service has both.
VARIABLES = ("store.env", "sources.env")
_LINE = re.compile(r"([A-Za-z_]\w*)=(.*)")
SERVICES: Mapping[str, str] = {
    **{name: name for name in AIRFLOW},
    "worker": WORKER,
    "mlflow": "mlflow",
    "node": "node",
}
"""What runs until it is told to end, and what `make run` calls the same process."""


def main(arguments: Sequence[str]) -> int:
    """Become the service that the arguments name; return only where something is in the way."""
    service, *rest = arguments or ["help"]
    try:
        if service == "prepare":
            return prepare(VOLUMES)
        if service == "secrets" and rest:
            for name in make_secrets(Path(rest[0])):
                _say(f"wrote {name}")
            return 0
        if service == "command":
            command = python_module("include", *rest)
            os.execve(command[0], command, command_variables(rest))  # noqa: S606
        settings = current_settings()
        outer = variables_with_files(settings)
        if service == "init":
            return initialise(outer)
        if service not in SERVICES:
            known = ", ".join([*SERVICES, "init", "prepare", "secrets FOLDER", "command ..."])
            raise ConfigError(f"{service!r} is no service of this image; there are {known}")
        name = SERVICES[service]
        command = [*command_of(settings, name), *rest]
        os.execve(command[0], command, child_environment(settings, name, outer))  # noqa: S606
    except EvergreenError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def prepare(volumes: Path, *, owner: int = UID) -> int:
    """Give the roots of the volumes to the image's user; what lies in them has its owner already.

    An engine makes an empty volume root's, and only root can give it away.
    """
    for folder in sorted(volumes.iterdir()):
        os.chown(folder, owner, owner)
        folder.chmod(0o700)
    return 0


def command_variables(words: Sequence[str]) -> dict[str, str]:
    """Return the environment of a command.

    The doctor runs whatever is wrong, and says it in the form that it was asked for.

    Raises:
        ConfigError: a setting or a secret file is wrong.
    """
    try:
        return variables_with_files(current_settings())
    except ConfigError:
        if "doctor" not in words:
            raise
        return dict(os.environ)


def variables_with_files(settings: Settings) -> dict[str, str]:
    """Return the variables of this process, and those of the secret files.

    Raises:
        ConfigError: as `variables_of`.
    """
    outer = dict(os.environ)
    for name in VARIABLES:
        outer |= variables_of(settings, name)
    return outer


def variables_of(settings: Settings, name: str) -> dict[str, str]:
    """Return what a secret file of variables has, a NAME=VALUE a line; no file has none.

    Raises:
        ConfigError: a line is none, or the file cannot be read; the message shows nothing of it.
    """
    path = settings.secrets_dir / name if settings.secrets_dir else None
    if path is None or not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        # Of wrong bytes the error would show some.
        why = error.strerror if isinstance(error, OSError) else "it is no plain text"
        raise ConfigError(
            f"{path} cannot be read ({why}); write it as text, for user {os.getuid()}"
        ) from None
    found = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise ConfigError(f"{path}, line {number}, is no NAME=VALUE; mend it, or take it out")
        found[match[1]] = match[2]
    return found


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
