"""The programs behind `make deploy-check`: helm 3 and 4 and helm-unittest from the Go module proxy, in `.cache/tools`.

What go.sum would say is said by Go's checksum database, as the machine's own settings of Go have it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PLACE = Path(__file__).parents[1] / ".cache" / "tools"
HELM = {
    "helm3": "helm.sh/helm/v3/cmd/helm@v3.19.0",
    "helm4": "helm.sh/helm/v4/cmd/helm@v4.3.2",
}
UNITTEST = "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"
_SECONDS = 1800


def main() -> int:
    """Build what is missing; returns the exit code."""
    wanted = {**HELM, "helm-unittest": UNITTEST}
    missing = {name: module for name, module in wanted.items() if not (PLACE / name).is_file()}
    if missing and shutil.which("go") is None:
        print("Go is needed to build helm, and was not found on PATH: install it (golang.org, 1.25 or newer).")
        return 1
    PLACE.mkdir(parents=True, exist_ok=True)
    for name, module in missing.items():
        print(f"Building {name} from {module} (minutes, once)", flush=True)
        with tempfile.TemporaryDirectory(dir=PLACE) as scratch:
            environment = {**os.environ, "GOBIN": scratch, "GOFLAGS": "-mod=mod -trimpath", "CGO_ENABLED": "0"}
            shutil.copy(Path(__file__).parent / "tools" / "go.mod", scratch)
            command = ["go", "install", "-ldflags=-s -w", module]
            subprocess.run(command, env=environment, cwd=scratch, check=True, timeout=_SECONDS)
            (Path(scratch) / module.partition("@")[0].rpartition("/")[2]).replace(PLACE / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
