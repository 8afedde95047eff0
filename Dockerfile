# The web app and its HTTP API; docs/service.md describes it.
#
#   docker build -t motion .
#   docker build -t motion:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#   docker run --rm -p 127.0.0.1:8000:8000 motion
#   docker run --rm -p 127.0.0.1:8000:8000 --gpus all motion:cuda
#
# BASE is any image of Debian 12, Ubuntu 24.04 or newer; wheels of PyTorch for CUDA bring its libraries, so that
# nvidia/cuda images, such as nvidia/cuda:13.0.1-base-ubuntu24.04, are only needed for other software.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN if ! command -v python3 > /dev/null; then \
      apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*; \
    fi && python3 -m venv /opt/venv && useradd --no-log-init --create-home --uid 10001 motion
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

WORKDIR /app
COPY requirements.txt ./
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN grep -E '^torch(vision)?==' requirements.txt > torch.txt \
 && pip install --no-cache-dir --index-url "${TORCH_INDEX}" -r torch.txt \
 && pip install --no-cache-dir -r requirements.txt \
 && rm torch.txt
COPY . .

USER 10001
EXPOSE 8000
HEALTHCHECK --start-period=60s --timeout=5s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz/ready', timeout=4)"]
ENTRYPOINT ["python", "app.py", "--host", "0.0.0.0"]
