"""`toft run`: one call on an embedded node: open it, load, call, print, close."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from toft.cli import rendering
from toft.cli import session as sessions
from toft.cli.live import Live
from toft.cli.session import JsonOption, Session, argument, option
from toft.cli.terminal import Terminal, one_line, seconds, size
from toft.kernel.clock import SYSTEM
from toft.kernel.errors import NodeError, UsageError
from toft.store import durable
from toft_sdk.errors import PluginError

_CANCEL_WAIT_S = 10.0
"""Longer than any grace a node gives a cancelled call; after it the node is closed over the call's head."""


def run(
    context: typer.Context,
    target: Annotated[str, argument("NAME[.ACTION]", "The plugin, and which of its actions.")],
    arguments: Annotated[
        list[str] | None,
        argument("KEY=VALUE", "Arguments; KEY=@FILE takes a file's content, KEY:=JSON any JSON value."),
    ] = None,
    input_json: Annotated[
        str | None, option("--input", metavar="JSON|@FILE|-", help="All arguments as one JSON object.")
    ] = None,
    stream: Annotated[bool, option("--stream", help="Print each chunk when it comes.")] = False,
    timeout: Annotated[
        float | None, option("--timeout", metavar="SECONDS", min=0.001, help="End the call after this long.")
    ] = None,
    instance: Annotated[
        str | None, option("--instance", metavar="ID", help="Which instance; the plugin's own by default.")
    ] = None,
    config: Annotated[
        list[str] | None,
        option("--config", "-c", metavar="KEY=VALUE", help="Configuration of this run only; repeatable."),
    ] = None,
    output: Annotated[
        Path | None, option("--output", "-o", metavar="FILE", help="Write the result to a file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Call a plugin and print its result.

    Text is printed as it is, bytes too when stdout is not a terminal, anything else as JSON.
    """
    session = sessions.of(context)
    name, _, action = target.partition(".")
    words = list(arguments or ())
    _check_words(target, words)
    if output is not None and not output.absolute().parent.is_dir():
        raise UsageError(f"There is no directory {output.absolute().parent} to write {output.name} to")
    with session.node() as node:
        loaded = node.load(name, config=_config(node, name, config), instance=instance)
        given = loaded.parse_arguments(action or None, words, _input(input_json))
        call = _Call(session, loaded, action or None, given, timeout)
        if stream:
            _stream(session, call, as_json=as_json)
        else:
            _print(session.terminal, call, call.result(), output, as_json=as_json)
        session.terminal.note(call.where())


class _Call:
    """One call, with what is shown while it runs and how Ctrl-C ends it."""

    def __init__(
        self,
        session: Session,
        loaded: Any,
        action: str | None,
        given: Mapping[str, Any],
        timeout_s: float | None,
    ) -> None:
        self._session = session
        self._loaded = loaded
        self._action = action
        self._given = given
        self._timeout_s = timeout_s
        self._handle: Any = None
        self._began = SYSTEM.monotonic()
        self._duration_s = 0.0

    def result(self) -> Any:
        """Wait for the one result."""
        with self._live() as live:
            self._handle = self._loaded.start_with(self._action, self._given, **self._options(live))
            return self._until_cancelled(self._handle.result)

    def chunks(self, show: Any) -> None:
        """Pass on each chunk when it comes."""
        with self._live() as live:
            self._handle = self._loaded.stream_with(self._action, self._given, **self._options(live))

            def all_of_them() -> None:
                for chunk in self._handle:
                    show(chunk)

            self._until_cancelled(all_of_them)

    def told(self) -> dict[str, Any]:
        """Return what `--json` says beside the result."""
        return {
            "plugin": self._loaded.plugin,
            "instance": self._loaded.name,
            "duration_s": round(self._duration_s, 6),
            "usage": dict(self._handle.usage),
        }

    def where(self) -> str:
        """Return the line that says how long it took and where it ran."""
        info = self._loaded.info()
        usage = ", ".join(f"{amount:g} {unit}" for unit, amount in self._handle.usage.items())
        parts = [seconds(self._duration_s), f"instance {self._loaded.name}", f"Python {info.python}"]
        if info.environment:
            parts.append(f"environment {info.environment[:12]}")
        return " · ".join([*parts, usage] if usage else parts)

    def _live(self) -> Live:
        return Live(self._session.terminal, self._loaded.name)

    def _options(self, live: Live) -> dict[str, Any]:
        redactor = self._session.redactor()
        self._began = SYSTEM.monotonic()
        return {
            "timeout_s": self._timeout_s,
            "on_progress": lambda fraction, message: live.progress(fraction, redactor.text(message)),
            "on_log": lambda line: live.log(redactor.text(line.text)),
        }

    def _until_cancelled(self, wait: Any) -> Any:
        """Wait; on Ctrl-C end the call before the node is closed, so that the plugin can tidy up."""
        try:
            return wait()
        except (KeyboardInterrupt, BrokenPipeError):
            self._handle.cancel()
            with contextlib.suppress(PluginError, NodeError, TimeoutError):
                self._handle.result(timeout_s=_CANCEL_WAIT_S)
            raise
        finally:
            self._duration_s = SYSTEM.monotonic() - self._began


def _check_words(target: str, words: list[str]) -> None:
    """Catch the likely slip of naming the action as a second word."""
    bare = [word for word in words if "=" not in word]
    if bare:
        name = target.partition(".")[0]
        raise UsageError(
            f"{one_line(bare[0])!r} is not KEY=VALUE",
            code="request.command_line",
            hint=f"An action is named like this: toft run {name}.ACTION KEY=VALUE (toft plugin show {name})",
        )


def _input(text: str | None) -> str | None:
    return sys.stdin.read() if text == "-" else text


def _config(node: Any, name: str, words: list[str] | None) -> dict[str, Any] | None:
    return node.parse_config(name, words) if words else None


def _print(terminal: Terminal, call: _Call, result: Any, output: Path | None, *, as_json: bool) -> None:
    if output is not None:
        data, kind = rendering.file_content(result)
        durable.write_file(output.absolute(), data)
        written = {"file": str(output), "kind": kind, "size_bytes": len(data)}
        if as_json:
            terminal.json({"result": written, **call.told()})
        else:
            terminal.note(f"wrote {output}: {kind}, {size(len(data))}")
    elif as_json:
        terminal.json({"result": rendering.to_json(result), **call.told()})
    else:
        show(terminal, result)


def show(terminal: Terminal, result: Any) -> None:
    """Print a result for a person, or plainly for a pipe."""
    if result is None:
        terminal.note("the plugin returned nothing")
    elif isinstance(result, str):
        terminal.write(result if result.endswith("\n") else result + "\n")
    elif isinstance(result, (bytes, bytearray, memoryview)):
        _show_bytes(terminal, bytes(result))
    elif terminal.shows_results:
        terminal.highlighted_json(rendering.to_text(result))
    else:
        terminal.line(rendering.to_text(result))


def _show_bytes(terminal: Terminal, data: bytes) -> None:
    stream = getattr(terminal.out, "buffer", None)
    if terminal.shows_results or stream is None:
        terminal.line(f"{size(len(data))} of bytes; --output FILE writes them, and so does > FILE")
        return
    terminal.out.flush()
    stream.write(data)
    stream.flush()


def _stream(session: Session, call: _Call, *, as_json: bool) -> None:
    """Print chunks as they come: text as it is, anything else one JSON value a line."""
    terminal = session.terminal
    count = 0
    ends_line = True

    def show_chunk(chunk: Any) -> None:
        nonlocal count, ends_line
        count += 1
        if as_json:
            terminal.json_line({"chunk": rendering.to_json(chunk)})
        elif isinstance(chunk, str):
            terminal.write(chunk)
            ends_line = chunk.endswith("\n") if chunk else ends_line
            terminal.out.flush()
        else:
            terminal.write(("" if ends_line else "\n") + rendering.to_line(chunk) + "\n")
            ends_line = True
            terminal.out.flush()

    call.chunks(show_chunk)
    if as_json:
        terminal.json_line({"result": None, "chunks": count, **call.told()})
    elif not ends_line:
        terminal.write("\n")
