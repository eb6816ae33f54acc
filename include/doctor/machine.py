"""Examine this machine: Python, libraries, home folder, memory, disk, and the files of secrets."""

from __future__ import annotations

import os
import platform
import stat
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from include.config.secret_files import owner_remedy
from include.config.tokens import tokens_file
from include.doctor.findings import Finding, Patient, Subject, first_line
from include.doctor.places import disk_finding
from include.errors import ConfigError
from include.installation import preflight
from include.installation.container import VARIABLES, variables_of

LIBRARIES = ("apache-airflow", "mlflow", "deltalake", "duckdb", "lightgbm")
WRITTEN = ("spill", "logs", "serving", "predictions")  # folders of the home that are written to


def examine(patient: Patient) -> Iterator[Finding]:
    """Look at Python, the libraries, the home folder, its disk, and the memory."""
    subject, home = Subject("this machine"), patient.settings.home
    try:
        preflight.check_python(sys.version_info[:2])
        yield subject.ok("Python", f"{platform.python_version()} on {platform.machine()}")
    except ConfigError as error:
        text, _, remedy = str(error).partition("; ")
        yield subject.fail("Python", text, remedy)
    yield subject.ok("versions", ", ".join(f"{name} {_version(name)}" for name in LIBRARIES))
    yield _home(subject, home)
    if home.is_dir():
        try:
            preflight.check_version(home)
        except ConfigError as error:
            text, _, remedy = str(error).partition("; ")
            yield subject.fail("layout", text, remedy)
        yield from _written(subject, home)
        yield disk_finding(subject, home)
    yield _memory(subject, patient)


def examine_secrets(patient: Patient) -> Iterator[Finding]:
    """Look who may read the files of the secrets."""
    subject, settings = Subject("secrets"), patient.settings
    folders = [settings.home / "secrets"]
    if settings.secrets_dir is not None:
        folders.append(settings.secrets_dir)
    files = [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]
    if settings.node_tokens_file and tokens_file(settings).is_file():
        files.append(tokens_file(settings))
    readable = 0
    for path in files:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as error:
            yield subject.fail(path.name, first_line(error), "give it to this user")
            continue
        if mode & 0o077:
            who = "everybody" if mode & 0o007 else "its group"
            yield subject.fail(path.name, f"{path} is open to {who}", f"chmod 600 {path}")
        elif not os.access(path, os.R_OK):
            found = f"{path} cannot be read by user {os.getuid()}"
            yield subject.fail(path.name, found, owner_remedy())
        else:
            readable += 1
            if path.name in VARIABLES:
                yield from _variables(subject, patient, path.name)
    if readable:
        yield subject.ok("files", f"{readable} that their owner alone reads")
    elif not files:
        yield subject.ok("files", "none is made yet")


def _variables(subject: Subject, patient: Patient, name: str) -> Iterator[Finding]:
    try:
        variables_of(patient.settings, name)
    except ConfigError as error:
        text, _, remedy = str(error).partition("; ")
        yield subject.fail(name, text, remedy)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "is missing"


def _home(subject: Subject, home: Path) -> Finding:
    if not home.exists():
        present = next(path for path in home.parents if path.exists())
        if os.access(present, os.W_OK | os.X_OK):
            return subject.ok("home", f"{home}, made when it is needed")
        return subject.fail("home", f"{home} cannot be made", _another(home))
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return subject.fail(
            "home", f"{home} cannot be written by user {os.getuid()}", _another(home)
        )
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & 0o077:
        return subject.fail(
            "home", f"others can open {home}, which holds people's data", f"chmod 700 {home}"
        )
    return subject.ok("home", f"{home}, open to its owner alone")


def _another(home: Path) -> str:
    return f"give {home} to this user, or set EVERGREEN_HOME to a folder of yours"


def _written(subject: Subject, home: Path) -> Iterator[Finding]:
    shut = [
        name
        for name in WRITTEN
        if (home / name).exists() and not os.access(home / name, os.W_OK | os.X_OK)
    ]
    if shut:
        remedy = f"give them to this user (`chown -R {os.getuid()} {home}`)"
        yield subject.fail("folders", f"cannot be written: {', '.join(shut)}", remedy)
    spill = home / "spill"
    if spill.is_dir() and spill.stat().st_dev != home.stat().st_dev:
        yield disk_finding(subject, spill)


def _memory(subject: Subject, patient: Patient) -> Finding:
    wanted, there = patient.settings.memory_bytes, psutil.virtual_memory()
    free, total, taken = (size / 1024**3 for size in (there.available, there.total, wanted))
    found = f"{free:.1f} of {total:.1f} GB are free; a stage takes up to {taken:.1f}"
    if wanted > there.available:
        remedy = "lower EVERGREEN_MEMORY or EVERGREEN_PARALLELISM, or end what takes the memory"
        return subject.warn("memory", found, remedy)
    return subject.ok("memory", found)
