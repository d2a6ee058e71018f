# One image for every process; docker-compose.yml or the platform says which command runs.
# There is no embedded Redis in it: REDIS_URL names one.

FROM python:3.12-slim AS wheel
WORKDIR /build
COPY requirements/build.txt requirements/build.txt
RUN python -m pip install --no-cache-dir --require-hashes --only-binary=:all: -r requirements/build.txt
COPY pyproject.toml LICENSE README.md ./
COPY receiver receiver
COPY pipeline pipeline
COPY workers workers
COPY console console
COPY sandbox sandbox
RUN python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel .

FROM python:3.12-slim
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RELAY_HOME=/home/relay/.relay
# RELAY_HOME is there, and its user's, so that a volume made for it is too.
RUN useradd --create-home --uid 10001 --user-group relay \
    && install -d -o relay -g relay -m 0700 /home/relay/.relay
# The dependencies in a layer of their own: it changes only with the lock file.
# `docker build --build-arg LOCK=otel` makes an image that can tell traces.
ARG LOCK=runtime
COPY requirements/runtime.txt requirements/otel.txt /tmp/
RUN python -m pip install --no-cache-dir --require-hashes --only-binary=:all: -r /tmp/${LOCK}.txt
COPY --from=wheel /wheel /tmp/wheel
RUN python -m pip install --no-cache-dir --no-deps /tmp/wheel/*.whl
USER relay
WORKDIR /home/relay
EXPOSE 8000
# exec: the process itself gets the platform's SIGTERM, not a shell.
CMD ["sh", "-c", "exec uvicorn receiver.main:app --host 0.0.0.0 --port ${PORT:-8000} --no-access-log --no-server-header --timeout-graceful-shutdown 10"]
