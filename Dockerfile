# The image of every node: the project with the versions it was tested with, run by user 1000.
#
#   docker build -t registry.example/taskheat:0.1 .
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t registry.example/taskheat:0.1-cuda .
#
# What is submitted to the cluster comes before what is installed here.
FROM python:3.11-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=wandb,mlflow,trackio

# wget: KubeRay's probes; procps: Ray's own commands; tini: children of Ray's processes are reaped.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends procps tini wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --shell /bin/bash ray

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    TOKENIZERS_PARALLELISM=false

# The dependencies first: this layer stays while only the code changes.
WORKDIR /opt/taskheat
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir scheduler train evalsvc cluster \
    && touch scheduler/__init__.py train/__init__.py evalsvc/__init__.py cluster/__init__.py \
    && pip install --constraint constraints.txt --extra-index-url "${TORCH_INDEX}" ".[${EXTRAS}]" \
    && pip uninstall --yes taskheat

COPY scheduler scheduler
COPY train train
COPY evalsvc evalsvc
COPY cluster cluster
RUN pip install --no-deps . && python -m cluster --help > /dev/null

USER ray
WORKDIR /home/ray
ENTRYPOINT ["tini", "--"]
CMD ["taskheat", "--help"]
