"""`toft run`: one call on an embedded node: open it, load, call, print, close."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from toft.cli import rendering, words
from toft.cli import session as sessions
from toft.cli.live import Live
from toft.cli.session import JsonOption, Session, argument, option
from toft.cli.terminal import Terminal
from toft.kernel.clock import SYSTEM
from toft.kernel.errors import NodeError, UsageError
from toft.kernel.quantities import duration, size
from toft.plugins.plugin_errors import PluginError
from toft.store import durable

ArgumentsArgument = Annotated[
    list[str] | None,
    argument("KEY=VALUE", "Arguments; KEY=@FILE takes a file's content, KEY:=JSON any JSON value."),
]
InputOption = Annotated[
    str | None, option("--input", metavar="JSON|@FILE|-", help="All arguments as one JSON object.")
]
InstanceOption = Annotated[
    str | None, option("--instance", metavar="ID", help="Which instance; the plugin's own by default.")
]

_CANCEL_WAIT_S = 10.0
"""Longer than any grace a node gives a cancelled call; after it the node is closed over the call's head."""


def run(
    context: typer.Context,
    target: Annotated[str, argument("NAME[.ACTION]", "The plugin, and which of its actions.")],
    arguments: ArgumentsArgument = None,
    input_json: InputOption = None,
    stream: Annotated[bool, option("--stream", help="Print each chunk when it comes.")] = False,
    timeout: Annotated[
        float | None, option("--timeout", metavar="SECONDS", min=0.001, help="End the call after this long.")
    ] = None,
    instance: InstanceOption = None,
    config: Annotated[
        list[str] | None,
        option("--config", "-c", metavar="KEY=VALUE", help="Configuration of this run only; repeatable."),
    ] = None,
    writable: Annotated[
        list[Path] | None,
        option("--writable", metavar="DIR", help="Let the plugin write to DIR in this run; repeatable."),
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
    name, action = words.target(target)
    given = list(arguments or ())
    words.check(given, f"An action is named like this: toft run {name}.ACTION (toft plugin show {name})")
    words.check(config or (), f"toft plugin config {name} shows the settings")
    check_output(output)
    with session.node() as node:
        manifest = node.installed.get(name)
        settings = words.settings(manifest, config) if config else None
        # Before anything is started: what cannot be called is refused at once.
        bound = words.arguments(signature(manifest, action), given, input_json)
        granted = writable or []
        if session.target() is not None:
            bound = words.as_typed(bound, given)
        else:
            granted = [each.absolute() for each in granted]
        options = {"writable": [str(each) for each in granted]} if granted else {}
        loaded = node.load(name, config=settings, instance=instance, **options)
        call = _Call(session, loaded, action, manifest, timeout)
        call.give(bound)
        if stream:
            _stream(session, call, as_json=as_json)
        else:
            _print(session.terminal, call, call.result(), output, as_json=as_json)
        session.terminal.note(call.where())


def signature(manifest: Any, action: str | None) -> Mapping[str, Any] | None:
    """Return the input schema of an action as the manifest has it."""
    described = manifest.runtime.actions.get(action or "execute")
    return described.get("input") if isinstance(described, Mapping) else None


class _Call:
    """One call, with what is shown while it runs and how Ctrl-C ends it."""

    def __init__(
        self, session: Session, loaded: Any, action: str | None, manifest: Any, timeout_s: float | None
    ) -> None:
        self._session = session
        self._loaded = loaded
        self._action = action
        self._manifest = manifest
        self._timeout_s = timeout_s
        self._given: Mapping[str, Any] = {}
        self._handle: Any = None
        self._began = SYSTEM.monotonic()
        self._duration_s = 0.0

    def give(self, arguments: Mapping[str, Any]) -> None:
        """Say what the action is called with."""
        self._given = arguments

    def result(self) -> Any:
        """Wait for the one result."""
        with self._live() as live:
            self._handle = self._loaded.start_with(self._action, self._given, **self._options(live))
            return self._until_cancelled(self._handle.result)

    def chunks(self, show: Any) -> None:
        """Pass on each chunk when it comes."""
        with self._live() as live:
            chunks = self._loaded.stream_with(self._action, self._given, **self._options(live))
            self._handle = chunks.call

            def all_of_them() -> None:
                for chunk in chunks:
                    show(chunk)

            self._until_cancelled(all_of_them)

    def told(self) -> dict[str, Any]:
        """Return what `--json` says beside the result."""
        return {
            "plugin": self._loaded.plugin,
            "instance": self._loaded.id,
            "duration_s": round(self._duration_s, 6),
            "usage": dict(self._handle.usage),
        }

    def where(self) -> str:
        """Return the line that says how long it took and where it ran."""
        runtime = self._manifest.runtime
        parts = [
            duration(self._duration_s),
            f"instance {self._loaded.id}",
            f"Python {runtime.python_version}",
        ]
        if runtime.environment:
            parts.append(f"environment {runtime.environment[:12]}")
        parts += [f"{amount:g} {unit}" for unit, amount in self._handle.usage.items()]
        return " · ".join(parts)

    def _live(self) -> Live:
        return Live(self._session.terminal, self._loaded.id)

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


def check_output(output: Path | None) -> None:
    """Refuse a file that cannot be written before the work is done, not after it."""
    if output is None:
        return
    directory = output.absolute().parent
    if output.is_dir():
        raise UsageError(f"{output} is a directory", hint=f"name a file in it, such as {output / 'result'}")
    if not directory.is_dir():
        raise UsageError(
            f"There is no directory {directory} to write {output.name} to", hint=f"mkdir -p {directory}"
        )


def _print(terminal: Terminal, call: _Call, result: Any, output: Path | None, *, as_json: bool) -> None:
    if output is not None:
        written = write(terminal, output, result)
        if as_json:
            terminal.json({"result": written, **call.told()})
    elif as_json:
        terminal.json({"result": rendering.to_json(result), **call.told()})
    else:
        show(terminal, result)


def write(terminal: Terminal, output: Path, result: Any) -> dict[str, Any]:
    """Write a result to a file, and return what `--json` says of it."""
    data, kind = rendering.file_content(result)
    durable.write_file(output.absolute(), data)
    terminal.note(f"wrote {output}: {kind}, {size(len(data))}")
    return {"file": str(output), "kind": kind, "size_bytes": len(data)}


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
