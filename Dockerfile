# The service as an image: dependencies from the hashed locks, the base model's weights baked in, no root; the
# compiler that builds the decoder in C stays behind in the build stage. Only the CUDA image has one, for Triton.
#
#   docker build -t whisper-service .                              CPU
#   docker build -t whisper-service:cuda --target cuda .           NVIDIA; run it with --gpus all
#   docker build -t whisper-service:bare --build-arg BASE_WEIGHTS=no .    a model is mounted, or fetched into /weights
#
# The base is pinned by digest. This one stands in published build files for both the Docker Hub and its mirror; it was not
# fetched where this file was last tested (deploy/image-test.sh builds on a Debian root of its own). A newer one is what
# `docker buildx imagetools inspect python:3.11-slim` prints; give it here or with --build-arg PYTHON_IMAGE=...
ARG PYTHON_IMAGE=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
# Where dependencies are installed; its Python must be the other's. The compiler stays behind in it.
ARG BUILD_IMAGE=${PYTHON_IMAGE}

# --- what both builds install from ---------------------------------------------------------------------------------
FROM ${BUILD_IMAGE} AS sources
WORKDIR /app
# A compiler for model/native, which stays behind in this stage; a base that has one needs none. Not pinned: a version
# leaves the distribution's mirrors with its next fix.
# hadolint ignore=DL3008,DL3009
RUN command -v cc >/dev/null \
    || { apt-get update -qq && apt-get install -qq --yes --no-install-recommends gcc libc6-dev >/dev/null; }
COPY deploy/install.sh deploy/native.sh deploy/
COPY requirements/ requirements/
COPY pyproject.toml setup.py README.md LICENSE NOTICE ./
COPY model/ model/
COPY service/ service/

# --- what both images are but for the packages; the interpreter's place is the same, so .venv can be copied --------
FROM ${PYTHON_IMAGE} AS runtime
# Models other than the baked one are kept in /weights: mount a volume there to keep them between runs.
RUN groupadd --system --gid 10001 whisper \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin whisper \
    && mkdir /weights \
    && chown 10001:10001 /weights
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    WHISPER_HOST=0.0.0.0 \
    WHISPER_DOWNLOAD_DIR=/weights
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Never through a proxy, which an engine may give to every container (HTTP_PROXY).
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ.get(\"WHISPER_PORT\") or 8000}/livez', timeout=4)"]
CMD ["python", "-m", "service"]

# --- CPU -----------------------------------------------------------------------------------------------------------
FROM sources AS build-cpu
ARG BASE_WEIGHTS=yes
RUN TORCH_BUILD=cpu BASE_WEIGHTS="${BASE_WEIGHTS}" PIP_NO_CACHE_DIR=1 deploy/install.sh image
FROM runtime AS cpu
COPY --from=build-cpu /app/.venv /app/.venv

# --- NVIDIA --------------------------------------------------------------------------------------------------------
FROM sources AS build-cuda
ARG BASE_WEIGHTS=yes
RUN TORCH_BUILD=cuda BASE_WEIGHTS="${BASE_WEIGHTS}" PIP_NO_CACHE_DIR=1 deploy/install.sh image
FROM runtime AS cuda
# Triton compiles the attention of a step for the very card, and what launches it in C; without a compiler the service runs
# on torch's operators, and its log says so. What was compiled is kept in a folder from which programs may be loaded: a
# tmpfs forbids that unless told otherwise.
USER 0
# hadolint ignore=DL3008
RUN command -v cc >/dev/null \
    || { apt-get update -qq && apt-get install -qq --yes --no-install-recommends gcc libc6-dev >/dev/null; } \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=build-cuda /app/.venv /app/.venv
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TRITON_CACHE_DIR=/weights/.triton

# --- what `docker build .` makes -----------------------------------------------------------------------------------
FROM cpu
