"""The programs behind `make deploy-check`, kept in `.cache/tools`.

Helm 3 and 4, helm-unittest and the API server of Kubernetes are built from the Go module proxy (`helm/tools/` has the
versions), definitions of custom resources are taken from it, and etcd from Debian. What go.sum would say is said by
Go's checksum database, as the machine's own settings of Go have it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PLACE = Path(__file__).parents[1] / ".cache" / "tools"
MODULES = Path(__file__).parent / "tools"
BUILT = {
    "helm4": ("helm", "helm.sh/helm/v4/cmd/helm"),
    "helm3": ("helm", "helm.sh/helm/v3/cmd/helm"),
    "helm-unittest": ("helm", "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"),
    "kube-apiserver": ("apiserver", "apiserver"),
}
"""By the name that a program has in the cache: the module that has its versions, and its package."""

_DISPENSABLE = {"kube-apiserver"}
"""It takes more memory and time to build than all else here, which a small machine may not have."""

DEFINITIONS = {
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"
        for kind in ("podmonitors", "servicemonitors", "prometheusrules")
    ],
    "github.com/kedacore/keda/v2@v2.21.0": ["config/crd/bases/keda.sh_scaledobjects.yaml"],
}
_LEAN = "-gcflags=all=-dwarf=false"
"""What a debugger would read is not linked, so it is not compiled: a seventh less processor time."""

_SECONDS = 2400


def main() -> int:
    """Fetch and build what is missing; returns the exit code."""
    missing = {name: made for name, made in BUILT.items() if not (PLACE / name).is_file()}
    files = {module: [file for file in files if not _kept(file).is_file()] for module, files in DEFINITIONS.items()}
    if (missing or any(files.values())) and shutil.which("go") is None:
        print("Go is needed to build helm, and was not found on PATH: install it (golang.org, 1.26 or newer).")
        return 1
    (PLACE / "definitions").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE) as scratch:
        shutil.copytree(MODULES, scratch, dirs_exist_ok=True)
        for name, (module, package) in missing.items():
            print(f"Building {name} from {package} (minutes, once)", flush=True)
            try:
                flags = (_LEAN, f"-ldflags=-s -w {_version()}")
                _go(f"{scratch}/{module}", "build", *flags, "-o", f"{scratch}/built", package)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                if name not in _DISPENSABLE:
                    raise
                print(f"Without {name}, which was not built ({error}): its tests are left out.", flush=True)
                continue
            (Path(scratch) / "built").replace(PLACE / name)
        for module, wanted in files.items():
            if wanted:
                source = Path(json.loads(_go(f"{scratch}/helm", "mod", "download", "-json", module))["Dir"])
                for file in wanted:
                    shutil.copyfile(source / file, _kept(file))
        _fetch_etcd(Path(scratch))
    return 0


def _kept(file: str) -> Path:
    return PLACE / "definitions" / Path(file).name


def _version() -> str:
    """For the linker: what the API server says that it is; helm asks it."""
    found = re.search(r"k8s.io/kubernetes v((\d+)\.(\d+)\.\d+)", (MODULES / "apiserver" / "go.mod").read_text())
    assert found
    said = {"gitVersion": f"v{found[1]}", "gitMajor": found[2], "gitMinor": found[3]}
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in said.items())


def _go(directory: str, *arguments: str) -> str:
    environment = {**os.environ, "GOFLAGS": "-mod=mod -trimpath", "CGO_ENABLED": "0", "GOWORK": "off"}
    command = ["go", *arguments]
    return subprocess.run(
        command, env=environment, cwd=directory, check=True, stdout=subprocess.PIPE, text=True, timeout=_SECONDS
    ).stdout


def _fetch_etcd(scratch: Path) -> None:
    """Debian's, without installing it; where there is none, the tests that need it are left out."""
    if shutil.which("etcd", path=f"{PLACE}:{os.environ.get('PATH', '')}"):
        return
    fetch, unpack = shutil.which("apt-get"), shutil.which("dpkg")
    if fetch is None or unpack is None:
        print("Without etcd, the chart is not installed in an API server: it was not found on PATH, nor apt-get.")
        return
    done = subprocess.run([fetch, "download", "-qq", "etcd-server"], cwd=scratch, check=False, timeout=_SECONDS)
    package = next(scratch.glob("etcd-server_*.deb"), None)
    if done.returncode or package is None:
        print("Without etcd, the chart is not installed in an API server: apt-get has no etcd-server.")
        return
    subprocess.run([unpack, "-x", package, scratch / "etcd"], check=True, timeout=_SECONDS)
    shutil.copy(scratch / "etcd" / "usr" / "bin" / "etcd", PLACE / "etcd")


if __name__ == "__main__":
    sys.exit(main())
