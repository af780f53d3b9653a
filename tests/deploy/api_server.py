"""The API server of Kubernetes on etcd, both on loopback: it defaults, validates and stores what helm installs.

There are no controllers and no nodes, so nothing runs: no pod is made of a Deployment, and a pod that is made stays as
it is until its state is written by hand.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import yaml

from replicator.laboratory.servers import free_port
from tests.deploy.rendering import TOOLS
from tests.patience import PATIENT_SECONDS

SERVER = shutil.which("kube-apiserver", path=TOOLS)
ETCD = shutil.which("etcd", path=TOOLS) or shutil.which("etcd")
DEFINITIONS = sorted(Path(TOOLS, "definitions").glob("*.yaml")) if TOOLS else []
_TOKEN = "local"
_MERGE = "application/merge-patch+json"


class ApiServer:
    """What is stored, and what is refused; `kubeconfig` lets helm in."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        self._context = ssl.create_default_context()
        self._places = dict(_COLLECTIONS)
        self.kubeconfig = directory / "kubeconfig"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Both servers, from the first answer on."""
        assert SERVER
        assert ETCD
        store, peers = free_port(), free_port()
        with (
            self._process(
                [
                    *(ETCD, "--data-dir", str(self._directory / "etcd"), "--unsafe-no-fsync"),
                    *(
                        f"--listen-client-urls=http://127.0.0.1:{store}",
                        f"--advertise-client-urls=http://127.0.0.1:{store}",
                    ),
                    f"--listen-peer-urls=http://127.0.0.1:{peers}",
                ]
            ),
            self._process(self._command(store)) as server,
        ):
            self._await(server)
            self.kubeconfig.write_text(json.dumps(self._access()))
            yield

    def ask(
        self, path: str, body: Any = None, *, method: str | None = None, kind: str = "application/json"
    ) -> tuple[int, dict[str, Any]]:
        """The status and the answer to one request."""
        data = None if body is None else json.dumps(body).encode()
        method = method or ("GET" if data is None else "POST")
        headers = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": kind}
        request = Request(f"https://127.0.0.1:{self._port}{path}", data, headers, method=method)
        try:
            with urlopen(request, timeout=PATIENT_SECONDS, context=self._context) as answer:
                return answer.status, _content(answer.read())
        except HTTPError as error:
            return error.code, _content(error.read())

    def stored(self, kind: str, name: str = "replicator", *, namespace: str = "data") -> dict[str, Any] | None:
        """An object as the server keeps it, or None."""
        status, found = self.ask(f"{self._places[kind].format(namespace)}/{name}")
        return found if status == 200 else None

    def create(self, manifest: dict[str, Any], namespace: str = "data", more: str = "") -> tuple[int, dict[str, Any]]:
        """Create an object; unknown fields are refused. `more` is `&dryRun=All` to store nothing."""
        path = self._places[manifest["kind"]].format(namespace)
        return self.ask(f"{path}?fieldValidation=Strict{more}", manifest)

    def patch(self, kind: str, name: str, body: dict[str, Any], *, part: str = "", namespace: str = "data") -> int:
        """Merge into a stored object, or into its status."""
        path = f"{self._places[kind].format(namespace)}/{name}{part}"
        return self.ask(path, body, method="PATCH", kind=_MERGE)[0]

    def orphan(self, kind: str, name: str, namespace: str) -> int:
        """Delete an object as `kubectl delete --cascade=orphan` does, with the part of the garbage collector."""
        path = f"{self._places[kind].format(namespace)}/{name}"
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Orphan"}
        status, _ = self.ask(path, options, method="DELETE")
        self.patch(kind, name, {"metadata": {"finalizers": None}}, namespace=namespace)
        return status

    def define(self, definition: Path) -> None:
        """Teach the server a kind, and wait until it knows it."""
        manifest = yaml.safe_load(definition.read_text())
        status, answer = self.create(manifest)
        assert status == 201, answer
        path = f"{self._places['CustomResourceDefinition']}/{manifest['metadata']['name']}"
        names = manifest["spec"]["names"]
        version = manifest["spec"]["versions"][0]["name"]
        self._places[names["kind"]] = f"/apis/{manifest['spec']['group']}/{version}/namespaces/{{}}/{names['plural']}"
        self.until(lambda: _established(self.ask(path)[1]))

    def _command(self, store: int) -> list[str]:
        key = self._directory / "accounts.pem"
        command = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(key)]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENT_SECONDS)
        tokens = self._directory / "tokens"
        tokens.write_text(f"{_TOKEN},admin,1,system:masters\n")
        assert SERVER
        return [
            *(SERVER, f"--etcd-servers=http://127.0.0.1:{store}"),
            *("--bind-address=127.0.0.1", f"--secure-port={self._port}", "--advertise-address=127.0.0.1"),
            *(f"--cert-dir={self._directory / 'certificates'}", f"--token-auth-file={tokens}"),
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            *("--service-account-issuer=https://127.0.0.1", "--service-cluster-ip-range=10.0.0.0/16,fd00::/108"),
            *("--authorization-mode=RBAC", "--profiling=false"),
            "--endpoint-reconciler-type=none",  # else it wants an address that others reach
            "--watch-cache=false",  # it waits for progress that Debian's etcd does not report
        ]

    @contextmanager
    def _process(self, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        """A server that ends with the test, also with one that is killed."""
        log = self._directory / f"{Path(command[0]).name}.log"
        setpriv = shutil.which("setpriv", path="/usr/bin:/bin")
        mortal = [] if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--"]
        with log.open("wb") as output, subprocess.Popen([*mortal, *command], stdout=output, stderr=output) as process:
            try:
                yield process
            finally:
                process.kill()

    def _await(self, server: subprocess.Popen[bytes]) -> None:
        certificate = self._directory / "certificates" / "apiserver.crt"

        def ready() -> bool:
            said = (self._directory / "kube-apiserver.log").read_text()[-3000:]
            assert server.poll() is None, said
            if not certificate.is_file():
                return False
            self._context = ssl.create_default_context(cafile=str(certificate))
            self._context.check_hostname = False
            try:
                # The namespace is among the last that the server makes by itself.
                return self.ask("/readyz")[0] == 200 and self.ask("/api/v1/namespaces/default")[0] == 200
            except (URLError, OSError):
                return False

        self.until(ready)

    @staticmethod
    def until(done: Callable[[], bool]) -> None:
        """Ask again and again."""
        end = time.monotonic() + 4 * PATIENT_SECONDS
        while not done():
            assert time.monotonic() < end
            time.sleep(0.2)

    def _access(self) -> dict[str, Any]:
        certificate = str(self._directory / "certificates" / "apiserver.crt")
        cluster = {
            "server": f"https://127.0.0.1:{self._port}",
            "certificate-authority": certificate,
            "tls-server-name": "kubernetes",
        }
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": _TOKEN}}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "admin"}}],
            "current-context": "local",
        }


_COLLECTIONS = {
    "Namespace": "/api/v1/namespaces",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "PriorityClass": "/apis/scheduling.k8s.io/v1/priorityclasses",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
}
"""Where objects of a kind are; definitions add theirs."""


def _content(answer: bytes) -> dict[str, Any]:
    """An object, or nothing of what is plain text."""
    content: dict[str, Any] = json.loads(answer) if answer.startswith(b"{") else {}
    return content


def _established(definition: dict[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or ()
    return any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions)
