"""What tests of the image share: it is built once, by `make image-check` only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from tests.deploy.built_image import BuiltImage
from tests.deploy.foreign import PLATFORMS, emulated


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuiltImage]:
    """The image, built; skips unless it was asked for."""
    if "IMAGE_CHECK" not in os.environ:
        pytest.skip("only `make image-check` builds the image")
    assert os.geteuid() == 0, "building and running without a container engine needs root"
    assert shutil.which("buildah"), "buildah is not installed (Debian: apt-get install buildah)"
    directory = tmp_path_factory.mktemp("image")
    asked = os.environ["IMAGE_CHECK"]
    processor = asked if asked in PLATFORMS else None
    built = BuiltImage(directory, processor)
    with nullcontext() if processor is None else emulated(processor):
        built.build(directory)
        yield built
        built.buildah("umount", "--all")
    shutil.rmtree(directory)
