"""Declare every setting: its name, its default, its bounds, and what it is for.

A setting is `EVERGREEN_<NAME>`, or a file `evergreen_<name>` in EVERGREEN_SECRETS_DIR, as
containers get their secrets; the environment wins. Defaults are the embedded installation under
`var/`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from include.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "EVERGREEN_"
SECRETS_DIR = f"{PREFIX}SECRETS_DIR"


_PATHS = ("home", "data_dir", "secrets_dir", "task_logs", "signing_key_file", "signing_keys")


class DeclaredSettings(BaseSettings):
    """The settings as they are given; frozen, so a changed environment needs a new process."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment, then the folder of secret files that it names."""
        folder = init_settings().get("secrets_dir") or os.environ.get(SECRETS_DIR)
        if not folder:
            return init_settings, env_settings
        # Where one cannot be read, pydantic only warns, and every secret would be a made-up one.
        try:
            os.listdir(folder)
        except OSError as error:
            raise ConfigError(
                f"{SECRETS_DIR} is {folder}, which cannot be read ({error.strerror}); name the "
                "folder of the secret files, or leave it out"
            ) from None
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=folder)

    home: Path = Field(
        default=ROOT / "var",
        description="Folder of all state: databases, lake, models, logs, reports. Another folder "
        "is another installation.",
    )
    secrets_dir: Path | None = Field(
        default=None,
        description="Folder of secret files, such as /run/secrets: a setting may stand in a file "
        "evergreen_<name> there. With it no secret is generated: several machines share them.",
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
    store_uri: str = Field(
        default="",
        description="Root of the artefacts that stages leave for one another and for the nodes "
        "(bundles, Bentos, reference samples, reports): a folder that all machines share, or an "
        "object store URI such as s3://bucket/path. Empty: HOME.",
    )
    lake_cache_megabytes: float = Field(
        default=10_000.0,
        gt=0,
        description="Most size of the copies in HOME/cache/lake of files of a lake in an object "
        "store; the ones that were used longest ago go first.",
    )
    cache_megabytes: float = Field(
        default=2000.0,
        gt=0,
        description="Most size of the copies in HOME/cache of artefacts of an object store; what "
        "was used longest ago goes first.",
    )
    records_url: SecretStr = Field(
        default=SecretStr(""),
        description="SQLAlchemy URL of the database of record, such as "
        "postgresql://user:password@host/name. Empty: SQLite in HOME.",
    )
    records_owner_url: SecretStr = Field(
        default=SecretStr(""),
        description="The same database as the role that owns its tables, on PostgreSQL: for "
        "`evergreen migrate`, and no other process. Empty: the role of EVERGREEN_RECORDS_URL is "
        "the owner, or may not migrate.",
    )
    records_node_url: SecretStr = Field(
        default=SecretStr(""),
        description="The same database as the role of the serving nodes: for `evergreen migrate`, "
        "which makes and restricts that role. A node has it as its EVERGREEN_RECORDS_URL.",
    )
    mlflow_uri: SecretStr = Field(
        default=SecretStr(""),
        description="MLflow tracking URI: a database URL or a server. Empty: SQLite in HOME.",
    )
    mlflow_reader_uri: SecretStr = Field(
        default=SecretStr(""),
        description="MLflow's database as a role that only reads: for `evergreen migrate`, which "
        "makes that role. MLflow's server has it as its EVERGREEN_MLFLOW_URI.",
    )
    postgres_admin_url: SecretStr = Field(
        default=SecretStr(""),
        description="PostgreSQL as a superuser: for `evergreen migrate`, which makes the roles and "
        "databases that the other URLs name. Empty: they are there.",
    )
    database_pool: int = Field(
        default=8,
        ge=2,  # a sign of life beside the work
        description="Most connections that a process has to PostgreSQL; who needs one more waits.",
    )
    database_patience: float = Field(
        default=180.0,
        ge=0,
        description="Seconds for which tasks wait for a database that is away, such as one that "
        "restarts. Commands wait for 10 at most, nodes not at all.",
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
    airflow_address: str = Field(
        default="",
        pattern=r"^(https?://[^/\s]+)?$",
        description="Where workers and commands reach Airflow's API server, such as "
        "http://airflow:8080, where it runs elsewhere. Empty: EVERGREEN_HOST and its port.",
    )
    airflow_public_address: str = Field(
        default="",
        pattern=r"^(https?://[^/\s]+)?$",
        description="What people type for Airflow's pages, such as https://airflow.example.org. "
        "Empty: EVERGREEN_AIRFLOW_ADDRESS.",
    )
    airflow_database_url: SecretStr = Field(
        default=SecretStr(""),
        description="URL of Airflow's own database, such as "
        "postgresql://user:password@host/airflow. Empty: SQLite in HOME.",
    )
    airflow_auth: Literal["simple", "fab"] = Field(
        default="simple",
        description="Who may use Airflow. simple: one administrator. fab: the users admin, op and "
        "viewer, each with the role of this name; it needs the packages of "
        "requirements-compose.txt.",
    )
    airflow_user: Literal["admin", "op", "viewer"] = Field(
        default="admin",
        description="The user as whom tasks and commands use Airflow's API. With "
        "EVERGREEN_AIRFLOW_AUTH=fab, `op` may do all that they do.",
    )
    executor: Literal["local", "celery"] = Field(
        default="local",
        description="Where Airflow's tasks run. local: in processes of the scheduler's. celery: on "
        "workers, to which EVERGREEN_BROKER_URL hands them; it needs the packages of "
        "requirements-compose.txt.",
    )
    broker_url: SecretStr = Field(
        default=SecretStr(""),
        description="Redis over which the scheduler hands tasks to Celery workers, such as "
        "redis://:password@host:6379/0; another one than that of the online features, and it must "
        "not evict.",
    )
    worker_tasks: int = Field(
        default=2,
        ge=1,
        description="Tasks that one Celery worker runs at once.",
    )
    worker_queues: str = Field(
        default="default,heavy",
        pattern=r"^[A-Za-z0-9_.-]+(,[A-Za-z0-9_.-]+)*$",
        description="Queues that a Celery worker takes tasks from: `heavy` has trainings, "
        "evaluations and loads of history, `default` the rest.",
    )
    heavy_tasks: int = Field(
        default=2,
        ge=1,
        description="Heavy tasks at once on all Celery workers together: at most the slots of "
        "those that take them. Others wait in Airflow, not in the broker.",
    )
    task_logs: Path | None = Field(
        default=None,
        description="Folder of the logs of Airflow's tasks, shared by workers and API server where "
        "these are several machines. Empty: HOME/logs/airflow.",
    )
    mlflow_port: int = Field(default=5000, ge=1, le=65535, description="Port of MLflow's UI.")
    mlflow_hosts: str = Field(
        default="",
        pattern=r"^[^\s/]*$",
        description="What browsers may name MLflow's server by, such as mlflow.example.org, "
        "separated by ','. Empty: EVERGREEN_HOST and localhost.",
    )
    node_port: int = Field(default=8600, ge=1, le=65535, description="Port of the serving node.")
    balancer_url: str = Field(
        default="",
        pattern=r"^(https?://[^/\s]+)?$",
        description="Where callers reach the nodes, such as http://balancer:8600, where a balancer "
        "stands before them. Empty: EVERGREEN_HOST and the node's port.",
    )
    node_urls: str = Field(
        default="",
        pattern=r"^(\s*https?://[^\s,/@]+/?\s*(,|$))*$",
        description="Addresses of all serving nodes, such as http://node-1:8600,http://node-2:8600:"
        " those that a rollback asks where the records are away. Each has the same "
        "EVERGREEN_NODE_TOKEN. Empty: the one of EVERGREEN_NODE_PORT.",
    )
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
        "them: a folder that all machines share, or an object store URI. Empty: segments below "
        "STORE_URI; without that too, node and import share HOME.",
    )
    entity_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key by which the prediction log hashes entities whose key is marked with "
        "`pii`, of 32 characters or more; the same on every node. Empty: one is generated in "
        "HOME/secrets.",
    )
    signing_key_file: Path | None = Field(
        default=None,
        description="File of the private key that models are signed by (Ed25519, PEM): where they "
        "are packaged, and on no node. Empty: evergreen_signing_key in EVERGREEN_SECRETS_DIR, else "
        "one is generated in HOME/secrets.",
    )
    signing_keys: Path | None = Field(
        default=None,
        description="Folder of the public keys by which nodes verify models, and of the list of "
        "those that are revoked. Empty: HOME/keys.",
    )
    signing_key_days: int = Field(
        default=365,
        ge=1,
        le=3650,
        description="Days for which a new key signs. What it has signed is believed for ever, "
        "unless the key is revoked.",
    )
    alert_url: SecretStr = Field(
        default=SecretStr(""),
        description="Where alerts are sent to, by POST as JSON: a release that was rolled back or "
        "aborted, or that a person is asked to look at, and a task of a live partition that failed "
        "for good. Such as https://hooks.example.org/abc; it is a secret. Empty: nowhere.",
    )
    seed: int = Field(default=7, description="Seed of the simulated portfolio's chance.")
    parallelism: int = Field(
        default=4,
        ge=1,
        description="Tasks that Airflow runs at once; more need more memory. On Celery workers at "
        "most the slots of all of them (EVERGREEN_WORKER_TASKS each).",
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
        for name in _PATHS:
            if values.get(name):
                try:
                    values[name] = Path(str(values[name])).expanduser().resolve()
                except (RuntimeError, ValueError) as error:
                    raise ConfigError(
                        f"{PREFIX}{name.upper()} is no path of this machine ({error}); name one "
                        "from / on"
                    ) from None
        return values
