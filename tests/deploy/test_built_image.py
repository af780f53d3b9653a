"""The image as it is built: what is in it, what it says of itself, and that it replicates and ends as process 1."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator import __version__
from replicator.laboratory.servers import MiniStack, free_port
from tests.cli.worlds import World, fresh_account
from tests.deploy.built_image import ROOT, BuiltImage, children
from tests.deploy.foreign import PLATFORMS
from tests.deploy.parts import Parts
from tests.patience import PATIENT_SECONDS

pytestmark = pytest.mark.skipif("IMAGE_CHECK" not in os.environ, reason="only `make image-check` builds the image")

_MOST_MIB = 120
"""Of what the image adds to its base."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, image: BuiltImage) -> Iterator[World]:
    """Tables on a local server, and the configuration where the image expects it."""
    directory = tmp_path_factory.mktemp("world")
    with MiniStack.start(directory) as server:
        world = World(server.endpoint_url, "", fresh_account(), directory)
        world.config["caches"] = {}
        world.rule.pop("cache")
        world.config["admin"] = {"port": free_port()}
        world.config["coordination"] = {"region": "us"}  # as long a lease as by default: an emulated processor is slow
        world.table("us", view="NEW_AND_OLD_IMAGES")
        world.table("eu")
        shutil.copy(world.path, image.root / "etc/replicator/replicator.yaml")
        yield world


def _environment(world: World) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": world.account, "AWS_SECRET_ACCESS_KEY": "of no use"}


def test_it_has_the_program_and_nothing_that_installs_or_compiles(image: BuiltImage) -> None:
    programs = {
        path.name
        for place in ("bin", "usr/bin", "usr/local/bin", "opt/replicator/bin")
        for path in (image.root / place).glob("*")
    }
    assert {"replicator", "dumb-init", "python"} <= programs
    assert not [name for name in programs if name.startswith(("pip", "gcc", "cc", "make", "uv", "hatch"))]
    assert not list(image.root.rglob("ensurepip"))
    assert not list(image.root.glob("opt/replicator/lib/python*/site-packages/pip*"))
    added = sum(path.lstat().st_size for path in (image.root / "opt").rglob("*") if path.is_file())
    print(f"the program and what it needs: {added / 2**20:.0f} MiB")  # noqa: T201 - a figure for who runs it
    assert added < _MOST_MIB * 2**20


def test_every_part_of_it_is_listed_and_has_a_licence_that_allows_its_use(image: BuiltImage) -> None:
    parts = Parts(next(image.root.glob("opt/replicator/lib/python*/site-packages")))
    listed = parts.list_in(ROOT / "dist" / f"replicator-image-{__version__}.cdx.json")
    assert parts.pinned("runtime.txt", "image.txt") <= listed
    assert ("replicator", __version__) in listed
    assert parts.not_allowed() == []


def test_it_says_what_it_is(image: BuiltImage) -> None:
    said = image.configuration()
    assert said["User"] == "65532:65532"
    assert said["Entrypoint"] == ["dumb-init", "--single-child", "--", "replicator"]
    assert said["Cmd"] == ["run"]
    assert said["StopSignal"] == "SIGTERM"
    assert said["Healthcheck"]["Test"] == ["CMD", "replicator", "health"]
    assert said["Labels"]["org.opencontainers.image.version"] == __version__


def test_nothing_in_it_belongs_to_its_user_or_may_be_written_by_all(image: BuiltImage) -> None:
    for path in (image.root / "opt").rglob("*"):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (0, 0), path
        assert path.is_symlink() or not found.st_mode & 0o022, path


def test_it_replicates_is_well_and_ends_by_a_signal(image: BuiltImage, world: World) -> None:
    environment = _environment(world)
    with image.running("init", environment=environment) as init:
        said, _ = init.communicate(timeout=PATIENT_SECONDS)
        assert init.returncode == 0, said
    started = time.monotonic()
    with image.running(environment=environment) as daemon:
        _until_well(image, environment)
        print(f"from start to health: {time.monotonic() - started:.1f} s")  # noqa: T201 - the same
        world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"}, note={"S": "from the image"})
        while not (items := world.items("eu", "orders")):
            assert time.monotonic() - started < PATIENT_SECONDS
            assert daemon.poll() is None, daemon.communicate()[0]
            time.sleep(0.2)
        assert items[0]["note"] == {"S": "from the image"}
        os.kill(_first_process(daemon.pid), signal.SIGTERM)
        said, _ = daemon.communicate(timeout=PATIENT_SECONDS)
    assert daemon.returncode == 0, said


def _until_well(image: BuiltImage, environment: dict[str, str]) -> None:
    end = time.monotonic() + PATIENT_SECONDS
    while True:
        with image.running("health", environment=environment) as health:
            said, _ = health.communicate(timeout=PATIENT_SECONDS)
        if health.returncode == 0:
            return
        assert time.monotonic() < end, said
        time.sleep(0.2)


@pytest.mark.skipif(
    os.environ.get("IMAGE_CHECK") in PLATFORMS, reason="as process 1 an emulator loses signals while it starts itself"
)
@pytest.mark.parametrize("milliseconds", [0, 50, 100, 500])
def test_a_signal_to_process_1_ends_it_at_any_time_of_its_start(
    image: BuiltImage, world: World, milliseconds: int
) -> None:
    with image.running(environment=_environment(world)) as daemon:
        first = _first_process(daemon.pid)
        time.sleep(milliseconds / 1000)
        os.kill(first, signal.SIGTERM)
        daemon.communicate(timeout=PATIENT_SECONDS)
    assert daemon.returncode is not None


def _first_process(unshare: int) -> int:
    """Process 1 of the namespace, once it is the entry point and has started the program.

    Earlier signals are lost, within about a millisecond: the kernel drops them while the entry point does not take any,
    and dumb-init passes them on to a child that swallows them until it is the program.
    """
    end = time.monotonic() + PATIENT_SECONDS
    while time.monotonic() < end:
        for child in children(unshare):
            if _is_entry_point(child) and any(not _is_entry_point(program) for program in children(child)):
                return child
        time.sleep(0.001)
    raise AssertionError("the entry point was never process 1, or has started nothing")


def _is_entry_point(process: int) -> bool:
    """Whether a process is the init; it stands behind an emulator's name where there is one."""
    command = Path(f"/proc/{process}/cmdline").read_text()
    return any(word.endswith("dumb-init") for word in command.split("\0")[:2])
