# The daemon alone: what requirements/runtime.txt pins, checked by hash, under a user that owns nothing.
# Runs with a read-only root filesystem. Configuration: /etc/replicator/replicator.yaml; secrets: /run/secrets/replicator.
#
# BASE is any image of Debian with Python 3.11 at /usr/local/bin/python. Its digest is that of an index, of amd64 and arm64
# among others, as the makers of the image list it (github.com/docker-library/repo-info). For a newer one:
#   docker build --build-arg BASE=python:3.11-slim@sha256:... -t replicator .
ARG BASE=python:3.11-slim@sha256:90744cff8f32887f075c47d747a173ff333e9e98801667af93c357fa9f5e28ff
FROM ${BASE} AS build
WORKDIR /source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/build && python -m venv --without-pip /opt/replicator
COPY requirements/build.txt requirements/image.txt requirements/runtime.txt requirements/
RUN /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.txt \
 && /opt/build/bin/pip --python /opt/replicator/bin/python install --no-deps --require-hashes -r requirements/runtime.txt \
 && /opt/build/bin/pip --python /opt/replicator/bin/python install --no-deps --require-hashes -r requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY replicator replicator
RUN /opt/build/bin/hatchling build -t wheel -d /dist \
 && /opt/build/bin/pip --python /opt/replicator/bin/python install --no-index --no-deps /dist/*.whl \
 && /opt/build/bin/pip check \
 && /opt/build/bin/pip --python /opt/replicator/bin/python check

FROM ${BASE} AS program
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title=replicator \
      org.opencontainers.image.description="Cross-region replication and cache sync for Amazon DynamoDB" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
# Nothing in it installs anything.
RUN rm -rf /usr/local/lib/python3.11/site-packages/pip* /usr/local/lib/python3.11/site-packages/setuptools* \
    /usr/local/lib/python3.11/site-packages/*distutils* /usr/local/lib/python3.11/site-packages/wheel* \
    /usr/local/lib/python3.11/ensurepip /usr/local/bin/pip*
COPY --from=build /opt/replicator /opt/replicator
ENV PATH=/opt/replicator/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["replicator", "health"]
# An init, so that a signal also ends the program while its interpreter starts.
ENTRYPOINT ["dumb-init", "--single-child", "--", "replicator"]
CMD ["run"]
