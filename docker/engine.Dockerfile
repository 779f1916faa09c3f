# One engine with its weights inside: a container from this image needs no network but its gateways.
#   docker build -f docker/engine.Dockerfile --build-arg MODEL=english -t ssasr-engine-english .
#
# The base is plain Python: PyTorch's wheels bring CUDA's libraries themselves, and a CUDA base image
# would carry them a second time. The driver comes from the host through NVIDIA's container
# runtime, which the two NVIDIA_ variables ask for. For a machine without a GPU give the address of
# PyTorch's CPU wheels as TORCH_INDEX_URL; the image is then smaller by gigabytes.
#
# Every package is pinned with the digests of its wheels (docker/lock.py writes the lists); PyTorch from
# an index of your choice by its version only. The image has no pip. docs/operations.md says how to
# pin the base image by digest.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_INDEX_URL=""
ARG TORCH_VERSION=2.13.0
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY docker/requirements docker/requirements
RUN python -m venv /opt/build && python -m venv --without-pip /opt/ssasr \
    && /opt/build/bin/pip install --require-hashes -r docker/requirements/build.txt \
    && /opt/build/bin/pip --python /opt/ssasr/bin/python install --require-hashes \
       -r docker/requirements/engine.txt
RUN if [ -z "${TORCH_INDEX_URL}" ]; then \
        /opt/build/bin/pip --python /opt/ssasr/bin/python install --require-hashes --no-deps \
            -r docker/requirements/torch-cuda.txt; \
    else \
        /opt/build/bin/pip --python /opt/ssasr/bin/python install --no-deps \
            --index-url "${TORCH_INDEX_URL}" "torch==${TORCH_VERSION}"; \
    fi
COPY pyproject.toml README.md LICENSE ./
COPY ssasr ssasr
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/ssasr/bin/python install --no-deps --no-index /wheels/*.whl

# Every file is checked against the catalogue's digest as it arrives; verify reads them all once more.
FROM build AS weights
ARG MODEL=english
ENV SSASR_CACHE=/weights
RUN /opt/ssasr/bin/ssasr models pull "${MODEL}" silero-vad smart-turn speakers \
    && /opt/ssasr/bin/ssasr models verify

FROM ${PYTHON_IMAGE}
ARG MODEL=english
RUN useradd --system --uid 10001 --no-create-home ssasr
COPY --from=build /opt/ssasr /opt/ssasr
COPY --from=weights /weights /opt/weights
COPY docker/healthcheck.py /opt/ssasr/healthcheck.py
ENV SSASR_HOST=0.0.0.0 PATH=/opt/ssasr/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SSASR_LOG_FORMAT=json SSASR_CACHE=/opt/weights SSASR_MODEL=${MODEL} \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
EXPOSE 50051
STOPSIGNAL SIGTERM
# A model on a GPU warms up for up to minutes (CUDA graphs, a cold disk); failures count after that.
HEALTHCHECK --interval=5s --timeout=3s --start-period=180s --retries=3 \
    CMD ["python", "/opt/ssasr/healthcheck.py", "50051"]
ENTRYPOINT ["ssasr"]
CMD ["engine"]
