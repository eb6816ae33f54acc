"""The page to try requests, in a real browser against a started node that asks for tokens."""

from __future__ import annotations

import os
from pathlib import Path

from tests.builders.browser import browser
from tests.builders.serving import NAME, NOW, ROW, Desk

SECRET = "predict-" + "p" * 40
# What a person does: open the operation, enter the example, send it, and read the answer.
OPEN = (
    f"document.querySelector('#operations-{NAME}-post_v1_{NAME}_predict .opblock-summary-control')"
)
EXECUTE = "document.querySelector('.opblock-body .execute')"
STATUS = (
    "(document.querySelector('.live-responses-table tbody .response-col_status') || {}).innerText"
)
BODY = "document.querySelector('.live-responses-table .highlight-code code').innerText"
SET = """((element, text) => {
  const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  set.call(element, text); element.dispatchEvent(new Event('input', {bubbles: true}));
  element.dispatchEvent(new Event('change', {bubbles: true}));
})"""


def test_a_request_is_tried_in_the_browser_with_and_without_a_token(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "home", predict="token")
    desk.publish({42: (NOW, ROW)})
    desk.train(1)
    desk.record_route(champion=1)
    tokens = desk.settings.home / "secrets" / "tokens"
    tokens.parent.mkdir(mode=0o700, exist_ok=True)
    tokens.write_text(f"shop predict,read {SECRET}\n")
    bearer = {"authorization": f"Bearer {SECRET}"}
    with desk.node(bearer=SECRET) as node, browser(tmp_path / "profile") as page:
        assert node.get("/docs/try").status == 401
        address = node.url.removeprefix("http://")
        # The browser's own question for a password, answered in an address; it keeps the answer.
        page.open(f"http://me:{SECRET}@{address}/docs")
        page.until("document.title.includes('Evergreen')")
        page.open(f"http://{address}/docs/try")
        page.until(f"!!{OPEN}")
        page.run(f"{OPEN}.click()")
        page.until(f"!!{EXECUTE}")
        # A click before the page has put its listeners on is lost.
        told = page.until(f"({STATUS}) || ({EXECUTE}.click(), '')")
        assert "401" in told, "the password of pages answers no prediction"
        page.run("document.querySelector('.auth-wrapper .authorize').click()")
        page.until("!!document.querySelector('.auth-container input')")
        page.run(f"{SET}(document.querySelector('.auth-container input'), '{SECRET}')")
        page.run("document.querySelector('.auth-btn-wrapper .authorize').click()")
        page.run("document.querySelector('.auth-btn-wrapper .btn-done').click()")
        page.run(f"{EXECUTE}.click()")
        page.until(f"{STATUS}.includes('200')")
        assert f'"use_case": "{NAME}"' in page.run(BODY)
        if picture := os.environ.get("EVERGREEN_TEST_PICTURES"):
            page.picture(Path(picture) / "try.png")
        refused = [text for text in page.messages if "401" not in text]
        assert refused == [], "the browser refused nothing by the page's policy"
        assert "evergreen_batch_rows" in node.get("/metrics", headers=bearer).body
