"""The engine: asyncio around pure decisions. It knows domain, ports and settings, and no client."""
