"""Which bootstrap a job is: from a scan or from an export, of a replica or of a mesh."""

from __future__ import annotations

from replicator.domain.jobs import JobKind
from replicator.engine.copying.bootstrapping import MeshBootstrap, OrderedBootstrap
from replicator.engine.copying.exports import EXPORT, ExportBootstrap
from replicator.engine.copying.handlers import Handler, JobContext


def bootstrap(context: JobContext) -> Handler:
    """What does the job."""
    if context.rules[0].mesh is not None:
        return MeshBootstrap(context)
    return ExportBootstrap(context) if context.job.options.get(EXPORT) else OrderedBootstrap(context)


KINDS = {JobKind.BOOTSTRAP: bootstrap}
