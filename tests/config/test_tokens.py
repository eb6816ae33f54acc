"""The tokens of the node's callers: what is read, and what is refused without telling a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from include.config.settings import Settings
from include.config.tokens import OWN_NAME, ROLES, add_token, read_tokens, tokens_file
from include.errors import ConfigError

LONG = "s3cret-" + "x" * 32
OTHER = "0ther-" + "y" * 32


def write(home: Path, text: str) -> Settings:
    settings = Settings(home=home)
    path = tokens_file(settings)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(text)
    return settings


def test_without_a_file_there_is_the_installations_own(tmp_path: Path) -> None:
    (own,) = read_tokens(Settings(home=tmp_path))
    assert (own.name, own.roles) == (OWN_NAME, frozenset(ROLES))
    assert len(own.secret.get_secret_value()) == 43


def test_names_roles_and_secrets_are_read_from_file_and_variable(tmp_path: Path) -> None:
    settings = write(tmp_path, f"# who\n\nalice operate,read {LONG}  # on call\n")
    settings = settings.model_copy(update={"node_tokens": SecretStr(f"shop predict {OTHER}")})
    _, shop, alice = read_tokens(settings)
    assert (alice.name, alice.roles) == ("alice", {"operate", "read"})
    assert (shop.name, shop.roles, shop.secret.get_secret_value()) == ("shop", {"predict"}, OTHER)
    assert LONG not in repr(alice)


def test_a_name_may_have_two_secrets_while_one_replaces_the_other(tmp_path: Path) -> None:
    settings = write(tmp_path, f"shop predict {LONG}\nshop predict {OTHER}\n")
    assert [token.name for token in read_tokens(settings)] == [OWN_NAME, "shop", "shop"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no token"),
        ("\0" * 60, "line 1 has 1 words"),
        ("# nobody yet\n", "holds no token"),
        (f"shop {LONG}", "line 1 has 2 words"),
        (f"shop predict {LONG} more", "line 1 has 4 words"),
        (f"shop predict {LONG[:31]}", "has 31 characters"),
        (f"shop predict {LONG}é", "of ASCII"),
        (f"shop admin {LONG}", "unknown role 'admin'"),
        (f"shop predict, {LONG}", "unknown role ''"),
        (f"sh/op predict {LONG}", "a name has letters"),
        (f"shop predict {LONG}\nother read {LONG}", "'shop' and 'other' have one secret"),
    ],
)
def test_a_line_that_keeps_nobody_out_is_refused_with_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        read_tokens(write(tmp_path, text))
    assert LONG[:31] not in str(refused.value)


def test_a_token_that_is_made_is_appended_and_a_broken_file_is_left_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    first = add_token(settings, "alice", ["read", "operate"])
    second = add_token(settings, "shop", ["predict"])
    assert len(first.get_secret_value()) == 43
    _, alice, shop = read_tokens(settings)
    assert (alice.name, alice.roles, alice.secret) == ("alice", {"read", "operate"}, first)
    assert (shop.name, shop.roles, shop.secret) == ("shop", {"predict"}, second)
    path = tokens_file(settings)
    assert path.stat().st_mode & 0o077 == 0
    for name, role in (("al ice", "read"), ("", "read"), ("alice", "root"), ("al#ice", "read")):
        with pytest.raises(ConfigError):
            add_token(settings, name, [role])  # type: ignore[list-item]
    before = path.read_text()
    path.write_text(f"{before}broken")
    with pytest.raises(ConfigError, match="line 3"):
        add_token(settings, "bob", ["read"])
    assert path.read_text() == f"{before}broken"


def test_a_file_that_cannot_be_read_is_no_missing_one(tmp_path: Path) -> None:
    settings = write(tmp_path, f"shop predict {LONG}")
    tokens_file(settings).write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="it is no text"):
        read_tokens(settings)
    tokens_file(settings).unlink()
    tokens_file(settings).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="No such file"):
        read_tokens(settings)
    named = Settings(home=tmp_path, node_tokens_file=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match=r"other cannot be read"):
        read_tokens(named)
