"""Deployment settings: the one place where the environment is read.

Every setting is `EVERGREEN_<NAME>`; defaults are the embedded installation under `var/`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from include.config.secret_files import checked, make_secret
from include.errors import ConfigError
from include.files import make_private

ROOT = Path(__file__).resolve().parents[2]


class Settings(BaseSettings):
    """All settings of one installation; frozen, so a changed environment needs a new process."""

    model_config = SettingsConfigDict(
        env_prefix="EVERGREEN_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    home: Path = Field(
        default=ROOT / "var",
        description="Folder of all state: databases, lake, models, logs, reports. Another folder "
        "is another installation.",
    )
    usecases: str = Field(
        default=str(ROOT / "include" / "usecases"),
        description="Folders that hold use case YAML files, separated by ':'. The first one that "
        "has a name wins.",
    )
    lake_uri: str = Field(
        default="",
        description="Root of the lake: a folder or an object store URI. Empty: HOME/lake.",
    )
    records_url: SecretStr = Field(
        default=SecretStr(""),
        description="SQLAlchemy URL of the database of record, such as "
        "postgresql://user:password@host/name. Empty: SQLite in HOME.",
    )
    mlflow_uri: SecretStr = Field(
        default=SecretStr(""),
        description="MLflow tracking URI: a database URL or a server. Empty: SQLite in HOME.",
    )
    data_dir: Path = Field(
        default=ROOT / ".." / "shared" / "data",
        description="Folder that `{data_dir}` in the path of a source stands for.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address on which every server listens; another than this machine's own opens "
        "them to its network.",
    )
    airflow_port: int = Field(
        default=8080, ge=1, le=65535, description="Port of Airflow's API server and UI."
    )
    mlflow_port: int = Field(default=5000, ge=1, le=65535, description="Port of MLflow's UI.")
    node_port: int = Field(default=8600, ge=1, le=65535, description="Port of the serving node.")
    node_listener: int | None = Field(
        default=None,
        ge=3,
        description="Descriptor of a listening socket that the node inherits; `make run` sets it. "
        "Empty: the node opens its port itself.",
    )
    node_token: SecretStr = Field(
        default=SecretStr(""),
        description="The installation's own token of the node, which has every role, of 32 "
        "characters or more. Empty: one is generated in HOME/secrets.",
    )
    node_tokens: SecretStr = Field(
        default=SecretStr(""),
        description="Further tokens, `NAME ROLE[,ROLE] SECRET` each, separated by ';'. Roles are "
        "predict, read and operate.",
    )
    node_tokens_file: str = Field(
        default="",
        description="File of further tokens, one a line; a running node takes its changes over. "
        "Empty: HOME/secrets/tokens, which need not be there.",
    )
    access_log: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the requests to the node that get a line in "
        "HOME/logs/access-PORT.jsonl; changes of state and failures always do. 0: no such log.",
    )
    request_seconds: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description="Seconds that a request to the node waits at most for a model in a process of "
        "its own, and a batch for all of its rows.",
    )
    predict: Literal["", "open", "token"] = Field(
        default="",
        description="open: predictions need no token, on any address. token: predictions and pages "
        "need one on a loopback address too, as behind a proxy. Empty: both need one unless the "
        "node listens on a loopback address.",
    )
    online_url: SecretStr = Field(
        default=SecretStr(""),
        description="Redis of the online features, such as redis://:password@host:6379/0; it must "
        "not evict (maxmemory-policy noeviction). Empty: SQLite in HOME.",
    )
    online_prefix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9_.:-]*$",
        description="What this installation's keys in Redis begin with. Empty: made from HOME; set "
        "it where several machines have one installation, each with a HOME of its own.",
    )
    segments_uri: str = Field(
        default="",
        description="Where nodes ship closed segments of the prediction log, and the import finds "
        "them: a folder that all machines share, or an object store URI. Empty: node and import "
        "share HOME.",
    )
    entity_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key by which the prediction log hashes entities whose key is marked with "
        "`pii`, of 32 characters or more; the same on every node. Empty: one is generated in "
        "HOME/secrets.",
    )
    seed: int = Field(default=7, description="Seed of the simulated portfolio's chance.")
    parallelism: int = Field(
        default=4, ge=1, description="Tasks that Airflow runs at once; more need more memory."
    )
    memory: str = Field(
        default="",
        pattern=r"^(\d+(\.\d+)? ?[MGT]i?B)?$",
        description="Most memory that a stage takes for its rows, such as 4GB: half of it for its "
        "queries, which spill to HOME/spill what needs more, and half for the rows that it holds. "
        "Empty: a quarter of the machine's.",
    )
    log_megabytes: float = Field(
        default=20.0,
        gt=0,
        description="Most size of the log of each process that `make run` starts; a full one is "
        "put aside while the process runs.",
    )
    log_files: int = Field(
        default=3, ge=0, description="Logs that were put aside and are kept, of each process."
    )
    task_log_megabytes: float = Field(
        default=1000.0,
        gt=0,
        description="Most size of all logs of Airflow's tasks and DAG files; the oldest go first.",
    )
    airflow_days: int = Field(
        default=90,
        ge=7,
        description="Days for which Airflow's database keeps runs, tasks and events that are over.",
    )
    lease_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Seconds without a sign after which a run has lost its lease, and another one "
        "may take over. Raise it where machines stall.",
    )

    @model_validator(mode="before")
    @classmethod
    def _absolute(cls, values: dict[str, object]) -> dict[str, object]:
        for name in ("home", "data_dir"):
            if values.get(name):
                values[name] = Path(str(values[name])).expanduser().resolve()
        return values

    @property
    def lake_root(self) -> str:
        """Root URI or folder of the lake."""
        return self.lake_uri or str(self.home / "lake")

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
    def usecase_dirs(self) -> list[Path]:
        """Folders with use case files, in order."""
        return [Path(part).expanduser().resolve() for part in self.usecases.split(":") if part]

    @property
    def airflow_url(self) -> str:
        """Base address of Airflow's API server."""
        return self._url(self.airflow_port)

    @property
    def node_url(self) -> str:
        """Base address of the serving node."""
        return self._url(self.node_port)

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

    def secret(self, name: str) -> SecretStr:
        """Return a generated secret, made on first use in a file that only its owner can read.

        Raises:
            ConfigError: the file is empty or cut off, or cannot be read; the message names it.
        """
        path = self.home / "secrets" / name
        if not path.exists():
            self.make_home()
            path.parent.mkdir(exist_ok=True, mode=0o700)
            make_secret(path)
        remedy = (
            f"Put the old one back from a backup, or delete {path}: the next start makes another, "
            "and what the old one has signed or encrypted is not accepted any more"
        )
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read as a secret ({error}). {remedy}") from None
        return SecretStr(checked(text, str(path), remedy))

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


def _machine_memory() -> int:
    """Return the bytes of memory of the machine, or of the container that this process is in."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        container = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # there is none, or it has no limit of its own: `max`
        return machine
    return min(machine, container)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process, read once."""
    return Settings()


def environment_secret(name: str) -> SecretStr | None:
    """Return the secret in a variable that a use case names, or None where it is not set."""
    value = os.environ.get(name, "")
    return SecretStr(value) if value else None
