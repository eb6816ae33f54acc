"""Say which setting is wrong, by its variable or file, and how to mend it; never its value."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import SettingsError

from include.config.declared_settings import PREFIX, SECRETS_DIR
from include.config.secret_files import owner_remedy
from include.errors import ConfigError

MEND = "mend it where it is set (the environment, `.env`, a secret file), then start again"


def refused(error: SettingsError | ValidationError, names: Collection[str]) -> ConfigError:
    """Return why settings of these names cannot be read, without anything of their values."""
    if isinstance(error, ValidationError):
        wrong = [
            f"{_place(str(problem['loc'][0])) if problem['loc'] else 'settings'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_context=False)
        ]
        return ConfigError(f"{', '.join(wrong)}; {MEND}")
    shut = list(_unreadable(names))
    if not shut:
        return ConfigError(f"{error}; {MEND}")
    told = ", ".join(f"{path} cannot be read ({why})" for path, why in shut)
    return ConfigError(f"{told}; {owner_remedy()}")


def _place(name: str) -> str:
    """Return where a setting stands: its variable, else its secret file."""
    variable = f"{PREFIX}{name}".upper()
    if not os.environ.get(variable):
        for path in _files([name]):
            return str(path)
    return variable


def _unreadable(names: Collection[str]) -> Iterator[tuple[Path, str]]:
    for path in _files(names):
        try:
            path.read_text(encoding="utf-8")
        except OSError as error:
            yield path, str(error.strerror)
        except ValueError:  # its text would show some of the bytes
            yield path, "it is no plain text"


def _files(names: Collection[str]) -> list[Path]:
    """Return the secret files of settings, as they are looked up: whatever the case."""
    folder = os.environ.get(SECRETS_DIR)
    if not folder:
        return []
    wanted = {f"{PREFIX}{name}".lower() for name in names}
    return [path for path in sorted(Path(folder).iterdir()) if path.name.lower() in wanted]
