"""A source's files are those within its folder; what leaves it, or cannot be read, is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.errors import SourceError
from include.ingestion.file_reader import FileReader
from include.ingestion.files import files_of, has_partition_files
from include.ingestion.remote_files import list_remote_files
from tests.builders.intake import COLUMNS, YAML

KEY = "2026-01-01"


def use_case(folder: Path, path: str) -> UseCase:
    text = YAML.format(path=path, more="", columns=COLUMNS)
    return parse(text).model_copy(update={"folder": folder})


def shown(folder: Path, path: str) -> list[str]:
    """Return the names of the files that a path means, beside the YAML in `folder`."""
    with FileReader() as reader:
        settings = Settings(home=folder / "home", data_dir=folder / "data")
        return [
            name for name, _ in files_of("orders", use_case(folder, path), settings, KEY, reader)
        ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "b.csv",
        "a.csv",
        f"{KEY}.csv",
        "_SUCCESS",
        ".a.csv.crc",
        "sub/c.csv",
        "data/d.csv",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    return tmp_path


def test_a_path_means_one_file_a_pattern_or_all_of_a_folder(folder: Path) -> None:
    assert shown(folder, "a.csv") == ["a.csv"]
    assert shown(folder, "*.csv") == ["2026-01-01.csv", "a.csv", "b.csv"]
    assert shown(folder, "sub") == shown(folder, "sub/") == ["sub/c.csv"]
    assert shown(folder, "{partition}.csv") == [f"{KEY}.csv"]
    assert shown(folder, "{data_dir}/*.csv") == ["d.csv"]
    assert shown(folder, str(folder / "a.csv")) == ["a.csv"]


def test_what_writers_leave_beside_is_passed_over_unless_it_is_spelled_out(folder: Path) -> None:
    assert "_SUCCESS" not in shown(folder, "*")
    assert shown(folder, "_SUCCESS") == ["_SUCCESS"]


def test_a_file_that_is_not_there_is_refused_unless_each_partition_has_its_own(
    folder: Path,
) -> None:
    with pytest.raises(SourceError, match="matches no file"):
        shown(folder, "none.csv")
    assert shown(folder, "{partition}/none.csv") == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("../a.csv", "is refused"),
        ("a~.csv", "is refused"),
        ("zip::a.csv", "is refused"),
        ("%2e%2e/a.csv", "is refused"),
        ("{key}.csv", "placeholder"),
        ("/etc/hostname", "it leaves"),
        ("file:///etc/hostname", "write local files as a plain path"),
        ("nosuch://host/a.csv", "cannot be reached"),
    ],
)
def test_a_path_that_could_lead_elsewhere_is_refused(folder: Path, path: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        shown(folder, path)


def test_links_that_leave_and_what_is_no_file_are_refused_by_name(folder: Path) -> None:
    (folder / "sub" / "away.csv").symlink_to("/etc/hostname")
    with pytest.raises(SourceError, match=r"sub/away.csv: is a link that leaves"):
        shown(folder, "sub")
    (folder / "sub" / "away.csv").unlink()
    (folder / "sub" / "loop.csv").symlink_to("loop.csv")
    with pytest.raises(SourceError, match=r"sub/loop.csv: cannot be read"):
        shown(folder, "sub")
    (folder / "sub" / "loop.csv").unlink()
    os.mkfifo(folder / "sub" / "pipe.csv")
    with pytest.raises(SourceError, match=r"sub/pipe.csv: is no regular file"):
        shown(folder, "sub")


def test_remote_files_are_listed_with_size_and_fetched_by_the_reader() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("b.csv", "a.csv", "_SUCCESS"):
        memory.pipe(f"/listed/{name}", b"12345")
    _, files = list_remote_files("memory://listed/*", "shop")
    assert [file.shown for file in files] == ["memory://listed/a.csv", "memory://listed/b.csv"]
    assert {file.stamp.partition(":")[0] for file in files} == {"5"}
    with FileReader() as reader:
        case = use_case(Path("/none"), "memory://listed/*")
        fetched = files_of("orders", case, Settings(home=Path("/none")), KEY, reader)
        assert [path.read_bytes() for _, path in fetched] == [b"12345", b"12345"]
        case = use_case(Path("/none"), "memory://listed/none.csv")
        with pytest.raises(SourceError, match="matches no file"):
            files_of("orders", case, Settings(home=Path("/none")), KEY, reader)


def test_partitions_have_files_of_their_own_where_the_path_names_them(tmp_path: Path) -> None:
    paths = ("{partition}/a.csv", "a.csv")
    found = [has_partition_files(use_case(tmp_path, path).sources["orders"]) for path in paths]
    assert found == [True, False]
