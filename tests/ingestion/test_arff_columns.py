"""ARFF becomes text columns: names, quotes and missing values as Weka has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.ingestion import arff_columns
from include.ingestion.arff_columns import convert_arff
from include.ingestion.decompression import Refused

HEAD = "@relation r\n@attribute a numeric\n@attribute b {x, 'y z'}\n@data\n"


def converted(folder: Path, text: str) -> tuple[list[str], list[list[Any]]]:
    path, out = folder / "in.arff", folder / "out.arrow"
    path.write_text(text, encoding="utf-8")
    columns, count = convert_arff(path, out)
    with pa.OSFile(str(out), "rb") as file:
        rows = pa.ipc.open_file(file).read_all()
    assert rows.column("row").to_pylist() == list(range(1, count + 1))
    return columns, [list(row.values())[:-1] for row in rows.to_pylist()]


def test_values_stay_the_texts_that_they_are(tmp_path: Path) -> None:
    text = """% a comment
@RELATION 'a relation with % and {'

@Attribute id\tINTEGER
@attribute 'it\\'s a name' REAL
@attribute "class {a, b}" {good, 'not good'}
@attribute when DATE 'dd.MM.yyyy HH:mm'
@attribute Größe string
@DATA

1234567890123456789, 1.50, 'not good', "31.12.2024 08:00", 'a, \\'b\\' "c"'
% between
?, ?,\tgood , ?, '?'
2,-1e3,good,'01.01.2025 00:00',
"""
    columns, rows = converted(tmp_path, text)
    assert columns == ["id", "it's a name", "class {a, b}", "when", "Größe"]
    assert rows == [
        ["1234567890123456789", "1.50", "not good", "31.12.2024 08:00", "a, 'b' \"c\""],
        [None, None, "good", None, "?"],
        ["2", "-1e3", "good", "01.01.2025 00:00", None],
    ]


def test_a_file_without_rows_has_its_columns(tmp_path: Path) -> None:
    assert converted(tmp_path, HEAD) == (["a", "b"], [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "1,x\n{0 2, 1 x}\n", r"is sparse ARFF \(line 6\).*SparseToNonSparse"),
        (HEAD + "1,x\n2\n", r"line 6 is no row of its 2 attributes: '2'"),
        (HEAD + "1,x,{3}\n", "line 5 is no row of its 2 attributes"),
        (HEAD + "1,'x\n", "line 5 is no row of its 2 attributes"),
        ("a,b\n1,2\n", "is no ARFF file: line 2 is '1,2'"),
        ("@relation r\n@attribute a\n@data\n", "line 2 is no attribute with name and type"),
        ("@relation r\n@attribute a numeric\n", "is no ARFF file"),
        ("@relation r\n@attribute b relational\n@end b\n@data\n", "line 2: .*relational"),
        ("@relation r\n@attribute a real\n@attribute A real\n@data\n", "column 'A' twice"),
    ],
)
def test_what_cannot_be_read_is_told_by_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        converted(tmp_path, text)


def test_a_line_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arff_columns, "MAX_LINE", 100)
    with pytest.raises(Refused, match="line 5 is longer than"):
        converted(tmp_path, HEAD + "1" * 200)
