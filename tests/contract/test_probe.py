"""One question over a socket: an answer counts however early it comes."""

import socket
import threading
from pathlib import Path

from toft.client import probe


def test_an_answer_given_before_the_question_was_read_is_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(1)

        def answer_early() -> None:
            server, _ = listening.accept()
            with server:
                server.recv(64)
                server.sendall(b'HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\n{"done": 1}\n')

        thread = threading.Thread(target=answer_early)
        thread.start()
        told = probe.ask(path, "POST", "/v1/links", {"long": "x" * 5_000_000})
        thread.join(5)
    assert told == {"done": 1}
