"""Move a stopped home into another installation: a backup and a restore, without a copy between.

The home stays as it is, and can be started again if it is not to be moved after all.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pydantic import SecretStr

from include.backups import restore, take
from include.backups.repository import InPlace
from include.backups.restore import Restored
from include.config.settings import Settings
from include.deployment.adoption import adopt_addresses, adopt_signatures
from include.deployment.rollback import take_back_late
from include.errors import Busy, ConfigError, SourceError
from include.installation.lock import InstallationLock
from include.installation.preflight import check_version
from include.predictions.log import OPEN, recover
from include.records.records import Records
from include.serving.journal import Journal

LIES_ELSEWHERE = (
    "only what lies in the home itself is moved; if that home has {setting} set, `evergreen "
    "backup` with all of its settings, and `evergreen restore` here"
)


def source_settings(home: Path) -> Settings:
    """Return the settings of an embedded home, whatever the environment says of another place."""
    nothing = SecretStr("")
    return Settings(
        home=home,
        secrets_dir=None,
        signing_key_file=None,
        signing_keys=None,
        lake_uri="",
        store_uri="",
        records_url=nothing,
        mlflow_uri=nothing,
        records_owner_url=nothing,
        entity_key=nothing,
        online_url=nothing,
        segments_uri="",
    )


def move(
    home: Path,
    settings: Settings,
    records: Records,
    *,
    at: datetime,
    actor: str,
    say: Callable[[str], object],
) -> Restored:
    """Bring all of a home into the installation of these settings, which must be empty.

    Raises:
        Busy: the home is in use, or a segment of its prediction log is.
        ConfigError: there is no home, or the target is not empty, or is that very home.
        SourceError: a place cannot be read or written, or parts of the home lie elsewhere.
    """
    source = source_settings(home)
    if not (source.home / "records.db").is_file():
        raise ConfigError(f"{source.home} is no home of Evergreen: it has no records.db")
    target = Path(str(records.database.engine.url.database or ""))
    if records.database.dialect == "sqlite" and target == source.home / "records.db":
        raise ConfigError(
            f"{source.home} cannot be moved into itself: set EVERGREEN_HOME, or "
            "EVERGREEN_RECORDS_URL and the other places, to where it is to go"
        )
    if not os.access(source.home, os.W_OK):
        raise ConfigError(
            f"{source.home} cannot be written to here, and it is locked, and its records brought "
            "to this version, before it is moved; make it writable for this user, or move a copy"
        )
    check_version(source.home)
    with InstallationLock(source), tempfile.TemporaryDirectory(prefix="evergreen-move-") as scratch:
        theirs = Records.open(source.records_address)
        theirs.migrate()
        adopt_addresses(source, theirs)  # paths of that machine mean nothing where it goes
        adopt_signatures(source, theirs, at=at)  # what it serves goes on serving there
        _refuse_nodes(theirs, source.home)
        _bring_in(source.home, theirs, say)
        pieces = InPlace(Path(scratch))
        manifest = take.take(
            source, theirs, pieces, at=at, actor=actor, say=say, remedy=LIES_ELSEWHERE
        )
        made = restore.restore(
            settings,
            records,
            pieces,
            manifest,
            at=at,
            actor=actor,
            say=say,
            origin=str(source.home),
        )
        theirs.close()
    return made


def _refuse_nodes(records: Records, home: Path) -> None:
    living = {
        each.node
        for name in records.routes.names()
        for each in records.nodes.of(name)
        if each.living
    }
    if living:
        raise Busy(
            f"{home} is served by {', '.join(sorted(living))}: stop it (`make stop`), wait a "
            "minute if it was killed, then move"
        )


def _bring_in(home: Path, records: Records, say: Callable[[str], object]) -> None:
    """Bring in what a killed node has left to its next start: open segments, its own rollbacks.

    Without them answers would be lost, and a model that a person took back would serve again.
    """
    for folder in sorted((home / "predictions").glob("*/")):
        recover(home, folder.name)
        for path in folder.glob(f"*{OPEN}"):
            raise Busy(
                f"{path} is being written, or cannot be closed: end the node that has it open, or "
                "make it writable for this user, then move"
            )
    for path in sorted((home / "serving").glob("rollbacks-*.json")):
        journal = Journal(path)
        if journal.damage:
            raise SourceError(f"{journal.damage} there, or run this again to move it as it is")
        for entry in journal.entries:
            take_back_late(records, entry)
            journal.remove(entry)
            say(f"{entry.use_case}: a rollback of model {entry.version} by a node is on record now")
