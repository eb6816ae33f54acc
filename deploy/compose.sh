#!/bin/sh
# Evergreen in containers, step by step: what `make compose` and its relatives run.
#
#   deploy/compose.sh build | secrets | up | job | addresses | all | update
#
# Whoever may use the engine may run it; nothing else has to be installed on the host.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*"; }

check() {
  docker info >/dev/null 2>&1 || {
    say "compose: no container engine answers. Start Docker, or give this user the right to use it" >&2
    exit 1
  }
  docker compose version >/dev/null 2>&1 || {
    say "compose: this engine has no compose v2 (\`docker compose\`); install its plugin" >&2
    exit 1
  }
}

build() { docker compose build -q prepare; }

secrets() { docker compose run --rm --no-deps secrets; }

up() {
  # Its bind mounts would else be made by the engine, as root's.
  usecases=$(sed -n 's/^USECASES=//p' .env 2>/dev/null || true)
  mkdir -p "${USECASES:-${usecases:-./usecases}}"
  docker compose up -d --wait --wait-timeout 600
}

update() {
  # `up` alone would stop both nodes before it migrates. So first the databases, while all that runs
  # goes on, and still does where they cannot be migrated; then one node after the other.
  build
  secrets
  say "compose: migrating the databases; what runs goes on meanwhile"
  docker compose run --rm -T init || {
    say "compose: they could not be migrated; nothing else was changed, and all that ran goes on" >&2
    exit 1
  }
  for node in node-1 node-2; do
    say "compose: exchanging $node; the other one answers"
    # With what it depends on: left out (`--no-deps`), it would be taken for another one by `up`,
    # which would exchange both once more, and at once.
    docker compose up -d --wait --wait-timeout 600 "$node" || {
      say "compose: $node does not come up, the other one answers: see \`docker compose logs $node\`" >&2
      exit 1
    }
  done
  up
}

job() {
  docker compose run --rm -T evergreen command up \
    ${USE_CASE:+--use-case "$USE_CASE"} ${DAYS:+--days "$DAYS"}
}

place() { docker compose port "$1" "$2" 2>/dev/null || true; }

addresses() {
  folder=$(sed -n 's/^SECRETS=//p' .env 2>/dev/null || true)
  folder=${SECRETS:-${folder:-./secrets}}
  say ""
  say "  predictions    http://$(place balancer 8600)/v1/USE_CASE/predict, token in $folder/caller_token"
  say "  Airflow        http://$(place api-server 8080), users admin, op and viewer,"
  say "                 passwords in $folder/airflow_admin, airflow_op, airflow_viewer"
  say "  MLflow         http://$(place mlflow 5000), user admin, password in $folder/mlflow_admin"
  say "  commands       docker compose run --rm evergreen command status repayment"
  say "  the end        docker compose down (with -v: of all data, too)"
  say ""
  say "The files belong to the user of the containers; \`sudo cat\` shows one."
}

case "${1:-}" in
  build | secrets | up | job | addresses | update) check; "$1" ;;
  all) check; build; secrets; up; job; addresses ;;
  *) sed -n '2,6p' "$0"; exit 2 ;;
esac
