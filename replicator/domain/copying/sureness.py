"""How sure a comparison makes: nines."""

from __future__ import annotations

import math


def nines(compared: float, differences: float) -> float | None:
    """-log10 of the share of compared keys that differ; without a difference, as much as so many keys can show.

    None: nothing was compared.
    """
    return None if compared <= 0 else round(math.log10(compared) - math.log10(max(differences, 1.0)), 2)
