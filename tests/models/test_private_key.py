"""The private key: made where secrets are generated, exchanged, refused where it signs nothing."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from include.config.settings import Settings
from include.errors import ConfigError, Conflict
from include.models import private_key, public_keys
from include.models.private_key import open_signer, rotate, signing_id
from include.models.public_keys import read_keys

AT = datetime(2026, 3, 10, 12, tzinfo=UTC)


def settings(tmp_path: Path, **changes: Any) -> Settings:
    return Settings(home=tmp_path / "home", **changes)


def test_one_is_made_on_first_use_for_its_owner_alone(tmp_path: Path) -> None:
    mine = settings(tmp_path)
    assert signing_id(mine) is None
    signer = open_signer(mine, AT)
    assert signing_id(mine) == signer.id == open_signer(mine, AT).id
    path = mine.home / "secrets" / "signing_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keys(mine.home / "keys").keys[signer.id].expires_at == AT + timedelta(days=365)
    private = path.read_text().splitlines()[1]
    assert all(private not in file.read_text() for file in (mine.home / "keys").iterdir())


def test_of_many_at_once_one_makes_it(tmp_path: Path) -> None:
    mine = settings(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = {one.id for one in pool.map(lambda _: open_signer(mine, AT), range(16))}
    assert len(found) == 1
    assert read_keys(mine.signing_keys_folder).keys.keys() == found


@pytest.mark.parametrize("handed_out", ["secrets_dir", "signing_key_file"])
def test_where_secrets_are_handed_out_none_is_made(tmp_path: Path, handed_out: str) -> None:
    (tmp_path / "secrets").mkdir()
    given = tmp_path / "secrets" / ("" if handed_out == "secrets_dir" else "mine")
    mine = settings(tmp_path, **{handed_out: given})
    with pytest.raises(ConfigError, match=r"is missing, the private key.*evergreen keys rotate"):
        open_signer(mine, AT)
    assert not (tmp_path / "home").exists()
    new, _ = rotate(mine, AT)
    assert open_signer(mine, AT).id == new
    for path in mine.signing_keys_folder.glob("*.json"):
        path.unlink()
    with pytest.raises(ConfigError, match="no node would believe it"):
        open_signer(mine, AT)


def test_a_generated_key_gets_its_public_half_back(tmp_path: Path) -> None:
    """A home whose folder of keys was lost signs on, by the same key."""
    mine = settings(tmp_path)
    before = open_signer(mine, AT).id
    (mine.signing_keys_folder / f"{before}.json").unlink()
    assert open_signer(mine, AT).id == before
    assert before in read_keys(mine.signing_keys_folder).keys


def test_a_rotated_key_signs_no_more_and_stays_known(tmp_path: Path) -> None:
    mine = settings(tmp_path)
    assert rotate(mine, AT)[1] is None, "the first one"
    assert stat.S_IMODE(mine.home.stat().st_mode) == 0o700
    first = open_signer(mine, AT)
    new, old = rotate(mine, AT + timedelta(days=1))
    assert old == first.id
    assert signing_id(mine) == new != old
    ring = read_keys(mine.signing_keys_folder)
    assert ring.keys[new].ended_by(AT + timedelta(days=2)) == ""
    assert "was retired on 2026-03-11" in ring.keys[old].ended_by(AT + timedelta(days=2))
    mine.signing_key_path.write_bytes(first.private.private_bytes(*_PLAIN))  # a worker of before
    with pytest.raises(Conflict, match="was retired"):
        open_signer(mine, AT + timedelta(days=2))


@pytest.mark.parametrize("step", ["_write_public", "retire", "_write_private"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_rotation_killed_at_any_step_is_run_again_and_ends_the_key_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, done: bool
) -> None:
    mine = settings(tmp_path)
    first, later = open_signer(mine, AT).id, AT + timedelta(days=1)
    real = getattr(private_key, step)

    def killed(*arguments: Any, **options: Any) -> None:
        if done:
            real(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(private_key, step, killed)
        with pytest.raises(KeyboardInterrupt):
            rotate(mine, later)
    ended = read_keys(mine.signing_keys_folder).keys[first].ended_by(later)
    if ended and signing_id(mine) == first:
        with pytest.raises(Conflict, match=r"was retired .*evergreen keys rotate"):
            open_signer(mine, later)
    else:
        open_signer(mine, later)
    new, _ = rotate(mine, later)
    ring = read_keys(mine.signing_keys_folder)
    assert ring.keys[first].ended_by(later), "nobody knows any more that it is to be ended"
    assert open_signer(mine, later).id == new != first


def test_an_expired_and_a_revoked_key_sign_nothing(tmp_path: Path) -> None:
    mine = settings(tmp_path, signing_key_days=1)
    signer = open_signer(mine, AT)
    with pytest.raises(Conflict, match=r"expired on 2026-03-11 .*evergreen keys rotate"):
        open_signer(mine, AT + timedelta(days=1))
    public_keys.revoke(mine.signing_keys_folder, signer.id, at=AT, actor="anna", reason="lost")
    with pytest.raises(Conflict, match="is revoked"):
        open_signer(mine, AT)


_PLAIN = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("damage", ["empty", "cut off", "another kind"])
def test_a_file_that_holds_no_key_is_named_and_nothing_of_it_is_shown(
    tmp_path: Path, damage: str
) -> None:
    mine = settings(tmp_path)
    open_signer(mine, AT)
    path = mine.signing_key_path
    text = path.read_text()
    if damage == "another kind":
        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        path.write_bytes(made.private_bytes(*_PLAIN))
    else:
        path.write_text("" if damage == "empty" else text[:60])
    with pytest.raises(ConfigError, match=str(path)) as refused:
        open_signer(mine, AT)
    assert text.splitlines()[1][:20] not in str(refused.value)
    assert "evergreen keys rotate" in str(refused.value)
    new, old = rotate(mine, AT)
    assert (open_signer(mine, AT).id, old) == (new, None), "nobody knows which it was"
