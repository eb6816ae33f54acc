"""`evergreen keys`: what signs, a new key, and one that nobody believes any more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from include.config.settings import Settings
from include.models.public_keys import read_keys
from include.records.records import Records
from tests.builders.command_line import AT, Model, Run


def listed(run: Run) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(run("keys", "list", "--json").out)
    return rows


def test_keys_are_made_exchanged_and_revoked(run: Run, visits: Path, tmp_path: Path) -> None:
    assert "has no key yet" in run("keys", "list").out
    first = run("keys", "rotate")
    assert (first.code, "signs from now on, for 365 days" in first.out) == (0, True)
    (old,) = listed(run)
    assert (old["state"], old["signs_here"]) == ("signs", True)
    second = run("keys", "rotate")
    assert f"{old['key']} signs nothing any more" in second.out
    assert "evergreen keys retire" not in second.out
    assert {row["key"]: row["state"] for row in listed(run)}[old["key"]] == "retired"
    lost = next(row["key"] for row in listed(run) if row["signs_here"])
    Settings(home=tmp_path / "var").signing_key_path.write_text("not a key\n")
    shown = run("keys", "list")
    assert (shown.code, lost in shown.out) == (0, True)
    assert "holds no private key that is plain PEM" in shown.err
    assert f"{lost} signs elsewhere, or did here" in run("keys", "rotate").out
    assert run("keys", "retire", lost, "--reason", "its file was damaged").code == 0
    new = next(row["key"] for row in listed(run) if row["signs_here"])
    assert "had ended before" in run("keys", "retire", old["key"][:8], "--reason", "twice").out
    assert run("keys", "retire", new, "--reason", "moved").code == 0
    assert {row["state"] for row in listed(run)} == {"retired"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("retire", "0", "--reason", "  "), "to retire a key needs its reason"),
        (("revoke", "0", "--reason", "", "--yes"), "to revoke a key needs its reason"),
        (("revoke", "", "--reason", "lost", "--yes"), "name the key"),
    ],
)
@pytest.mark.usefixtures("visits")
def test_no_key_is_ended_unnamed_or_for_no_reason(
    run: Run, words: tuple[str, ...], says: str
) -> None:
    run("keys", "rotate")
    done = run("keys", *words)
    assert (done.code, says in done.err) == (2, True), done
    assert [row["state"] for row in listed(run)] == ["signs"]


def test_a_revocation_says_what_it_ends_and_is_on_record(
    run: Run, visits: Path, tmp_path: Path
) -> None:
    run("status", "visits")  # makes the records
    run("keys", "rotate")
    settings = Settings(home=tmp_path / "var")
    (key,) = read_keys(settings.signing_keys_folder).keys
    records = Records.open(settings.records_address)
    model = Model("visits", 1, "sha256:1", "2025-03-01", AT, "live", "fs1", "bundle")
    signed = {"signature": "x", "signing_key": key, "signed_at": AT, "signed_as": "packaging"}
    records.models.add(model)
    records.models.update("visits", 1, **signed)
    from include.records.records import AuditEntry

    entry = AuditEntry("test", "visits", "1", "test", {}, AT)
    records.routes.change("visits", set={"champion": 1}, entry=entry)
    assert "visits 1 (champion)" in run("keys", "list").out
    revoked = run("keys", "revoke", key[:10], "--reason", "the laptop is lost", "--yes")
    assert (revoked.code, "visits 1 (champion) ends" in revoked.out) == (0, True)
    assert "the laptop is lost" in read_keys(settings.signing_keys_folder).revoked[key]
    assert "was revoked before" in run("keys", "revoke", key, "--reason", "b", "--yes").out
    (noted,) = records.audit.entries(action="keys.revoked")
    assert (noted.subject, noted.details["serving"]) == (key, ["visits 1 (champion)"])
    assert records.audit.verify() is None
    wrong = run("keys", "revoke", "zzz", "--reason", "none", "--yes")
    assert (wrong.code, "evergreen keys list" in wrong.err) == (2, True)
