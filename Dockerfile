# Both services with their embedded Postgres and Valkey, run by an unprivileged user.
#
#   docker build -t fundledger .
#   docker run --init --network host --shm-size 256m -v fundledger:/data fundledger
#
# The dev profile listens on loopback only, so the container shares the host's network: http://127.0.0.1:8080.
# The token: docker exec CONTAINER cat /data/dev-token

FROM python:3.13-slim-bookworm AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Download all packages of the lock file to /wheels; pip checks their hashes.
COPY requirements.txt ./
RUN pip wheel --require-hashes --wheel-dir /wheels -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY fundledger fundledger
RUN python -m venv /tools \
 && /tools/bin/pip install --no-index --find-links /wheels --upgrade setuptools \
 && /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .
# Install the packages that are needed at run time, from /wheels only.
RUN python -m venv /opt/fundledger \
 && /opt/fundledger/bin/pip install --no-index --find-links /wheels fundledger

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin fundledger \
 && install --directory --owner fundledger --group fundledger --mode 0711 /data
COPY --from=build /opt/fundledger /opt/fundledger
ENV PATH=/opt/fundledger/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FUNDLEDGER_DATA_DIR=/data
USER fundledger
WORKDIR /data
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('FUNDLEDGER_PORT', '8080') + '/healthz', timeout=2)"]
ENTRYPOINT ["fundledger"]
CMD ["serve"]
