"""The page for people: what it shows, and that names cannot put anything into it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from include.serving import docs_page
from include.serving.snapshot import Served
from tests.builders.application import Client
from tests.builders.serving import NAME

VOID = {"meta"}


class Reader(HTMLParser):
    """Reads a page: its words, and whether each element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data.split()


def test_it_shows_the_model_the_request_and_the_features(client: Client) -> None:
    client.serve(7)
    page = Reader(docs_page.render(client.app.table.served))
    text = " ".join(page.words)
    assert page.open == []
    assert "Small loans" in text
    assert "Model version 7 answers, trained on 2026-03-01." in text
    assert f"""-d '{{"entity": 42}}' http://HOST:PORT/v1/{NAME}/predict""" in text
    assert "income float64" in text
    assert f"POST /v1/{NAME}/rollback" in text


def test_without_a_model_or_a_use_case_it_says_so(client: Client) -> None:
    page = docs_page.render({NAME: Served(client.use_case)})
    assert "No model answers yet." in page
    assert "No use case is served yet." in docs_page.render({})


def test_a_title_is_text_not_markup(client: Client) -> None:
    title = "<script>alert(1)</script><b onclick='x'>"
    use_case = replace(client.use_case, title=title)
    page = Reader(docs_page.render({NAME: Served(use_case)}))
    assert page.tags.isdisjoint({"script", "b"})
    assert "<script>alert(1)</script><b" in page.words


def test_the_page_to_try_requests_loads_the_nodes_own_files_alone(client: Client) -> None:
    page = client.ask("GET", "/docs/try")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe-eval" not in policy
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sum(name.startswith("assets/") for name in loaded) == 4
    assert not any("//" in name for name in loaded)
    for name in loaded:
        if name.startswith("assets/"):
            file = client.ask("GET", f"/docs/{name}")
            assert (file.status_code, len(file.content) > 100) == (200, True)
            assert file.headers["content-type"].split("/")[0] in ("text", "image")
            assert file.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name", ["index.css", "oauth2-redirect.html", "..%2f__init__.py", "docs.html", "try.html", ""]
)
def test_no_other_file_is_given_out(client: Client, name: str) -> None:
    assert client.ask("GET", f"/docs/assets/{name}").status_code == 404


def test_it_loads_nothing_from_elsewhere(client: Client) -> None:
    page = Reader(docs_page.render({NAME: Served(client.use_case)}))
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert docs_page.SECURITY["content-security-policy"].startswith("default-src 'none'")
