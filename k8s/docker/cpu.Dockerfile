# syntax=docker/dockerfile:1.7@sha256:a57df69d0ea827fb7266491f2813635de6f17269be881f696fbfdf2d83dda33e
# dynalign for machines without a GPU: the pins that the tests run with, and the quickstart's model, so that pods need no network.
#   docker build --file k8s/docker/cpu.Dockerfile --tag dynalign-cpu:0.1.0 .
# A pip configuration of your own (an index, certificates): add --secret id=pip,src=/etc/pip.conf
# By digest, so that a rebuild is the same image. The newest: docker buildx imagetools inspect python:3.11-slim-bookworm
ARG PYTHON_IMAGE=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
FROM ${PYTHON_IMAGE}

# The compiler serves torch at run time too. KubeRay starts Ray through bash, which the image has.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 1000 ray && useradd --uid 1000 --gid 1000 --home-dir /home/ray --create-home ray

WORKDIR /opt/dynalign
COPY pyproject.toml README.md LICENSE ./
COPY requirements/ requirements/
COPY dynalign/ dynalign/
COPY configs/ configs/
COPY run_folder/ run_folder/
COPY dataset/ dataset/
COPY endpoint/ endpoint/
COPY evaluation/ evaluation/
COPY rollout/ rollout/
COPY learner/ learner/
COPY actors/ actors/
COPY launch/ launch/
COPY benchmarks/ benchmarks/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 sh requirements/install.sh python3 .venv/.installed requirements/cpu.txt
ENV PATH=/opt/dynalign/.venv/bin:$PATH
# The model is in /opt/dynalign/models/smollm2-135m-instruct. A run names that folder, and reads it as another user.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    XDG_CACHE_HOME=/opt dynalign model fetch smollm2-135m-instruct && chmod -R a+rX models

# DS_ACCELERATOR: DeepSpeed asks before it looks for devices. The root file system may be read-only: what is written goes to HOME and /tmp.
ENV HOME=/home/ray DS_ACCELERATOR=cpu TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /home/ray
CMD ["dynalign", "--help"]
