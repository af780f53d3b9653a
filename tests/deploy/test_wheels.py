"""Every dependency that is pinned has a wheel for each processor, and for either C library that its image may have."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.deploy.built_image import LOCKS, ROOT
from tests.deploy.foreign import PLATFORMS, fetch_wheels

pytestmark = pytest.mark.skipif("IMAGE_CHECK" not in os.environ, reason="only `make image-check` fetches wheels")


@pytest.mark.parametrize("library", ["manylinux", "musllinux"])
def test_arm64_has_a_wheel_of_all_that_is_pinned(tmp_path: Path, library: str) -> None:
    pip = [sys.executable, "-m", "pip"]
    for lock in LOCKS:
        if (lock, library) != ("image.txt", "musllinux"):  # the init, which the Dockerfile takes on Debian alone
            fetch_wheels(pip, ROOT / "requirements" / lock, tmp_path / "wheels", PLATFORMS["arm64"][library])
    pinned = [
        line for lock in LOCKS for line in (ROOT / "requirements" / lock).read_text().splitlines() if "==" in line
    ]
    for_others = [line for line in pinned if "== 'win32'" in line]
    without_init = library == "musllinux"
    assert len(list((tmp_path / "wheels").glob("*.whl"))) == len(pinned) - len(for_others) - without_init
