# One image for the trainer and the launcher. docs/recipes/image.md: how to build it, its size, mirrors, air gap.
#
# The base brings Python 3.11 with its venv module; it must be a glibc of Debian bookworm's age or newer.
ARG BASE_IMAGE=python:3.11-slim-bookworm


# uv, and what the lock asks for: later stages mount or copy from here, so that nothing else of it stays.
FROM ${BASE_IMAGE} AS uv
# The same release as in the Makefile.
ARG UV_VERSION=0.13.8
ENV PATH=/opt/uv/bin:$PATH UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never
# Both secrets are optional. `env` is a shell file with settings for this build alone (UV_DEFAULT_INDEX, PIP_INDEX_URL,
# SSL_CERT_FILE=/run/secrets/ca ...), `ca` a bundle of certificates. They reach no layer and no history.
RUN --mount=type=secret,id=env --mount=type=secret,id=ca \
    set -ae; if [ -f /run/secrets/env ]; then . /run/secrets/env; fi; \
    python3 -m venv /opt/uv; \
    /opt/uv/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check uv==${UV_VERSION}
WORKDIR /build
COPY pyproject.toml uv.lock ./
RUN uv export --quiet --frozen --no-dev --extra train --no-emit-project --no-header --no-annotate --output-file /requirements.txt


# Our own code, as it will lie in /opt/mtft.
FROM uv AS code
COPY . .
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=env --mount=type=secret,id=ca \
    set -ae; if [ -f /run/secrets/env ]; then . /run/secrets/env; fi; \
    uv venv --quiet --python python3.11 /opt/mtft; \
    uv pip install --quiet --python /opt/mtft --prefix /code --no-deps .; \
    rm -f /code/.lock


# The libraries: the 6 GB layer, which changes when a pinned release does, and the surroundings of every process.
FROM ${BASE_IMAGE} AS dependencies
# Nobody becomes root in this image.
RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# Stays in the image: it tells what is in there.
COPY --from=uv /requirements.txt /opt/mtft/requirements.txt
# From the lock with its hashes, but through `uv pip`: `uv sync --frozen` would pass by any mirror that is set.
RUN --mount=type=bind,from=uv,source=/opt/uv,target=/opt/uv \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=env --mount=type=secret,id=ca \
    set -ae; if [ -f /run/secrets/env ]; then . /run/secrets/env; fi; \
    PATH="/opt/uv/bin:$PATH" UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never; \
    uv venv --quiet --allow-existing --python python3.11 /opt/mtft; \
    uv pip install --python /opt/mtft --compile-bytecode --no-deps --require-hashes -r /opt/mtft/requirements.txt; \
    rm -f /opt/mtft/.lock
# A UID without an entry in passwd has no home and no name; both are asked for by libraries that look for a cache.
ENV PATH=/opt/mtft/bin:$PATH \
    HOME=/tmp \
    USER=mtft \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
# `storage.root` unless configured otherwise; a volume goes here. Any UID in group 0 may write.
RUN install -d -m 2775 -o 1001 -g 0 /mnt/mtft
WORKDIR /mnt/mtft
USER 1001:0
# No ENTRYPOINT: `python -m trainer ...` and `mtft-launch ...` are given as they are and run as PID 1.
CMD ["python", "-m", "trainer", "--self-test"]


FROM dependencies
COPY --from=code /code /opt/mtft
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mtft" \
      org.opencontainers.image.description="Retrain EN-FR translation models on a Kubernetes GPU cluster and keep only what is better" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
