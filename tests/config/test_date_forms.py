"""What a form of dates names, as DuckDB reads its fields."""

from __future__ import annotations

import pytest

from include.config.date_forms import named_by
from include.config.use_case_file import parse
from include.errors import ConfigError
from tests.builders.intake import COLUMNS, YAML


@pytest.mark.parametrize(
    ("named", "forms"),
    [
        ("day", ["%d.%m.%Y", "%-d/%-m/%y", "%a, %d %b %Y", "%Y%j", "%x", "%Y-%m-%dZ"]),
        ("day", ["%Y-W%W-%w", "%w %U %Y", "%G-W%V-%u", "%d%%%m%%%Y"]),
        ("week", ["%Y-W%W", "%Y %U", "%G-W%V"]),
        ("month", ["%m/%Y", "%b %y", "%Y%m", "%B %Y"]),
        ("year", ["%Y", "%y", "FY%Y"]),
        ("moment", ["%Y-%m-%d %H:%M", "%c", "%d/%b/%Y:%T", "%Y-%m-%dT%H:%M:%SZ", "unix_seconds"]),
        # A quarter, a year of weeks, and fields that DuckDB passes over.
        (None, ["Q%m %Y", "%G", "%V %Y", "%Y-W%W-%u", "%Y-W%W %a", "%d %Y", "%m/%Y %a", "%G-%m"]),
    ],
)
def test_what_a_form_names(named: str | None, forms: list[str]) -> None:
    assert {form: named_by(form) for form in forms} == dict.fromkeys(forms, named)


@pytest.mark.parametrize(("kind", "time"), [("date", "closed"), ("timestamp", "event + 1d")])
def test_a_date_that_ends_nobody_knows_when_is_refused_as_a_time(kind: str, time: str) -> None:
    columns = COLUMNS + f'\n      closed: {{type: {kind}, dates: "%Y-W%W-%u"}}'
    text = YAML.format(path="orders.csv", more="date_means: {means}", columns=columns)
    text = text.replace("label_time: event + 1d", f"label_time: {time}")
    with pytest.raises(ConfigError, match=r"columns.closed: dates '%Y-W%W-%u'.*such as.*by sql"):
        parse(text.replace("{means}", "end_of_day"))
    parse(text.replace("{means}", "start_of_day"))
    parse(text.replace("{means}", "end_of_day").replace("-%u", "-%w"))
