"""How long tests wait for real processes and servers."""

from __future__ import annotations

PATIENT_SECONDS = 900.0
"""A bound ends what hangs. Nothing that passes comes near it, on a machine many times slower and busy as well."""
