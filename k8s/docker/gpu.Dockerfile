# syntax=docker/dockerfile:1.7@sha256:a57df69d0ea827fb7266491f2813635de6f17269be881f696fbfdf2d83dda33e
# dynalign for NVIDIA GPUs (x86-64): the `gpu` extra, pinned. CUDA's libraries come with torch's wheels, the driver with the node.
#   docker build --file k8s/docker/gpu.Dockerfile --tag dynalign-gpu:0.1.0 .
# A pip configuration of your own (an index, certificates): add --secret id=pip,src=/etc/pip.conf
# By digest, so that a rebuild is the same image. The newest: docker buildx imagetools inspect python:3.11-slim-bookworm
ARG PYTHON_IMAGE=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
FROM ${PYTHON_IMAGE}

# Triton compiles its launchers at run time. KubeRay starts Ray through bash, which the image has.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 1000 ray && useradd --uid 1000 --gid 1000 --home-dir /home/ray --create-home ray

WORKDIR /opt/dynalign
RUN python3 -m venv .venv
ENV PATH=/opt/dynalign/.venv/bin:$PATH
# pip takes these pins as they are: nothing is resolved, so a rebuild is the same image.
COPY requirements/gpu.txt requirements/gpu.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip install --no-cache-dir --no-deps --requirement requirements/gpu.txt
COPY pyproject.toml README.md LICENSE ./
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
    python -m pip install --no-cache-dir --no-deps .

# utility: nvidia-smi, which the plan asks. Which devices a container sees is left to who runs it: a pod that asked for none gets none.
ENV HOME=/home/ray TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1 NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /home/ray
CMD ["dynalign", "--help"]
