"""What a security review asks of a tree: secrets that were written down, and known weaknesses of what is pinned.

Both come from tools that requirements/deploy.txt pins. An advisory service that does not answer fails nothing: that is
said, and what was not looked at is no proof. A weakness that does not reach the program is listed in `ACCEPTED`, with
its reason; a line that must look like a secret ends with `pragma: allowlist secret`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detect_secrets import SecretsCollection
from detect_secrets.settings import transient_settings

ROOT = Path(__file__).parents[2]
ACCEPTED: Mapping[str, str] = {}
"""Ids of advisories, and why each does not matter here."""

PYPI, OSV = "https://pypi.org/pypi", "https://api.osv.dev/v1/query"
_ANSWER_SECONDS = 5
_AUDIT_SECONDS = 600
_PIN = re.compile(r"^([A-Za-z0-9._-]+==[^ ;\\]+)", re.MULTILINE)
_DETECTORS = (
    *("AWSKeyDetector", "BasicAuthDetector", "GitHubTokenDetector", "GitLabTokenDetector", "JwtTokenDetector"),
    *("NpmDetector", "PrivateKeyDetector", "PypiTokenDetector", "SlackDetector", "StripeDetector"),
)
"""What has a form of its own. Whether a word is a password only its reader knows."""

_FILTERS = ("detect_secrets.filters.allowlist.is_line_allowlisted",)
_NO_TEXT = {".png", ".svg", ".ico", ".gz", ".whl"}


def main() -> int:
    """Look at both; returns the exit code: 1 when something was found."""
    parser = argparse.ArgumentParser(
        description="Look for secrets in the tree, and for advisories about what is pinned."
    )
    parser.add_argument("--osv-url", default=OSV, help="ask this service of OSV's protocol")
    parser.add_argument("--only-osv", action="store_true", help="do not ask PyPI first")
    parser.add_argument(
        "--tolerate-advisories",
        action="store_true",
        help="print them and fail for secrets only: they come by themselves",
    )
    options = parser.parse_args()
    written = [f"{place}: {what}." for place, what in secrets(ROOT, tracked(ROOT))]
    services = [] if options.only_osv else [("pypi", PYPI)]
    known = advisories(pins(ROOT / "requirements"), [*services, ("osv", options.osv_url)])
    for each in [*written, *known]:
        print(each, file=sys.stderr)
    return 1 if written or (known and not options.tolerate_advisories) else 0


# -- secrets -------------------------------------------------------------------------------------------------------


def tracked(root: Path) -> list[Path]:
    """Files under version control; digests of lock files are none of its secrets."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    paths = [root / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix not in _NO_TEXT and not _is_lock(path)]


def secrets(root: Path, paths: Iterable[Path]) -> list[tuple[str, str]]:
    """Where something has the form of a secret, and which; never the secret."""
    settings = {
        "plugins_used": [{"name": name} for name in _DETECTORS],
        "filters_used": [{"path": path} for path in _FILTERS],
    }
    with transient_settings(settings):
        collection = SecretsCollection()
        for path in paths:
            collection.scan_file(str(path))
        return [(f"{Path(name).relative_to(root)}:{secret.line_number}", secret.type) for name, secret in collection]


def _is_lock(path: Path) -> bool:
    return path.name == "package-lock.json" or (path.parent.name == "requirements" and path.suffix == ".txt")


# -- advisories ----------------------------------------------------------------------------------------------------


def pins(directory: Path) -> list[str]:
    """Everything that any lock pins."""
    return sorted({pin for path in directory.glob("*.txt") for pin in _PIN.findall(path.read_text())})


def advisories(pinned: Sequence[str], services: Sequence[tuple[str, str]]) -> list[str]:
    """Known weaknesses, by the first service that answers; says what was asked, or that none did."""
    for kind, url in services:
        if not _answers(kind, url):
            continue
        told = [each for once in _rounds(pinned) for each in _audit(once, kind, url)]
        unknown = [each["name"] for each in told if "skip_reason" in each]
        if len(unknown) < len(told):
            missing = f", not about {', '.join(unknown)}" if unknown else ""
            print(f"{len(told) - len(unknown)} packages: {url} was asked for advisories{missing}.")
            return [
                f"{each['name']} {each['version']}: {weakness['id']}, mended in {', '.join(weakness['fix_versions'])}."
                for each in told
                for weakness in each.get("vulns", ())
                if weakness["id"] not in ACCEPTED
            ]
    print(f"Advisories: not looked at, because none of {', '.join(url for _, url in services)} answers.")
    return []


def _rounds(pinned: Sequence[str]) -> list[list[str]]:
    """The same in parts of which none names a package twice: some pins differ between versions of Python."""
    rounds: list[dict[str, str]] = []
    for pin in pinned:
        name = pin.partition("==")[0]
        place = next((each for each in rounds if name not in each), None)
        if place is None:
            rounds.append(place := {})
        place[name] = pin
    return [list(each.values()) for each in rounds]


def _answers(kind: str, url: str) -> bool:
    """Whether a service knows a package that everything knows."""
    asked = urllib.request.Request(f"{url}/pip/json") if kind == "pypi" else _query(url)
    try:
        with urllib.request.urlopen(asked, timeout=_ANSWER_SECONDS) as answer:
            return isinstance(json.load(answer), dict)
    except (OSError, ValueError):
        return False


def _query(url: str) -> urllib.request.Request:
    package = {"package": {"name": "pip", "ecosystem": "PyPI"}, "version": "0.1"}
    return urllib.request.Request(url, json.dumps(package).encode(), {"Content-Type": "application/json"})


def _audit(pinned: Sequence[str], kind: str, url: str) -> list[dict[str, Any]]:
    """What is known of each package; nothing when the service stops answering."""
    with tempfile.TemporaryDirectory() as directory:
        listed = Path(directory) / "pinned.txt"
        listed.write_text("\n".join(pinned))
        where = ["--osv-url", url] if kind == "osv" else []
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(listed), "--no-deps", "--disable-pip"]
        options = ["--vulnerability-service", kind, *where, "--format", "json", "--progress-spinner", "off"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=_AUDIT_SECONDS, check=False)
    try:
        told: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return []
    return told


if __name__ == "__main__":
    sys.exit(main())
