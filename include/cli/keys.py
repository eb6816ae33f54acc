"""Commands about the keys that models are signed by: keys list, rotate, retire, revoke."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.context import Reason, Yes, actor, current_settings, open_records
from include.cli.output import confirm, json_option, print_json, print_line, print_table
from include.cli.panels import Suggesting
from include.errors import ConfigError, EvergreenError

if TYPE_CHECKING:
    from datetime import datetime

    from include.config.settings import Settings
    from include.models.public_keys import KeyRing
    from include.records.records import Records

KEYS = ("key", "state", "signs_here", "made_at", "ends_at", "serving", "note")
Key = Annotated[
    str, typer.Argument(metavar="KEY", help="Its name, or how that begins; `keys list` shows it.")
]

keys_app = typer.Typer(
    cls=Suggesting,
    help="List the keys that models are signed by, make a new one, or revoke one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@keys_app.command("list")
def keys_list(json: Annotated[bool, json_option(KEYS)] = False) -> None:
    """List the public keys that nodes believe, until when each signs, and what serves by it.

    State: signs, expired, retired (another key took its place), revoked (nothing of it is loaded).
    """
    from include.clock import utc_now
    from include.models.private_key import DamagedKey, signing_id
    from include.models.public_keys import read_keys

    settings, here = current_settings(), None
    ring = read_keys(settings.signing_keys_folder)
    try:
        here = signing_id(settings)
    except DamagedKey as error:
        typer.echo(error, err=True)
    rows = _rows(ring, here, _serving(_records(settings)), utc_now())
    if json:
        print_json(rows)
        return
    print_table(
        ("key", "state", "signs here", "made", "ends", "serving"),
        [
            (
                row["key"],
                row["state"],
                "yes" if row["signs_here"] else "",
                f"{row['made_at']:%Y-%m-%d}" if row["made_at"] else "",
                f"{row['ends_at']:%Y-%m-%d}" if row["ends_at"] else "",
                row["serving"],
            )
            for row in rows
        ],
    )
    if not rows:
        print_line(f"{settings.signing_keys_folder} has no key yet; the first packaging makes one")


@keys_app.command("rotate")
def keys_rotate() -> None:
    """Put a new key in the place of the one that signs here, or make the first one.

    What the old one has signed is loaded as before; what it has signed and is not released yet is
    to be packaged again. Where the private key is handed to workers as a file, start them anew.
    """
    from include.clock import utc_now
    from include.models.private_key import rotate
    from include.models.public_keys import read_keys

    settings, at = current_settings(), utc_now()
    new, old = rotate(settings, at)
    _note(settings, "keys.rotated", new, {"before": old}, at)
    told = f"; {old} signs nothing any more" if old else ""
    print_line(f"key {new} signs from now on, for {settings.signing_key_days} days{told}")
    ring = read_keys(settings.signing_keys_folder)
    for name, key in sorted(ring.keys.items()):
        if name != new and name not in ring.revoked and not key.ended_by(at):
            print_line(f"  {name} signs elsewhere, or did here: if so, `evergreen keys retire` it")


@keys_app.command("retire")
def keys_retire(key: Key, reason: Reason) -> None:
    """Let a key sign and release nothing from now on; what it has signed is loaded as before."""
    from include.clock import utc_now
    from include.models.public_keys import read_keys, retire

    _need(reason, "retire")
    settings, at = current_settings(), utc_now()
    folder = settings.signing_keys_folder
    name = read_keys(folder).find(key)
    try:
        was_active = retire(folder, name, at)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written ({error.strerror})") from None
    if was_active:
        _note(settings, "keys.retired", name, {"reason": reason}, at)
    print_line(f"key {name} {'signs nothing any more' if was_active else 'had ended before'}")


@keys_app.command("revoke")
def keys_revoke(key: Key, reason: Reason, yes: Yes = False) -> None:
    """Let nothing be loaded that a key has signed: it was lost, or somebody else has it.

    Nodes that follow this folder end such models within seconds, and answer by the model before, if
    another key has signed that. A sound model comes back once it is packaged again, by a new key.
    """
    from include.clock import utc_now
    from include.models.public_keys import read_keys, revoke

    _need(reason, "revoke")
    settings, at = current_settings(), utc_now()
    folder = settings.signing_keys_folder
    name = read_keys(folder).find(key)
    serving = _serving(_records(settings)).get(name, [])
    told = f", which ends {', '.join(serving)}" if serving else ""
    confirm(f"Revoke key {name}{told}?", yes=yes)
    if not revoke(folder, name, at=at, actor=actor(), reason=reason):
        print_line(f"key {name} was revoked before")
        return
    _note(settings, "keys.revoked", name, {"reason": reason, "serving": serving}, at)
    print_line(f"key {name} is revoked: nothing that it has signed is loaded any more")
    for what in serving:
        print_line(f"  {what} ends; `evergreen keys rotate`, then package it again")


def _need(reason: str, action: str) -> None:
    """Refuse to end a key for no reason: the audit log, and the list of revoked keys, have it.

    Raises:
        ConfigError: there is none.
    """
    if not reason.strip():
        raise ConfigError(f'to {action} a key needs its reason; add --reason "..."')


def _rows(
    ring: KeyRing, here: str | None, serving: dict[str, list[str]], at: datetime
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name in sorted(ring.keys.keys() | ring.revoked.keys()):
        known, state = ring.keys.get(name), "revoked"
        if name not in ring.revoked and known is not None:
            ended = known.ended_by(at)
            state = "signs" if not ended else "expired" if "expired" in ended else "retired"
        made, ends = (known.made_at, known.ended_at()) if known else (None, None)
        told = (name, state, name == here, made, ends, ", ".join(serving.get(name, [])))
        rows.append(dict(zip(KEYS, (*told, ring.revoked.get(name, "")), strict=True)))
    return sorted(rows, key=lambda row: str(row["made_at"]), reverse=True)


def _records(settings: Settings) -> Records | None:
    """Return the records, where this command reaches them: keys are kept without them too."""
    if not settings.records_url.get_secret_value() and not (settings.home / "records.db").exists():
        return None
    with suppress(EvergreenError):
        return open_records(settings)
    return None


def _serving(records: Records | None) -> dict[str, list[str]]:
    """Return by key the models that serve, or answer where those fail."""
    found: dict[str, list[str]] = {}
    for row in records.serving_rows().rows if records is not None else ():
        for role in ("champion", "previous"):
            model = row.model(role)
            if model is not None and model.signing_key:
                told = f"{model.use_case} {model.version} ({role})"
                found.setdefault(model.signing_key, []).append(told)
    return found


def _note(
    settings: Settings, action: str, key: str, details: dict[str, object], at: datetime
) -> None:
    """Write the audit row, and say so where it cannot be: the change itself is done."""
    from include.records.records import AuditEntry

    records = _records(settings)
    if records is None:
        print_line("the records are not reached from here, so no audit row says it")
        return
    records.audit.append(AuditEntry(action, "", key, actor(), details, at))
