"""Files are put in place as a whole, or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from include import files
from tests.builders.synced import Synced


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "page.html"
    files.write_text(path, "old")
    with files.written_aside(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        assert (temporary.parent, temporary.suffix) == (path.parent, ".html")
        temporary.write_text("new ü")
    assert path.read_text(encoding="utf-8") == "new ü"
    assert os.listdir(path.parent) == ["page.html"]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    files.write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), files.written_aside(path) as temporary:
        fail(temporary)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "password"
    with files.written_aside(path, mode=0o600, durable=True) as temporary:
        assert temporary.stat().st_mode & 0o777 == 0o600
        temporary.write_text("secret")
    assert path.stat().st_mode & 0o777 == 0o600


def test_writers_at_once_do_not_mix(tmp_path: Path) -> None:
    path, texts = tmp_path / "page.html", [letter * 200_000 for letter in "abcdef"]
    threads = [threading.Thread(target=files.write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["page.html"]


def test_the_name_of_a_durable_file_is_on_the_disk_too(tmp_path: Path, synced: Synced) -> None:
    """Else the rename goes with the power, and what was answered as done is not there any more."""
    path = tmp_path / "rollbacks.json"
    with files.written_aside(path, durable=True) as temporary:
        temporary.write_text("{}")
    assert synced.names == [temporary.name, tmp_path.name]
    assert synced.seen_in(tmp_path) == [["rollbacks.json"]], "before it had its name"


def test_a_folder_that_others_can_open_is_closed(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    files.make_private(home)
    assert home.stat().st_mode & 0o777 == 0o700
    home.chmod(0o2755)
    files.make_private(home)
    assert home.stat().st_mode & 0o7777 == 0o2700


def test_a_folder_of_everybody_stays_theirs(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(OSError, match="shared by all users"):
        files.make_private(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777
