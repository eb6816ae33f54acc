"""The folder of public keys: what is in it, what is passed over, and what is revoked."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.errors import ConfigError
from include.models import private_key, public_keys
from include.models.public_keys import REVOKED, KeyRing, merge_keys, read_keys

AT = datetime(2026, 3, 10, 12, tzinfo=UTC)


def new_key(tmp_path: Path, name: str = "one") -> str:
    """Make a pair whose public half lies in the folder of all; return its name."""
    made = private_key.make_pair(tmp_path / name / "private", tmp_path / "keys", at=AT, days=10)
    return made.id


def test_a_folder_holds_several_keys_each_with_its_own_time(tmp_path: Path) -> None:
    names = {new_key(tmp_path, "one"), new_key(tmp_path, "two")}
    ring = read_keys(tmp_path / "keys")
    assert ring.keys.keys() == names
    key = ring.keys[min(names)]
    assert (key.made_at, key.expires_at) == (AT, AT + timedelta(days=10))
    assert key.ended_by(AT + timedelta(days=10, seconds=-1)) == ""
    assert "expired on 2026-03-20 12:00 UTC" in key.ended_by(AT + timedelta(days=10))
    assert read_keys(tmp_path / "nothing") == KeyRing()


@pytest.mark.parametrize(
    "damage", ["cut off", "another's name", "no time zone", "no key", "before all time", "endless"]
)
def test_what_is_no_key_is_passed_over_and_the_others_are_read(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = new_key(tmp_path, "one"), new_key(tmp_path, "two")
    path = tmp_path / "keys" / f"{bad}.json"
    text = path.read_text()
    if damage == "cut off":
        path.write_text(text[:40])
    elif damage == "another's name":
        path.rename(path.with_name(f"{'0' * 32}.json"))
    elif damage == "no time zone":
        path.write_text(text.replace("+00:00", ""))
    elif damage == "before all time":
        made = json.loads(text)["made_at"]
        path.write_text(text.replace(made, "0001-01-01T00:00:00+14:00"))
    elif damage == "endless":
        path.write_text("[" * 200_000)
    else:
        path.write_text("[]")
    with caplog.at_level(logging.WARNING):
        assert read_keys(tmp_path / "keys").keys.keys() == {good}
    assert "is no public key" in caplog.text


def test_a_key_whose_bytes_were_exchanged_is_another_key(tmp_path: Path) -> None:
    """Else whoever writes to the folder would sign by a name that is trusted."""
    one, two = new_key(tmp_path, "one"), new_key(tmp_path, "two")
    folder = tmp_path / "keys"
    theirs = json.loads((folder / f"{two}.json").read_text())
    ours = json.loads((folder / f"{one}.json").read_text())
    (folder / f"{one}.json").write_text(json.dumps({**ours, "public": theirs["public"]}))
    assert read_keys(folder).keys.keys() == {two}


def test_a_revoked_key_stands_in_a_list_that_people_may_write(tmp_path: Path) -> None:
    one, folder = new_key(tmp_path), tmp_path / "keys"
    assert public_keys.revoke(folder, one, at=AT, actor="anna", reason="lost\nlaptop")
    assert not public_keys.revoke(folder, one, at=AT, actor="anna", reason="again")
    assert read_keys(folder).revoked == {one: "2026-03-10T12:00:00Z anna: lost laptop"}
    with (folder / REVOKED).open("a") as file:
        file.write(f"\n# by hand\n{'a' * 32}\n")
    assert read_keys(folder).revoked.keys() == {one, "a" * 32}


@pytest.mark.parametrize("damage", ["gone", "no key", "no text"])
def test_without_a_list_that_can_be_read_no_key_is_believed(tmp_path: Path, damage: str) -> None:
    new_key(tmp_path)
    path = tmp_path / "keys" / REVOKED
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"everybody\n" if damage == "no key" else b"\xff\xfe")
    with pytest.raises(ConfigError, match=str(path)):
        read_keys(tmp_path / "keys")


def test_a_key_is_named_by_its_beginning(tmp_path: Path) -> None:
    one = new_key(tmp_path)
    ring = read_keys(tmp_path / "keys")
    assert ring.find(one[:6]) == one
    for prefix in ("", "zz"):
        with pytest.raises(ConfigError, match="evergreen keys list"):
            ring.find(prefix)


def test_keys_of_another_folder_are_added_and_nothing_here_is_taken_back(tmp_path: Path) -> None:
    here, there = tmp_path / "keys", tmp_path / "theirs"
    ours = new_key(tmp_path)
    public_keys.revoke(here, ours, at=AT, actor="anna", reason="lost")
    theirs = private_key.make_pair(tmp_path / "p" / "private", there, at=AT, days=10).id
    lost = private_key.make_pair(tmp_path / "q" / "private", there, at=AT, days=10).id
    public_keys.revoke(there, lost, at=AT, actor="ben", reason="stolen")
    files = {path.name: path.read_bytes() for path in there.iterdir() if path.name[0] != "."}
    # Of a key that is known here nothing is changed, as when it was retired since.
    files[f"{ours}.json"] = b"{}"
    for _ in range(2):
        merge_keys(here, {**files, "../out.json": b"{}", "other.txt": b""})
    ring = read_keys(here)
    assert ring.keys.keys() == {ours, theirs, lost}
    assert ring.revoked.keys() == {ours, lost}
    assert "ben: stolen" in ring.revoked[lost]
    assert not (tmp_path / "out.json").exists()
    assert (here / REVOKED).read_text().count(lost) == 1


def test_the_folder_is_the_homes_unless_a_setting_names_another(tmp_path: Path) -> None:
    assert Settings(home=tmp_path).signing_keys_folder == tmp_path / "keys"
    other = Settings(home=tmp_path, signing_keys=tmp_path / "mounted")
    assert other.signing_keys_folder == tmp_path / "mounted"
