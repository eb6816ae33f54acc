"""Object stores by URI: what each client library is told, and a store's errors in words.

Delta commits and the lake's reads go by delta-rs, lists and foreign files by fsspec. Both find
credentials in the environment (`AWS_*`, `AZURE_*`, `GOOGLE_*`); what only one of them understands
there is said here to the other.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from include.errors import ConfigError, SourceError

S3, AZURE, GOOGLE = ("s3", "s3a"), ("az", "abfs", "abfss"), ("gs", "gcs")
SCHEMES = (*S3, *AZURE, *GOOGLE)
# A request that fails is sent again with growing pauses, by the libraries: so often, so many
# seconds long. A store that is away for longer ends what asks it, and Airflow tries that again.
RETRIES, RETRY_SECONDS = 6, 60
# Of one request; a commit and a log are small, and a file is read in pieces.
REQUEST_SECONDS, CONNECT_SECONDS = 30, 5
_EXTRAS = {"s3": "s3fs", "az": "adlfs", "gs": "gcsfs"}
_SECRETS = re.compile(r"^(AWS|AZURE|GOOGLE)_.*(KEY|TOKEN|SECRET|PASSWORD|CONNECTION_STRING)")
_USER = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@")  # and password; a container has no colon
_UNSAFE = ("AWS_S3_ALLOW_UNSAFE_RENAME", "S3_ALLOW_UNSAFE_RENAME", "ALLOW_UNSAFE_RENAME")
_TRUE = ("1", "true", "yes", "on", "y")


def is_remote(uri: str) -> bool:
    """Tell whether an address names an object store rather than a folder."""
    return "://" in uri


def delta_options(uri: str, environment: Mapping[str, str] | None = None) -> dict[str, str] | None:
    """Return the storage options of delta-rs for an address; None for a folder.

    `environment` is by default that of this process.

    Raises:
        ConfigError: no store of this scheme can be used, or two writers could win a commit in it.
    """
    if not is_remote(uri):
        return None
    given = os.environ if environment is None else environment
    scheme = _scheme(uri)
    options = {
        "max_retries": str(RETRIES),
        "retry_timeout": f"{RETRY_SECONDS}s",
        "timeout": f"{REQUEST_SECONDS}s",
        "connect_timeout": f"{CONNECT_SECONDS}s",
    }
    if scheme in S3:
        return options | _s3(given)
    return options | (_azure(given) if scheme in AZURE else {})


def filesystem(uri: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and the path in it; a folder is one, too.

    Its lists are not kept: others write there.

    Raises:
        ConfigError: the library that speaks to such a store is not installed.
        OSError: the store does not answer.
    """
    import fsspec

    if not is_remote(uri):
        system, path = fsspec.core.url_to_fs(uri)
        return system, path
    try:
        system, path = fsspec.core.url_to_fs(uri, **fsspec_options(uri))
    except ImportError:
        scheme = uri.partition("://")[0]
        library = next(
            (_EXTRAS[names[0]] for names in (S3, AZURE, GOOGLE) if scheme in names), "its library"
        )
        raise ConfigError(
            f"{shown(uri)}: {scheme}:// needs {library}, which is not installed; "
            f"`pip install {library}`, or name a store of {', '.join(SCHEMES)}"
        ) from None
    return system, path


def store_errors() -> tuple[type[Exception], ...]:
    """Return the classes of the errors that a store's libraries raise, as far as they are loaded.

    Most are OSErrors; each library has some of its own beside.
    """
    names = {
        "botocore.exceptions": "BotoCoreError",
        "azure.core.exceptions": "AzureError",
        "google.auth.exceptions": "GoogleAuthError",
        "aiohttp": "ClientError",
        "deltalake.exceptions": "DeltaError",
    }
    loaded = ((sys.modules.get(module), name) for module, name in names.items())
    return (OSError, ValueError, *(getattr(module, name) for module, name in loaded if module))


@contextmanager
def explained(uri: str, what: str, remedy: str) -> Iterator[None]:
    """Raise what a store's libraries say while something is done in it.

    Raises:
        SourceError: it names the address, what cannot be done, and the remedy.
    """
    try:
        yield
    except store_errors() as error:
        raise SourceError(f"{shown(uri)}: {what} ({explain(error)}); {remedy}") from None


def shown(uri: str) -> str:
    """Return an address without what could be a secret in it."""
    return _USER.sub("***@", uri.partition("?")[0])


def explain(error: BaseException, environment: Mapping[str, str] | None = None) -> str:
    """Return a store's error in one line without any secret.

    Libraries put addresses into their errors, and a signature may stand in an address.
    """
    text = re.sub(r"\x1b\[[0-9;]*m|\u21b3", "", str(error))  # delta-rs draws its causes in colours
    text = redacted(" ".join(text.split()) or type(error).__name__, environment)
    # The last words say what happened, the first ones to whom.
    return text if len(text) <= 400 else f"{text[:200]} ... {text[-190:]}"


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what a library says without users and queries of addresses, and without credentials.

    `environment`, by default that of this process, is where the credentials of stores stand.
    """
    text = _USER.sub("***@", re.sub(r"\?[^\s\"'),>]+", "", text))
    given = os.environ if environment is None else environment
    for name, value in given.items():
        if _SECRETS.match(name):
            # Of a connection string each part by itself, too: libraries take it apart.
            for secret in (value, *(part.partition("=")[2] for part in value.split(";"))):
                text = text.replace(secret, "***") if len(secret) >= 8 else text
    return text


def _scheme(uri: str) -> str:
    scheme = uri.partition("://")[0]
    if scheme not in SCHEMES:
        raise ConfigError(
            f"{shown(uri)}: no store of {scheme}:// can be used; write a folder, or a URI of "
            f"{', '.join(SCHEMES)}"
        )
    return scheme


def _s3(given: Mapping[str, str]) -> dict[str, str]:
    for name in _UNSAFE:
        if given.get(name, "").lower() in _TRUE:
            raise ConfigError(
                f"{name} lets two writers of the lake overwrite each other's commits; unset it, "
                "and use a store that answers conditional puts (If-None-Match)"
            )
    # A commit is a put that the store refuses where somebody was faster. Said here, so that no
    # variable can switch it off.
    options = {"aws_conditional_put": "etag"}
    endpoint = given.get("AWS_ENDPOINT_URL_S3") or given.get("AWS_ENDPOINT_URL")
    if endpoint:
        options |= {"aws_endpoint": endpoint}
        if endpoint.startswith("http://"):
            options["allow_http"] = "true"
    return options


def _azure(given: Mapping[str, str]) -> dict[str, str]:
    """Return what delta-rs has to be told where only a connection string is given."""
    parts = dict(
        part.split("=", 1)
        for part in given.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";")
        if "=" in part
    )
    names = {
        "AccountName": "azure_storage_account_name",
        "AccountKey": "azure_storage_account_key",
        "SharedAccessSignature": "azure_storage_sas_token",
        "BlobEndpoint": "azure_storage_endpoint",
    }
    options = {names[name]: value for name, value in parts.items() if name in names and value}
    if options.get("azure_storage_endpoint", "").startswith("http://"):
        options["allow_http"] = "true"
    return options


def fsspec_options(uri: str) -> dict[str, Any]:
    """Return what fsspec's class for an address is told beside the environment."""
    scheme = uri.partition("://")[0]
    if scheme in S3:
        return {
            "use_listings_cache": False,
            "config_kwargs": {
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": REQUEST_SECONDS,
                # Few: s3fs itself sends again, five times, what this has given up.
                "retries": {"max_attempts": 2, "mode": "standard"},
            },
            # botocore knows the region by AWS_DEFAULT_REGION alone.
            "client_kwargs": {"region_name": os.environ["AWS_REGION"]}
            if os.environ.get("AWS_REGION")
            else {},
        }
    if scheme in AZURE:
        # Without it adlfs asks for no credentials at all, and a private container refuses it.
        return {"use_listings_cache": False, "anon": False}
    return {"use_listings_cache": False} if scheme in GOOGLE else {}
