"""Redis and Valkey caches.

Their client can measure itself by OpenTelemetry, and imports its SDK for that wherever it is installed: a tenth of a
start, for what is never asked for here.
"""

import sys

if not {"redis", "opentelemetry"} & sys.modules.keys():
    sys.modules["opentelemetry"] = None  # type: ignore[assignment]
    try:
        import redis.asyncio  # noqa: F401 - and with it all that this package needs
    finally:
        del sys.modules["opentelemetry"]
