# syntax=docker/dockerfile:1
# CPU by default; `--build-arg DEVICE=cuda` builds for NVIDIA GPUs (torch's CUDA wheels bring their own CUDA).
# TORCH_INDEX: the wheel index of PyTorch to take torch from (pytorch.org, "Start locally", names one for each device). Left empty,
# pip takes torch from where it takes everything: on x86 Linux that build has CUDA and is several gigabytes larger.

ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/pullback
WORKDIR /source
COPY constraints.txt ./
# First and alone, so that the layer with torch outlives changes of ours.
RUN /opt/pullback/bin/pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
RUN /opt/pullback/bin/pip install -c constraints.txt .

FROM ${PYTHON_IMAGE}
ARG DEVICE=cpu
LABEL org.opencontainers.image.title="Pullback" \
      org.opencontainers.image.description="Gradient queries over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/pullback /opt/pullback
# Any user id works (group 0, nothing is written outside /tmp), 10001 is the default.
RUN useradd --uid 10001 --gid 0 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin pullback
# The MALLOC settings keep large buffers instead of faulting their pages in anew for every body.
ENV PATH=/opt/pullback/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_MMAP_THRESHOLD_=33554432 \
    MALLOC_TRIM_THRESHOLD_=536870912 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PULLBACK_DEVICE=${DEVICE} \
    PULLBACK_HOST=0.0.0.0 \
    PULLBACK_PORT=8000
# No API key is built in: set PULLBACK_API_KEYS, or PULLBACK_OPEN_TO_NETWORK=true where the network in front of it is trusted.
# Without one of them the service refuses to listen on 0.0.0.0.
USER 10001:0
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 CMD ["python", "-m", "app.ready"]
ENTRYPOINT ["pullback"]
CMD ["serve"]
