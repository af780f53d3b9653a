# The daemon alone: what requirements/runtime.txt pins, checked by hash, under a user that owns nothing.
# Runs with a read-only root filesystem. Configuration: /etc/replicator/replicator.yaml; secrets: /run/secrets/replicator.
FROM python:3.11-slim AS build
WORKDIR /source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/build && python -m venv --without-pip /opt/replicator
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.txt \
 && /opt/build/bin/pip --python /opt/replicator/bin/python install --no-deps --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY replicator replicator
RUN /opt/build/bin/hatchling build -t wheel -d /dist \
 && /opt/build/bin/pip --python /opt/replicator/bin/python install --no-index --no-deps /dist/*.whl \
 && /opt/build/bin/pip check \
 && /opt/build/bin/pip --python /opt/replicator/bin/python check

FROM python:3.11-slim
COPY --from=build /opt/replicator /opt/replicator
ENV PATH=/opt/replicator/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
EXPOSE 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["replicator"]
CMD ["run"]
