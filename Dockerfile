# The same base at build and at run time: a venv works only with the Python at the same path, in the same version.
FROM python:3.13-slim AS base
ENV PYTHONUNBUFFERED=1
WORKDIR /app

# Dependencies first: this layer is built again only if pyproject.toml or uv.lock changes.
FROM base AS build
RUN --mount=type=cache,target=/root/.cache/pip pip install --root-user-action=ignore 'uv>=0.9'
# UV_SYSTEM_CERTS: uv trusts the certificates of the system. If your proxy has its own certificate, add it to the base image.
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen --no-dev --no-install-project
COPY README.md LICENSE ./
COPY lua lua
COPY service service
RUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen --no-dev --no-editable

# docker build --target test . && docker run --rm <image>: all tests, on the Python of the final image.
FROM build AS test
RUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen --no-editable
COPY tests tests
# Tests of the documents read these.
COPY .env.example *.md docker-compose*.yml Makefile ./
COPY .ci .ci
COPY bench bench
COPY docs docs
COPY ops ops
# Not root: some tests check that Holdfast reports missing permissions, and root has all permissions.
RUN useradd --uid 10001 --create-home holdfast
USER 10001:10001
# Hypothesis stores its examples in the working directory by default, which this user cannot write to.
ENV HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis
CMD ["/app/.venv/bin/pytest", "--numprocesses", "auto", "--dist", "worksteal", "-p", "no:cacheprovider"]

# The final image: Python and the venv, without uv and without the files of the repository.
FROM base AS run
LABEL org.opencontainers.image.title="Holdfast" \
      org.opencontainers.image.description="An order API that never oversells" \
      org.opencontainers.image.licenses="Apache-2.0"
# Owned by root: the process cannot change its own code, even if the file system is writable.
COPY --from=build /app/.venv /app/.venv
# Listen on all interfaces of the container. Only ports that Docker publishes can be reached from outside of Docker.
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOLDFAST_HOST=0.0.0.0
# A fixed number, which works with runAsNonRoot and needs no entry in /etc/passwd.
USER 10001:10001
EXPOSE 8000
# --live, because a restart of this container would not help if Redis is not reachable.
HEALTHCHECK --interval=5s --timeout=4s --start-period=10s CMD ["holdfast", "health", "--live"]
CMD ["holdfast", "serve"]
