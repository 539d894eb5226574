"""Many nodes that wait for a document, in one process: `python -m toft.bench.waiting_agents`.

Reads one line of JSON from standard input: the address, and the credentials. Each agent asks once for its
document and then waits for the next one; a line on standard output says when all wait, and when all have it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from typing import Any

_AT_ONCE = 100


async def _ask(host: str, port: int, credential: str, etag: str, wait_s: int) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        head = f"GET /v1/config HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {credential}\r\n"
        if etag:
            head += f"If-None-Match: {etag}\r\nPrefer: wait={wait_s}\r\n"
        writer.write(f"{head}\r\n".encode())
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        if size := int(headers.get("content-length", 0)):
            await reader.readexactly(size)
        return int(lines[0].split()[1]), headers.get("etag", "")
    finally:
        writer.close()


async def _agent(given: dict[str, Any], credential: str, gate: asyncio.Semaphore) -> str:
    """Return the name of the document that comes after the first one."""
    host, port = given["host"], given["port"]
    async with gate:
        status, first = await _ask(host, port, credential, "", 0)
    assert status == 200, status
    while True:
        status, etag = await _ask(host, port, credential, first, 55)
        if status == 200:
            return etag
        assert status in (304, 429), status


async def _main() -> None:
    given = json.loads(sys.stdin.readline())
    gate = asyncio.Semaphore(_AT_ONCE)
    etags = await asyncio.gather(*(_agent(given, each, gate) for each in given["credentials"]))
    sys.stdout.write(json.dumps({"etags": sorted(set(etags)), "at": time.monotonic()}) + "\n")


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_main())
