"""What the words of a header say of its column."""

from __future__ import annotations

import re

import pytest

from include.onboarding import header_words as words
from include.onboarding.header_words import plain, sounds_late, sounds_of_id, sounds_of_person


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("CustomerID", "customer_id"),
        ("order-no.", "order_no"),
        (" Loan Status ", "loan_status"),
        ("paidAt2", "paid_at2"),
        ("", ""),
    ],
)
def test_words_are_divided_whichever_way_they_were(header: str, name: str) -> None:
    assert plain(header) == name


@pytest.mark.parametrize(
    "header",
    [
        "id",
        "CustomerId",
        "order_no",
        "uuid",
        "Loan Number",
        "account_id",
        "package_id",
        "roomba_no",
    ],
)
def test_ids(header: str) -> None:
    assert sounds_of_id(header)


@pytest.mark.parametrize(
    "header", ["week_number", "zip_no", "paid", "identity", "guests_no", "day_no"]
)
def test_what_only_ends_like_an_id(header: str) -> None:
    assert not sounds_of_id(header)


def test_people_times_and_outcomes() -> None:
    assert sounds_of_person("Customer Name")
    assert not sounds_of_person("order_id")
    assert words.BIRTH.search(plain("DateOfBirth"))
    assert words.ARRIVAL.search(plain("created_timestamp"))
    assert words.OUTCOME_TIME.search(plain("paidOn"))
    assert not words.OUTCOME_TIME.search(plain("order_date"))
    assert words.LABEL.search(plain("is_churned"))
    assert not words.LABEL.search(plain("y_position"))
    assert sounds_late("days_late")
    assert not sounds_late("amount")


def test_the_surest_word_of_an_event_comes_first() -> None:
    found = [
        next(place for place, pattern in enumerate(words.EVENT) if re.search(pattern, name))
        for name in ("event_time", "order_date", "month")
    ]
    assert found == [0, 1, 2]


@pytest.mark.parametrize(
    ("header", "is_index"),
    [("Unnamed: 0", True), ("", True), ("__index_level_0__", True), ("unnamed_thing", False)],
)
def test_the_place_of_a_row(header: str, is_index: bool) -> None:
    assert bool(words.INDEX.match(header)) == is_index


@pytest.mark.parametrize(
    ("header", "late"),
    [
        ("loan_status", True),
        ("status", True),
        ("recoveries", True),
        ("total_pymnt", True),
        ("ChgOffPrinGr", True),
        ("charged_off_amount", True),
        ("marital-status", False),
        ("checking_status", False),
        ("employment status", False),
        ("MonthlyCharges", False),
        ("prepaid", False),
        ("previous_outcome", False),
    ],
)
def test_what_somebody_was_before_is_not_written_after_the_outcome(header: str, late: bool) -> None:
    assert sounds_late(header) == late


@pytest.mark.parametrize(
    "header",
    ["DEATH_EVENT", "Exited", "SeriousDlqin2yrs", "readmitted", "refunded", "Pass/Fail", "clicked"],
)
def test_outcomes_of_published_tables(header: str) -> None:
    assert words.LABEL.search(plain(header))
