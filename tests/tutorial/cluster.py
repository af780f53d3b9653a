"""Stand-ins for `helm` and `kubectl` in a cluster that is this machine.

`helm install` lets the real helm render the release. The pod's arguments, variables and configuration then are those of
a process here; `helm test` and `kubectl exec` run what they name beside it, in the same surroundings.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from replicator.laboratory.servers import free_port

PLACE = Path(os.environ.get("LOCAL_CLUSTER", "/nonexistent"))
MANIFEST, PID, PORT = PLACE / "manifest.yaml", PLACE / "pid", PLACE / "port"


def main(program: str, words: list[str]) -> int:
    """Do what the command line says; returns the exit code."""
    if program == "helm" and words[0] == "install":
        return _install(words[1:])
    if program == "helm" and words[0] == "test":
        return _run(["replicator", *_pod("Pod")["args"]], _pod("Pod"))
    if program == "kubectl" and "exec" in words:
        return _run(words[words.index("--") + 1 :], _pod("Deployment"))
    if program == "kubectl" and "rollout" in words:
        return _wait_until_ready()
    sys.stderr.write(f"{program} {' '.join(words)} is not known here\n")
    return 2


def stop(place: Path) -> None:
    """End the pod, if there is one, and wait until it is gone."""
    if (place / PID.name).exists():
        process = int((place / PID.name).read_text())
        os.kill(process, signal.SIGTERM)
        while Path(f"/proc/{process}/cmdline").exists() and Path(f"/proc/{process}/cmdline").read_bytes():
            time.sleep(0.05)


def _install(words: list[str]) -> int:
    PLACE.mkdir()
    command = [os.environ["HELM"], "template", "--kube-version", "1.31.0", *words]
    MANIFEST.write_text(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    PORT.write_text(str(free_port()))
    for name, text in _object("ConfigMap")["data"].items():
        (PLACE / name).write_text(text)
    pod = _pod("Deployment")
    with (PLACE / "pod.log").open("w") as log:
        started = subprocess.Popen(
            ["replicator", *pod["args"]], env=_surroundings(pod), stdout=log, stderr=log, start_new_session=True
        )
    PID.write_text(str(started.pid))
    return 0


def _run(command: list[str], pod: dict[str, Any]) -> int:
    return subprocess.run(command, env=_surroundings(pod), check=False).returncode


def _object(kind: str) -> Any:
    return next(each for each in yaml.safe_load_all(MANIFEST.read_text()) if each and each["kind"] == kind)


def _pod(kind: str) -> dict[str, Any]:
    found = _object(kind)
    specification = found["spec"] if kind == "Pod" else found["spec"]["template"]["spec"]
    container: dict[str, Any] = specification["containers"][0]
    return container


def _surroundings(pod: dict[str, Any]) -> dict[str, str]:
    """The pod's variables; addresses and credentials are those of this machine."""
    variables = {each["name"]: each.get("value", os.environ.get(each["name"], "")) for each in pod["env"]}
    here = {
        "REPLICATOR_CONFIG": str(PLACE / Path(variables["REPLICATOR_CONFIG"]).name),
        "REPLICATOR_ADMIN__PORT": PORT.read_text(),
        "REPLICATOR_ADMIN__ADVERTISE": "127.0.0.1",
    }
    return {**os.environ, **variables, **here}


def _wait_until_ready() -> int:
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT.read_text()}/readyz", timeout=10):
                return 0
        except (urllib.error.URLError, OSError):
            os.kill(int(PID.read_text()), 0)
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
