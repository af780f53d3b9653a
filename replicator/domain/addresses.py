"""How a host and a port are written: an address of IPv6 has colons of its own, so a port stands behind brackets."""

from __future__ import annotations


def host_and_port(host: str, port: int | None = None) -> str:
    """`host:port` as URLs and people write it; `host` without brackets."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"
