"""What may drive a rule, by itself: the command line takes it as an option and imports nothing else for that."""

from __future__ import annotations

import enum


class Drivers(enum.StrEnum):
    """What may drive a rule."""

    LAMBDA = "lambda"
    PODS = "pods"
