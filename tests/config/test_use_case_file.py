"""The use case file: what is refused, with which line and remedy, and that nothing in it is
expanded or executed.
"""

from __future__ import annotations

import re
import time
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.config import use_case_file
from include.errors import ConfigError

MINIMAL = """\
name: shop
history: {first: 2025-01-01}
entity: {name: customer, key: customer_id}
sources:
  orders:
    path: orders/*.csv
    key: [order_id]
    columns:
      order_id: {type: int64, nullable: false}
      customer_id: {type: int64, nullable: false}
      amount: {type: float64, min: 0}
      paid: {type: bool}
label:
  source: orders
  column: paid
  delay: 30d
features:
  spend:
    grain: event
    source: orders
    columns: {amount: float64}
"""


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        use_case_file.parse(text, where="shop.yaml")
    return str(caught.value)


def test_a_short_file_is_enough_and_defaults_come_from_the_model() -> None:
    case = use_case_file.parse(MINIMAL)
    assert case.history.first == date(2025, 1, 1)
    assert case.label.delay == timedelta(days=30)
    assert case.monitoring.psi == 0.2
    assert case.trained_features == ["amount"]
    with pytest.raises(ValueError, match="frozen"):
        case.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("delay: 30d", "delay: 30 days", 16, "write a number and one of us, ms, s, m, h, d, w"),
        ("delay: 30d", "delay: 99999999999999999w", 16, "longer than a calendar holds"),
        ("delay: 30d", "delay: 30d\n  dealy: 1d", 17, "label.dealy: is not a known field"),
        ("  delay: 30d\n", "", 13, "label.delay: is missing; add it"),
        (
            "    source: orders\n    columns",
            "    source: oders\n    columns",
            20,
            "there is no source 'oders'",
        ),
        ("{amount: float64}", "{paid: bool}", 18, "'paid' is the label; it would leak the outcome"),
        ("{amount: float64}", "{customer_id: int64}", 18, "is an id, a time or the label"),
        (
            "key: [order_id]",
            "key: [order]",
            5,
            "key columns ['order'] are not among the declared columns",
        ),
        ("name: shop", "name: shop\nfolder: /etc", 2, "folder: is not a known field"),
        ("name: shop", "name: ../shop", 1, "name: String should match pattern"),
        (
            "  column: paid",
            "  column: paid\n  column: amount",
            16,
            "'column' stands twice; keep one",
        ),
        ("    path: orders/*.csv\n", "", 5, "give exactly one of path, sql, simulator"),
        ("{first: 2025-01-01}", "{first: 2025-02-01, last: 2025-01-01}", 2, "is before first"),
    ],
)
def test_an_error_names_the_line_what_is_wrong_and_the_remedy(
    old: str, new: str, line: int, says: str
) -> None:
    assert old in MINIMAL
    message = refused(MINIMAL.replace(old, new, 1))
    assert message.startswith(f"shop.yaml, line {line}: "), message
    assert says in message


def test_history_names_periods_not_days_inside_them() -> None:
    message = refused(MINIMAL.replace("{first: 2025-01-01}", "{first: 2025-01-15}\ncadence: month"))
    assert "2025-01-15 lies inside a month; write its key, 2025-01-01" in message


# fault 55: bombs, depth, python objects


def test_an_alias_bomb_is_refused_before_it_expands() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{here}: &{here} [{', '.join(['*' + before] * 9)}]\n"
        for before, here in zip("abcdefgh", "bcdefghi", strict=True)
    )
    begin = time.thread_time()
    message = refused(bomb)
    assert time.thread_time() - begin < 1
    assert "line 1: anchors (&) and aliases (*) are refused" in message


@pytest.mark.parametrize("text", ["a: &x 1", "a: *x", "base: &b {x: 1}\nname:\n  <<: *b"])
def test_every_anchor_and_alias_is_refused(text: str) -> None:
    assert "anchors (&) and aliases (*) are refused" in refused(text)


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_deep_nesting_is_refused_at_the_cap_not_at_the_stack(opening: str) -> None:
    begin = time.thread_time()
    message = refused("a: " + opening * 20_000)
    assert time.thread_time() - begin < 2
    assert f"nested deeper than {use_case_file.MAX_DEPTH} levels" in message


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch /tmp/evergreen_owned']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!custom x",
        "!!timestamp nonsense",
        "!!bool maybe",
    ],
)
def test_tags_are_refused_and_construct_nothing(value: str) -> None:
    assert "line 2: tags (!) are refused" in refused(f"name: shop\ntitle: {value}\n")


def test_size_is_capped_in_text_and_on_disk(tmp_path: Path) -> None:
    assert "larger than 256 KB" in refused("# " + "x" * use_case_file.MAX_BYTES)
    path = tmp_path / "big.yaml"
    path.write_text("# " + "x" * use_case_file.MAX_BYTES)
    with pytest.raises(ConfigError, match="larger than 256 KB"):
        use_case_file.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n- b\n",
        "just text",
        "a: [1,\n",
        "a: 1\n---\nb: 2\n",
        "a: '\0'",
        "title: 0b_",
        "1: x",
        "? [a]\n: x",
        "seed: " + "9" * 6000,
    ],
)
def test_whatever_yaml_holds_the_answer_is_one_config_error(text: str) -> None:
    assert refused(text).startswith("shop.yaml")


# faults 59 and 61: names that walk, and values that look like templates or shell


@pytest.mark.parametrize(
    "name",
    [
        "../shop",
        "/etc/passwd",
        "..\\shop",
        "%2e%2e%2fshop",
        "%252e%252e%252fshop",
        "shop\0",
        "shop\n",
        "",
        "SHOP",
        "a" * 49,
        "{{ shop }}",
    ],
)
def test_a_name_that_is_no_name_never_reaches_the_disk(name: str, tmp_path: Path) -> None:
    (tmp_path / "uc").mkdir()
    (tmp_path / "shop.yaml").write_text(MINIMAL)
    with pytest.raises(ConfigError, match="is no use case name"):
        use_case_file.find(name, [tmp_path / "uc"])


def test_templates_and_shell_in_free_text_stay_text() -> None:
    title = "{{ 7 * 7 }} ${jndi:ldap://x} $(touch x) `id`; drop table x"
    assert use_case_file.parse(MINIMAL + f"title: '{title}'\n").title == title


@pytest.mark.parametrize("column", ['a"; drop table x; --', "a b", "1a", "a-b", "{{a}}"])
def test_a_column_name_that_is_no_identifier_is_refused(column: str) -> None:
    quoted = column.replace("'", "''")
    message = refused(
        MINIMAL.replace(
            "      paid: {type: bool}",
            f"      paid: {{type: bool}}\n      '{quoted}': {{type: int64}}",
        )
    )
    assert "line 13" in message
    assert "should match pattern" in message


# files


def test_find_reads_the_first_folder_that_has_it_and_lists_what_there_is(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    (second / "shop.yaml").write_text(MINIMAL)
    found = use_case_file.find("shop", [first, second])
    assert found.folder == second.resolve()
    with pytest.raises(ConfigError, match=re.escape("there are ['shop']")):
        use_case_file.find("other", [first, second])
    (first / "shop.yaml").write_text(MINIMAL + "title: nearer\n")
    assert use_case_file.find("shop", [first, second]).title == "nearer"


def test_the_file_must_carry_the_name_of_its_use_case(tmp_path: Path) -> None:
    path = tmp_path / "store.yaml"
    path.write_text(MINIMAL)
    with pytest.raises(ConfigError, match=re.escape("call the file shop.yaml")):
        use_case_file.load(path)


def test_a_missing_or_undecodable_file_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    with pytest.raises(ConfigError, match="cannot be read"):
        use_case_file.load(path)
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8"):
        use_case_file.load(path)
