# The image of every process of Evergreen; which one a container is says its first argument:
#
#   docker build -t evergreen .
#   docker run evergreen SERVICE        (see include/installation/container.py)
#
# It needs nothing of BuildKit, so that any engine and any builder make it. Stages from the one that
# changes least to the one that changes with each commit: a change of the code copies 10 MB anew.
ARG BASE_IMAGE=python:3.13-slim-trixie

FROM ${BASE_IMAGE} AS base
# LightGBM's OpenMP, and an init that hands signals on and buries what tasks leave behind.
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends libgomp1 tini >/dev/null \
 && rm -rf /var/lib/apt/lists/*

FROM base AS tools
WORKDIR /opt/tools
COPY requirements-uv.txt ./
RUN python3 -m venv venv \
 && venv/bin/python -m pip install -q --disable-pip-version-check --no-cache-dir \
      --require-hashes --only-binary :all: -r requirements-uv.txt

FROM base AS packages
COPY --from=tools /opt/tools/venv/bin/uv /usr/local/bin/uv
COPY requirements-compose.txt /opt/
# Exactly what the lock names, by its hashes, and no code of a package's own run to build it;
# bytecode of this very Python, for a root that nobody can write to.
RUN python3 -m venv --without-pip /opt/venv \
 && uv pip sync -q --no-cache --require-hashes --only-binary :all: --compile-bytecode \
      --link-mode copy --python /opt/venv/bin/python /opt/requirements-compose.txt

FROM packages AS evergreen
ARG UID=10001
RUN groupadd --system --gid ${UID} evergreen \
 && useradd --system --uid ${UID} --gid ${UID} --home-dir /srv/evergreen --shell /usr/sbin/nologin \
      evergreen \
 && mkdir -p -m 0700 /srv/evergreen /srv/store \
 && chown ${UID}:${UID} /srv/evergreen /srv/store
WORKDIR /opt/evergreen
COPY . .
RUN echo /opt/evergreen > "$(/opt/venv/bin/python -I -c \
      'import sysconfig; print(sysconfig.get_path("purelib"))')/evergreen.pth" \
 && printf '#!/bin/sh\nexec /opt/venv/bin/python -m include "$@"\n' > /usr/local/bin/evergreen \
 && chmod 0755 /usr/local/bin/evergreen \
 && /opt/venv/bin/python -m compileall -q -j 0 include dags feature_repo
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/srv/evergreen \
    EVERGREEN_HOME=/srv/evergreen \
    EVERGREEN_SECRETS_DIR=/run/secrets \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER ${UID}:${UID}
VOLUME /srv/evergreen
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "python", "-m", "include.installation.container"]
# What a container is healthy by depends on what it is; it has been told to the entry point.
HEALTHCHECK --interval=15s --timeout=20s --start-period=600s --retries=3 \
    CMD ["python", "-I", "/opt/evergreen/include/installation/health.py"]
CMD ["help"]
