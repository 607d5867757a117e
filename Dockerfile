# syntax=docker/dockerfile:1
# The dispatcher as an image: `docker build -t dispatcher .`; what it needs at run time is told in docs/deploy.md.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/dispatcher
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY dispatcher dispatcher
# Exact versions; wheels only, so that no compiler is wanted in any stage.
RUN /opt/dispatcher/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --no-binary dispatcher --constraint constraints.txt ".[postgresql]" \
    && /opt/dispatcher/bin/python -m compileall -q /opt/dispatcher/lib \
    && /opt/dispatcher/bin/python -m pip uninstall --yes --quiet pip

FROM python:3.13-slim-bookworm
# Nothing here installs anything any more.
RUN python -m pip uninstall --yes --quiet pip \
    && groupadd --system --gid 10001 dispatcher \
    && useradd --system --uid 10001 --gid dispatcher --no-create-home --home-dir /var/lib/dispatcher dispatcher \
    && install -d -o dispatcher -g dispatcher -m 0700 /var/lib/dispatcher \
    && install -d -o root -g dispatcher -m 0750 /etc/dispatcher
COPY --from=build /opt/dispatcher /opt/dispatcher
ENV PATH=/opt/dispatcher/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DISPATCHER_CONFIG=/etc/dispatcher/config.toml
# The one place that is written to: with --read-only, a volume is all that is wanted (and --tmpfs /tmp for nothing).
VOLUME /var/lib/dispatcher
WORKDIR /var/lib/dispatcher
USER 10001:10001
EXPOSE 8080
# The daemon finishes what is in flight; a second signal would give that up.
STOPSIGNAL SIGTERM
# 503 is not ready: an answer all the same, by which urlopen fails.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(os.environ.get('DISPATCHER_READYZ', 'http://127.0.0.1:8080/readyz'), timeout=4)"]
ENTRYPOINT ["dispatcher"]
CMD ["run"]
