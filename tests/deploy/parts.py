"""What an installation consists of: its bill of materials (CycloneDX), and the licences of its parts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
_LICENCES = re.compile(r"apache|bsd|mit|mpl|psf|python software|isc|unlicense|public domain|0bsd|cc0", re.IGNORECASE)
_PIN = re.compile(r"^([A-Za-z0-9._-]+==[^\\\n]+?) *\\?$", re.MULTILINE)
_NOT_SAID = {"dumb-init": "MIT"}
"""Licences that stand in a part's repository, and not in what its wheel says of itself."""

Part = tuple[str, str]
"""A name and a version."""


@dataclass(frozen=True)
class Parts:
    """What is installed in a directory of packages, of this Python or of one in an image."""

    packages: Path

    @property
    def _all(self) -> list[Distribution]:
        return list(distributions(path=[str(self.packages)]))

    def list_in(self, file: Path) -> set[Part]:
        """Write the bill of materials; returns what it lists. The same parts give the same bytes."""
        file.parent.mkdir(exist_ok=True)
        with TemporaryDirectory() as name:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", name], check=True)
            (place,) = Path(name).glob("lib/python*/site-packages")
            place.rmdir()
            place.symlink_to(self.packages)
            program = Path(sys.executable).with_name("cyclonedx-py")
            python = f"{name}/bin/python"
            command = [str(program), "environment", python, "--output-reproducible", "-o", str(file)]
            subprocess.run(command, check=True, capture_output=True)
        document: dict[str, Any] = json.loads(file.read_text())
        return {(_plain(part["name"]), part["version"]) for part in document["components"]}

    def pinned(self, *locks: str) -> set[Part]:
        """What locks ask for on this machine."""
        pins = [pin for name in locks for pin in _PIN.findall((ROOT / "requirements" / name).read_text())]
        wanted = [Requirement(pin) for pin in pins]
        return {
            (_plain(each.name), str(each.specifier).removeprefix("=="))
            for each in wanted
            if each.marker is None or each.marker.evaluate()
        }

    def not_allowed(self) -> list[str]:
        """Parts whose licence is none that allows their use here."""
        told = {found.name: _NOT_SAID.get(found.name) or _licence(found.metadata) for found in self._all}
        return sorted(f"{name}: {licence}" for name, licence in told.items() if not _LICENCES.search(licence))


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _licence(metadata: Any) -> str:
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License")]
    return " ".join([metadata.get("License-Expression") or "", *classifiers, (metadata.get("License") or "")[:200]])
