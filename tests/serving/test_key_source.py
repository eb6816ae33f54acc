"""A running node looks at the folder of public keys, and reads it where something has changed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from include.errors import ConfigError
from include.models import public_keys
from include.models.private_key import make_pair
from include.models.public_keys import REVOKED, KeyRing
from include.serving.key_source import KeySource

AT = datetime(2026, 3, 10, 12, tzinfo=UTC)


def test_each_change_of_the_folder_is_news_once(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    source = KeySource(folder)
    assert source.news() == KeyRing(), "none is there yet"
    assert source.news() is None
    one = make_pair(tmp_path / "p" / "private", folder, at=AT, days=10).id
    news = source.news()
    assert isinstance(news, KeyRing)
    assert (set(news.keys), set(news.revoked)) == ({one}, set())
    assert source.news() is None
    public_keys.revoke(folder, one, at=AT, actor="anna", reason="lost")
    news = source.news()
    assert isinstance(news, KeyRing)
    assert set(news.revoked) == {one}


def test_a_list_that_cannot_be_read_is_told_and_read_again_once_it_is_mended(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "keys"
    source = KeySource(folder)
    make_pair(tmp_path / "p" / "private", folder, at=AT, days=10)
    text = (folder / REVOKED).read_text()
    (folder / REVOKED).write_text("everybody")
    assert isinstance(source.news(), ConfigError)
    assert source.news() is None
    (folder / REVOKED).write_text(text)
    assert isinstance(source.news(), KeyRing)
