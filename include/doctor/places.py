"""Examine where files are kept: the lake, the artefacts, the segments of the prediction log.

Each is a folder or an object store, by its URI.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from include.doctor.findings import Finding, Patient, Subject, clock_finding, first_line, public
from include.installation.preflight import NEED_BYTES
from include.object_stores import S3, fsspec_options

PROBES = "doctor"  # folder of the probe's object, in each store
# S3 refuses signatures that are 15 minutes off.
TOLERATED_SECONDS = 20.0


def examine_lake(patient: Patient) -> Iterator[Finding]:
    """Look at the root of the lake."""
    return _examine(Subject("lake"), patient.settings.lake_root, "EVERGREEN_LAKE_URI", patient)


def examine_artefacts(patient: Patient) -> Iterator[Finding]:
    """Look at the root of bundles, Bentos and reports."""
    settings = patient.settings
    return _examine(Subject("artefacts"), settings.store_root, "EVERGREEN_STORE_URI", patient)


def examine_segments(patient: Patient) -> Iterator[Finding]:
    """Look at where nodes ship the prediction log to, where they do."""
    uri = patient.settings.segments_root
    return _examine(Subject("segments"), uri, "EVERGREEN_SEGMENTS_URI", patient)


def _examine(subject: Subject, root: str, setting: str, patient: Patient) -> Iterator[Finding]:
    if not root:
        return
    if "://" in root:
        yield from _remote(subject, root.rstrip("/"), setting, patient)
    else:
        yield from _local(subject, Path(root), setting)


def _local(subject: Subject, folder: Path, setting: str) -> Iterator[Finding]:
    present = next(path for path in (folder, *folder.parents) if path.exists())
    if not present.is_dir() or not os.access(present, os.W_OK | os.X_OK):
        yield subject.fail(
            "place",
            f"{folder} cannot be written by user {os.getuid()}",
            f"give it to this user, or name another place in {setting}",
        )
        return
    made = "" if present == folder else ", made when it is needed"
    yield subject.ok("place", f"folder {folder}{made}")
    yield disk_finding(subject, present)


def disk_finding(subject: Subject, folder: Path) -> Finding:
    """Return whether the disk of a folder has room for a day's work, in bytes and in files."""
    free, space = shutil.disk_usage(folder).free, os.statvfs(folder)
    found = f"{free / 1024**3:.1f} GB are free at {folder}"
    remedy = "free some (`evergreen gc --dry-run` shows what can go), or take a larger disk"
    if space.f_files and space.f_favail < 1000:
        return subject.fail("disk", f"{space.f_favail} more files fit at {folder}", remedy)
    if free < NEED_BYTES:
        need = f"{NEED_BYTES / 1024**3:.0f} GB"
        return subject.fail("disk", f"only {found}, a day's run needs {need}", remedy)
    if free < 2 * NEED_BYTES:
        return subject.warn("disk", f"only {found}", remedy)
    return subject.ok("disk", found)


def _remote(subject: Subject, root: str, setting: str, patient: Patient) -> Iterator[Finding]:
    scheme = root.partition("://")[0]
    try:
        system = impatient_system(root, max(1.0, patient.seconds / 3))
        path = system._strip_protocol(root)
        before = patient.now()
        told = _ask(system, scheme, path)
        after = patient.now()
    except ImportError as error:
        yield subject.fail("place", first_line(error), f"install what reads {scheme}://")
        return
    except Exception as error:  # noqa: BLE001 - each client raises what it likes
        yield subject.fail(
            "place",
            f"{public(root)}: {first_line(error)}",
            f"mend {setting}, the endpoint or the credentials of the environment",
        )
        return
    took = (after - before).total_seconds() * 1000
    yield subject.ok("place", f"{public(root)}, answers in {took:.0f} ms")
    if told is not None:
        # HTTP tells whole seconds, so the middle of that second is meant.
        ahead = (told - (before + (after - before) / 2)).total_seconds() + 0.5
        yield clock_finding(
            subject,
            0.0 if abs(ahead) < 1.5 else ahead,
            whose="the store's clock",
            tolerated=TOLERATED_SECONDS,
            hurts="stores refuse signatures of another time",
        )
    if patient.writes:
        yield _probe(subject, system, scheme, f"{path}/{PROBES}/{secrets.token_hex(8)}")


def impatient_system(root: str, seconds: float) -> Any:
    """Return fsspec's file system of a store, told what the installation's own is told.

    Not the one that others share: its waits and retries are this check's own.

    Raises:
        ImportError: what speaks to such a store is not installed.
        ValueError: there is no such store.
    """
    import fsspec

    scheme = root.partition("://")[0]
    options = {**fsspec_options(root), "skip_instance_cache": True}
    if scheme in S3:
        options["config_kwargs"] = {
            "connect_timeout": seconds,
            "read_timeout": seconds,
            "retries": {"max_attempts": 1},
        }
    system = fsspec.get_filesystem_class(scheme)(**options)
    system.retries = 1
    return system


def _ask(system: Any, scheme: str, path: str) -> datetime | None:
    """Ask a store for one name below a path; return its time, where its answer has one."""
    if scheme not in ("s3", "s3a"):
        system.exists(path)
        return None
    bucket, _, prefix = path.partition("/")
    answer = system.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date).astimezone(UTC) if date else None


def _probe(subject: Subject, system: Any, scheme: str, path: str) -> Finding:
    """Put an object twice, of which the second must be refused; remove it."""
    once: dict[str, Any] = {"overwrite": False} if scheme.startswith("ab") else {"mode": "create"}
    try:
        system.pipe_file(path, b"evergreen doctor", **once)
    except Exception as error:  # noqa: BLE001 - each client raises what it likes
        remedy = "let the credentials write and remove below it"
        return subject.fail("conditional put", f"refused: {first_line(error)}", remedy)
    try:
        system.pipe_file(path, b"a second one", **once)
    except Exception:  # noqa: BLE001 - that is what is asked for
        return subject.ok("conditional put", "the second writer of a name is refused")
    finally:
        system.rm_file(path)
    return subject.fail(
        "conditional put",
        "the second writer of a name was not refused: two writers of a table would lose rows",
        "take a store that honours `If-None-Match: *` (S3, MinIO, Azure, GCS do)",
    )
