"""A plugin as a command of its own: `python shout.py text=hello times=2`, with no node and no worker."""

from __future__ import annotations

import json
import os
import sys

from toft_sdk.actions import collect
from toft_sdk.errors import InputError, PluginError, classify, trace_text
from toft_sdk.schema import config_schema, signature_schema
from toft_sdk.validation import problems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Sequence

    from toft_sdk.plugin import Plugin

_USAGE = "usage: python {script} [--action NAME] [--config FIELD=VALUE]... [--stream] [ARGUMENT=VALUE]..."


def run(kind: type[Plugin], arguments: Sequence[str] | None = None) -> None:
    """Run a plugin from the command line and end the process: exit code 0, 1 failed, 2 usage.

    Progress, usage and log lines go to stderr; the result goes to stdout as JSON.

    Args:
        kind: The plugin class.
        arguments: The command line; None takes the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(kind, words)
    except InputError as error:
        sys.stderr.write(f"{error.message}\n{_USAGE.format(script=os.path.basename(sys.argv[0]))}\n")
        raise SystemExit(2) from None
    except PluginError as error:
        sys.stderr.write(f"{type(error).__name__} ({error.code}): {error.message}\n")
        raise SystemExit(1) from None
    raise SystemExit(0)


def _run(kind: type[Plugin], words: list[str]) -> None:
    action_name, given, config, is_stream = _read(words)
    actions = collect(kind)
    action = actions.get(action_name or next(iter(actions)))
    if action is None:
        raise InputError(f"there is no action {action_name!r}; there is: {', '.join(actions)}")
    plugin = kind(_values(config_schema(kind.Config)["properties"], config))
    described = signature_schema(getattr(plugin, action.method), kind)
    values = _values(described["parameters"], given)
    bad = {
        name: text
        for name, value in values.items()
        for text in problems(described["parameters"].get(name, {}), value).values()
    }
    if bad:
        raise InputError("; ".join(f"{name} {text}" for name, text in bad.items()), fields=bad)
    try:
        with plugin:
            chunks = action.stream(plugin, values) if is_stream else [action.call(plugin, values)]
            for chunk in chunks:
                sys.stdout.write(json.dumps(chunk, default=_text, ensure_ascii=False) + "\n")
                sys.stdout.flush()
    except PluginError:
        raise
    except Exception as error:
        # Says where in the author's code, which is what the author runs it alone for.
        sys.stderr.write(trace_text(error))
        typed = classify(error)
        raise PluginError(typed.message, code=typed.code) from error


def _read(words: list[str]) -> tuple[str | None, dict[str, str], dict[str, str], bool]:
    action, is_stream = None, False
    given: dict[str, str] = {}
    config: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word == "--stream":
            is_stream = True
        elif word == "--action":
            action = next(rest, "")
        elif word == "--config":
            _put(config, next(rest, ""))
        else:
            _put(given, word)
    return action, given, config, is_stream


def _put(pairs: dict[str, str], word: str) -> None:
    name, equals, value = word.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(f"{word!r} is not NAME=VALUE")
    pairs[name] = value


def _values(schemas: dict[str, Any], given: dict[str, str]) -> dict[str, Any]:
    """Read each text as JSON unless its schema asks for text."""
    return {name: _value(schemas.get(name, {}), text) for name, text in given.items()}


def _value(schema: dict[str, Any], text: str) -> Any:
    wanted = schema.get("type")
    if wanted == "string" or (isinstance(wanted, list) and "string" in wanted and text != "null"):
        return text
    if schema.get("x-toft-type") == "bytes":
        return text.encode()
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(value: Any) -> Any:
    """Say in JSON what has no word there; good enough to look at."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    return str(value)
