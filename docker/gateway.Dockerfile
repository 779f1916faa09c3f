# The gateway: clients' sessions, no model and no torch. Build from the top of the checkout:
#   docker build -f docker/gateway.Dockerfile -t ssasr-gateway .
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/ssasr
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ssasr ssasr
RUN /opt/ssasr/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt .

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --no-create-home ssasr \
    && install --directory --owner ssasr /var/lib/ssasr
COPY --from=build /opt/ssasr /opt/ssasr
COPY docker/healthcheck.py /opt/ssasr/healthcheck.py
ENV PATH=/opt/ssasr/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SSASR_LOG_FORMAT=json
USER 10001
WORKDIR /var/lib/ssasr
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python", "/opt/ssasr/healthcheck.py", "8080"]
ENTRYPOINT ["ssasr"]
CMD ["gateway"]
