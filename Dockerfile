# The same base at build and at run time: a venv is tied to its interpreter's place and version.
FROM python:3.13-slim AS base
ENV PYTHONUNBUFFERED=1
WORKDIR /app

# Dependencies first, in a layer that changes with the lock alone.
FROM base AS build
RUN --mount=type=cache,target=/root/.cache/pip pip install --root-user-action=ignore 'uv>=0.9'
# System certificates: where a proxy has its own, the base image is where they are added.
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen --no-dev --no-install-project
COPY README.md LICENSE ./
COPY lua lua
COPY service service
RUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen --no-dev --no-editable

# docker build --target test . && docker run --rm <image>: the whole suite, on the interpreter that ships.
FROM build AS test
RUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen --no-editable
COPY tests tests
# Tests of the documents read these.
COPY .env.example *.md docker-compose*.yml Makefile ./
COPY bench bench
COPY docs docs
# The engine refuses nothing to root, but some tests are about what it may not do.
RUN useradd --uid 10001 --create-home holdfast
USER 10001:10001
# Hypothesis stores its examples in the working directory by default, which this user cannot write to.
ENV HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis
CMD ["/app/.venv/bin/pytest", "--numprocesses", "auto", "--dist", "worksteal", "-p", "no:cacheprovider"]

# What ships: the interpreter and the venv, no uv, no sources beside it.
FROM base AS run
LABEL org.opencontainers.image.title="Holdfast" \
      org.opencontainers.image.description="An order API that never oversells" \
      org.opencontainers.image.licenses="Apache-2.0"
# Owned by root: the process cannot change its own code, even where the file system is not read-only.
COPY --from=build /app/.venv /app/.venv
# In a container the network is the fence: inside, all interfaces; the outside is what is published.
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOLDFAST_HOST=0.0.0.0
# A fixed number, which works with runAsNonRoot and needs no entry in /etc/passwd.
USER 10001:10001
EXPOSE 8000
# --live: a restart of this container would not bring back a Redis that is away.
HEALTHCHECK --interval=5s --timeout=4s --start-period=10s CMD ["holdfast", "health", "--live"]
CMD ["holdfast", "serve"]
