"""Deployment settings: the one place where the environment is read, and what follows from it."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import re
from functools import lru_cache
from pathlib import Path

from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsError

from include.config.declared_settings import PREFIX, ROOT, DeclaredSettings
from include.config.refused_settings import refused
from include.config.secret_files import checked, make_secret, secret_text
from include.errors import ConfigError
from include.files import make_private

__all__ = ["ROOT", "Settings", "environment_secret", "settings"]


class Settings(DeclaredSettings):
    """All settings of one installation, and the places and addresses that follow from them."""

    @property
    def lake_root(self) -> str:
        """Root URI or folder of the lake."""
        return self.lake_uri or str(self.home / "lake")

    @property
    def store_root(self) -> str:
        """Root of the artefacts: an absolute folder, or the URI of an object store."""
        given = self.store_uri.removeprefix("file://").rstrip("/")
        return given if "://" in given else str(Path(given or self.home).expanduser().resolve())

    @property
    def segments_root(self) -> str:
        """Where closed segments are shipped to; empty: nowhere, the import finds them in HOME."""
        if self.segments_uri or self.store_root == str(self.home):
            return self.segments_uri
        return f"{self.store_root}/segments"

    @property
    def records_address(self) -> str:
        """SQLAlchemy URL of the records, with its password; never log it."""
        return self.records_url.get_secret_value() or f"sqlite:///{self.home / 'records.db'}"

    @property
    def mlflow_address(self) -> str:
        """MLflow's tracking URI, with its password; never log it."""
        given = self.mlflow_uri.get_secret_value() or f"sqlite:///{self.home / 'mlflow.db'}"
        # SQLAlchemy's default driver for these is psycopg2; psycopg 3 is installed.
        return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", given)

    @property
    def online_keys(self) -> str:
        """What the keys of online features begin with: no other installation's do."""
        home = hashlib.sha256(str(self.home).encode()).hexdigest()
        return self.online_prefix or f"evergreen-{home[:12]}"

    @property
    def memory_bytes(self) -> int:
        """Most memory that a stage takes for its rows, in bytes."""
        if not self.memory:
            return _machine_memory() // 4
        unit = self.memory.lstrip("0123456789. ")
        step = 1024 if "i" in unit else 1000
        return int(float(self.memory.removesuffix(unit)) * step ** (1 + "KMGT".index(unit[0])))

    @property
    def memory_limit(self) -> str:
        """Most memory of the queries of a stage, as DuckDB reads it."""
        return f"{max(1, self.memory_bytes // 2 // 1024**2)}MiB"

    @property
    def lake_copies(self) -> Path:
        """Folder of the copies of a remote lake's files."""
        return self.home / "cache" / "lake"

    @property
    def lake_copies_bytes(self) -> int:
        """Most bytes of the copies of a remote lake's files."""
        return int(self.lake_cache_megabytes * 1e6)

    @property
    def usecase_dirs(self) -> list[Path]:
        """Folders with use case files, in order."""
        return [Path(part).expanduser().resolve() for part in self.usecases.split(":") if part]

    @property
    def airflow_url(self) -> str:
        """Base address of Airflow's API server, as other processes reach it."""
        return self.airflow_address or self._url(self.airflow_port)

    @property
    def airflow_pages(self) -> str:
        """Base address of Airflow's pages, as a browser reaches it."""
        return self.airflow_public_address or self.airflow_url

    @property
    def is_airflow_remote(self) -> bool:
        """Whether Airflow's API server is said to run elsewhere than beside this process."""
        return bool(self.airflow_address)

    @property
    def airflow_database(self) -> str:
        """SQLAlchemy URL of Airflow's own database, with its password; never log it."""
        given = self.airflow_database_url.get_secret_value()
        # psycopg 3 is the driver that is installed, for both of Airflow's ways to ask.
        named = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg://", given)
        return named or f"sqlite:///{self.home / 'airflow' / 'airflow.db'}"

    @property
    def task_log_folder(self) -> Path:
        """Folder of the logs of Airflow's tasks and of its DAG files."""
        return self.task_logs or self.home / "logs" / "airflow"

    @property
    def node_addresses(self) -> list[str]:
        """Base addresses of all serving nodes that are known."""
        given = [url.strip().rstrip("/") for url in self.node_urls.split(",")]
        return [url for url in dict.fromkeys(given) if url] or [self.node_url]

    @property
    def node_url(self) -> str:
        """Base address of the serving node."""
        return self._url(self.node_port)

    @property
    def predict_url(self) -> str:
        """Base address at which predictions are asked for: the balancer's, else the node's."""
        return self.balancer_url or self.node_url

    @property
    def mlflow_url(self) -> str:
        """Base address of MLflow's pages."""
        return self._url(self.mlflow_port)

    @property
    def is_public(self) -> bool:
        """Whether others than this machine reach the servers."""
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"

    def _url(self, port: int) -> str:
        # The colons of an IPv6 address would be read as the one before the port.
        return f"http://[{self.host}]:{port}" if ":" in self.host else f"http://{self.host}:{port}"

    def make_home(self) -> None:
        """Make the home folder, or close one that others can open: it holds people's data.

        Raises:
            ConfigError: it cannot be made or closed, or belongs to everybody.
        """
        try:
            make_private(self.home)
        except OSError as error:
            raise ConfigError(
                f"{self.home} cannot be made a folder of yours alone ({error.strerror}); fix its "
                "owner, or set EVERGREEN_HOME to a folder of yours"
            ) from error

    def secret_path(self, name: str) -> Path:
        """Return the file of a secret, which need not be there."""
        if self.secrets_dir is not None:
            return self.secrets_dir / f"{PREFIX.lower()}{name}"
        return self.home / "secrets" / name

    def secret(self, name: str) -> SecretStr:
        """Return a secret: from the folder of secret files, else one that is generated in HOME.

        A generated one is made on first use, in a file that only its owner can read.

        Raises:
            ConfigError: the file is empty or cut off, cannot be read, or is missing from the
                folder; the message names it.
        """
        path = self.secret_path(name)
        if self.secrets_dir is not None:
            # A generated one would be another one on each machine, which is noticed much later.
            return SecretStr(secret_text(path, f"Write it for all machines alike to {path}"))
        if not path.exists():
            self.make_home()
            path.parent.mkdir(exist_ok=True, mode=0o700)
            make_secret(path)
        remedy = (
            f"Put the old one back from a backup, or delete {path}: the next start makes another, "
            "and what the old one has signed or encrypted is not accepted any more"
        )
        return SecretStr(secret_text(path, remedy))

    @property
    def node_secret(self) -> SecretStr:
        """Bearer token that the serving node demands.

        Raises:
            ConfigError: it is too short to keep anybody out.
        """
        given = self.node_token.get_secret_value()
        if not given:
            return self.secret("node_token")
        remedy = "Give it a random one (`openssl rand -hex 32`), or leave it out: one is generated"
        return SecretStr(checked(given, "EVERGREEN_NODE_TOKEN", remedy))

    @property
    def entity_secret(self) -> SecretStr:
        """Key by which the prediction log names entities in place of their own keys.

        Raises:
            ConfigError: it is too short to keep anybody from trying out names.
        """
        given = self.entity_key.get_secret_value()
        if not given:
            return self.secret("entity_key")
        remedy = "Give it a random one (`openssl rand -hex 32`), or leave it out: one is generated"
        return SecretStr(checked(given, "EVERGREEN_ENTITY_KEY", remedy))

    @property
    def signing_key_path(self) -> Path:
        """The file of the private key that models are signed by, which need not be there."""
        return self.signing_key_file or self.secret_path("signing_key")

    @property
    def makes_signing_key(self) -> bool:
        """Whether that key is generated on first use: not where somebody hands the secrets out."""
        return self.secrets_dir is None and self.signing_key_file is None

    @property
    def signing_keys_folder(self) -> Path:
        """The folder of the public keys."""
        return self.signing_keys or self.home / "keys"


CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # of cgroup v1
)


def _machine_memory() -> int:
    """Return the bytes of memory of the machine, or of the container that this process is in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CGROUP_LIMITS:
        # It is not there, or has no limit of its own: `max`, or in v1 more than any machine has.
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    return min(limits)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process, read once.

    Raises:
        ConfigError: a variable or a secret file is wrong; the message names it, never its value.
    """
    try:
        return Settings()
    except (SettingsError, ValidationError) as error:
        raise refused(error, Settings.model_fields) from None


def environment_secret(name: str) -> SecretStr | None:
    """Return the secret in a variable that a use case names, or None where it is not set."""
    value = os.environ.get(name, "")
    return SecretStr(value) if value else None
