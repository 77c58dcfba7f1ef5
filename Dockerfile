# The service as an image: dependencies from the hashed locks, the base model's weights baked in, no compiler, no root.
#
#   docker build -t whisper-service .                                      CPU
#   docker build -t whisper-service:cuda --build-arg TORCH_BUILD=cuda .    NVIDIA; run it with --gpus all
#
# To pin the base image, name it with its digest, which `docker buildx imagetools inspect python:3.11-slim` prints:
#   docker build --build-arg PYTHON_IMAGE=python:3.11-slim@sha256:... .
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /app
# cpu or cuda; BASE_WEIGHTS=no leaves the weights out, for an image that mounts its own model.
ARG TORCH_BUILD=cpu
ARG BASE_WEIGHTS=yes
COPY deploy/install.sh deploy/
COPY requirements/ requirements/
RUN TORCH_BUILD="${TORCH_BUILD}" BASE_WEIGHTS="${BASE_WEIGHTS}" PIP_NO_CACHE_DIR=1 deploy/install.sh dependencies
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY model/ model/
COPY service/ service/
RUN .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation . \
    && .venv/bin/python -m pip uninstall --quiet --yes pip

FROM ${PYTHON_IMAGE}
# The interpreter's place is the same in both stages, so the virtual environment can be copied as it is.
COPY --from=build /app/.venv /app/.venv
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
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"WHISPER_PORT\", \"8000\")}/livez', timeout=4)"]
CMD ["python", "-m", "service"]
