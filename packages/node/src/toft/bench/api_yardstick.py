"""The yardstick of the HTTP interface: a server that gives the same answer to whatever comes.

Nothing is parsed, checked, stored or looked up: what this machine's sockets and event loop allow one process.
Run as a program; see `lines.serve`. With the path of a socket it is the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from toft.bench import http_load, lines

REQUESTS = 20_000
_BODY = b"x" * 600
_ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(_BODY) + _BODY


class Answering(asyncio.Protocol):
    """One connection whose requests come whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self._transport.write(_ANSWER)


class Yardstick:
    """A bare server as a contender."""

    def submissions(self) -> Mapping[str, float]:
        """Let as many clients ask as submit jobs to toft."""
        request = http_load.request("POST", "/v1/jobs", {"payload": lines.PAYLOAD})

        async def many(address: str) -> float:
            while True:
                with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                    askers = await http_load.connect(address, lines.OUTSTANDING)
                    break
                await asyncio.sleep(0.01)
            return await http_load.share(askers, itertools.repeat(request, REQUESTS), status=201)

        with tempfile.TemporaryDirectory(prefix="toft-bench-") as folder:
            address = str(Path(folder) / "bare.sock")
            with subprocess.Popen([sys.executable, "-m", __spec__.name, address]) as server:
                try:
                    return {"submit_http_per_s": REQUESTS / asyncio.run(many(address))}
                finally:
                    server.kill()


async def _serve(address: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(Answering, address)
    await server.serve_forever()


def main() -> None:
    """Measure what is asked for on stdin, or serve."""
    if len(sys.argv) > 1:
        asyncio.run(_serve(sys.argv[1]))
    else:
        lines.serve(Yardstick())


if __name__ == "__main__":
    main()
