"""Addresses: what the records hold, and what never becomes a path."""

from __future__ import annotations

import pytest

from include.artefacts.address import Address
from include.errors import ArtefactError

DIGEST = "ab" * 32


def test_an_address_reads_as_it_was_written() -> None:
    for uri in (f"store:bundles/loans/{DIGEST}", "store:reports/loans/2026-03-01/drift.html"):
        assert str(Address.parse(uri)) == uri


def test_only_a_digest_of_what_never_changes_names_its_content() -> None:
    assert Address.parse(f"store:bundles/loans/{DIGEST}").is_digest
    assert not Address.parse(f"store:reports/loans/{DIGEST}").is_digest
    assert not Address.parse("store:models/loans/2026-03-01/abcd/bundle").is_digest


@pytest.mark.parametrize(
    "uri",
    [
        "store:bundles/loans/../../secrets/node_token",
        "store:bundles/../x",
        "store:/etc/passwd/x",
        "store:bundles/loans",
        "store:bundles/loans/",
        "store:bundles/loans/.put.1",
        "store:bundles/lo%2e%2e/x",
        "store:bundles/loans/a\\b",
        "store:bundles/loans/a\0b",
        "file:///etc/passwd",
        "",
    ],
)
def test_what_would_lead_elsewhere_is_no_address(uri: str) -> None:
    with pytest.raises(ArtefactError, match="no address of an artefact"):
        Address.parse(uri)
