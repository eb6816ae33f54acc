"""A PostgreSQL server of a test's own, which it may stop, start and hold up."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builders.ports import free_port

PASSWORD = "of the superuser"


class Server:
    """The server; everybody has a password, which it keeps as SCRAM."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self.folder, self.port = programs, folder, free_port()
        self.log = folder / "log"

    def url(self, user: str = "postgres", password: str = PASSWORD, database: str = "") -> str:
        """Return an address on it."""
        shown = password.replace(" ", "%20")
        return f"postgresql+psycopg://{user}:{shown}@127.0.0.1:{self.port}/{database or 'postgres'}"

    def make(self) -> None:
        """Make its files."""
        words = self.folder / "words"
        words.write_text(PASSWORD)
        _give(words)
        self._run(
            "initdb", "-D", self._data, "-U", "postgres", "--auth=scram-sha-256", "--no-sync",
            f"--pwfile={words}", "--encoding=UTF8", "--locale=C",
        )  # fmt: skip

    def start(self) -> None:
        """Start it, and return when it answers."""
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -c log_statement=all "
            f"-c unix_socket_directories={self.folder} -c max_connections=40"
        )
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", str(self.log), "-o", options)

    def stop(self, how: str = "fast") -> None:
        """Stop it: `fast` ends what goes on, `immediate` is a crash."""
        self._run("pg_ctl", "stop", "-w", "-m", how, "-D", self._data)

    def end(self) -> None:
        """Stop it, whatever it does."""
        try:
            number = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return
        os.kill(number, signal.SIGQUIT)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*_as_postgres(), str(self._programs / program), *arguments],
            cwd="/",
            # To a file, not a pipe: the server inherits it, and a pipe would never end.
            stdout=(self.folder / "out").open("a"),
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (self.folder / "out").read_text()[-2000:]


@contextmanager
def postgres_server() -> Iterator[Server]:
    """Give a server that runs; skip where its programs are not installed."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="evergreen-pg-"))
    _give(folder)
    server = Server(programs, folder)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.end()
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).parent)
    if not found:
        pytest.skip("no initdb here: PostgreSQL's server is not installed")
    if os.geteuid() == 0 and not _has_postgres():
        pytest.skip("PostgreSQL runs as no root, and there is no user postgres")
    return max(found)


def _has_postgres() -> bool:
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        return False
    return True


def _as_postgres() -> list[str]:
    """Return what runs a command as another user than root, which PostgreSQL refuses."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


def _give(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, "postgres")
