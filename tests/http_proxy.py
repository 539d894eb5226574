"""A TCP port in front of a Unix socket, for tools that only know the former."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _serve(listening: socket.socket, connect: Callable[[], socket.socket]) -> None:
    with contextlib.suppress(OSError):
        while True:
            client = listening.accept()[0]
            threading.Thread(target=_forward, args=(client, connect), daemon=True).start()


def _forward(client: socket.socket, connect: Callable[[], socket.socket]) -> None:
    with client, connect() as server:
        answering = threading.Thread(target=_pump, args=(server, client), daemon=True)
        answering.start()
        _pump(client, server)
        answering.join()


@contextlib.contextmanager
def before(connect: Callable[[], socket.socket]) -> Iterator[str]:
    """Yield the address of a port whose connections go on to what `connect` gives."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening, connect), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
