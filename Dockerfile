# Transcribes media files with a trained model, on the CPU or on a GPU:
#
#   docker build -t espnet_smop .
#   docker build -t espnet_smop:cuda --build-arg TORCH=cu130 .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" -v "$HOME/.cache/huggingface:/cache" \
#       espnet_smop MODEL talks --format srt
#
# MODEL and talks are below the working directory; for a GPU add `--gpus all` and the tag `:cuda`.
# Base models that the model does not include are taken from the hub's cache, or fetched into it.
FROM python:3.12-slim-bookworm

# PyTorch's builds: cpu, or cu130 and others for CUDA
ARG TORCH=cpu

WORKDIR /opt/espnet_smop
COPY setup.py pyproject.toml README.md LICENSE ./
COPY espnet_smop espnet_smop
# PyTorch's own index has the build for TORCH, whose version 2.x.y+cpu goes before 2.x.y.
# setup.py has the versions.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --extra-index-url "https://download.pytorch.org/whl/${TORCH}" \
    ".[landmarks]"

# Any user of the host may run it; what libraries cache without being asked goes to /tmp.
ENV HOME=/tmp HF_HOME=/cache PYTHONUNBUFFERED=1
WORKDIR /data
# nobody
USER 65534
ENTRYPOINT ["python", "-m", "espnet_smop.bin.transcribe"]
CMD ["--help"]
