"""Words of the command line as arguments of an action or as settings of a plugin, typed by their schemas."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from toft.kernel import ids
from toft.kernel.errors import UsageError
from toft.kernel.visible import one_line


def target(text: str) -> tuple[str, str | None]:
    """Return the plugin and the action that `NAME[.ACTION]` names; None is the one that needs no name.

    Raises:
        UsageError: It names none.
    """
    name, _, action = text.partition(".")
    # In capitals it names no plugin either, and whoever looks for it says which is near.
    if not ids.is_name(name.lower()):
        raise UsageError(
            f"{one_line(text)!r} is not NAME[.ACTION]",
            code="name.invalid",
            hint="toft plugin list shows the plugins, toft plugin show NAME the actions of one",
        )
    return name, action or None


def check(words: Sequence[str], hint: str) -> None:
    """Catch the likely slip of a word that is no KEY=VALUE before anything is started.

    Raises:
        UsageError: Names the first such word.
    """
    bare = [word for word in words if "=" not in word]
    if bare:
        raise UsageError(f"{one_line(bare[0])!r} is not KEY=VALUE", code="request.command_line", hint=hint)


def arguments(schema: Mapping[str, Any] | None, words: Sequence[str], given: str | None) -> dict[str, Any]:
    """Return the arguments of an action.

    Args:
        schema: Its input schema; None reads JSON where it parses and text where it does not.
        words: Each `name=value`, `name=@file` or `name:=json`.
        given: All of them as JSON, `@file`, or `-` for standard input; words win.

    Raises:
        InputError: With everything that does not fit.
    """
    found: dict[str, Any] = _reading().parse_cli(schema, words, sys.stdin.read() if given == "-" else given)
    return found


def as_typed(bound: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Return arguments for a node elsewhere: a path is the word itself, and not a file of this machine."""
    typed = dict(word.split("=", 1) for word in words)
    return {
        name: typed[name] if isinstance(value, PurePath) and name in typed else value
        for name, value in bound.items()
    }


def settings(manifest: Any, words: Sequence[str], given: str | None = None) -> dict[str, Any]:
    """Return settings typed by the plugin's schema; whether they fit is decided where they are used."""
    schema = manifest.code.config_schema or {}
    found: dict[str, Any] = _reading().read_cli({"parameters": schema.get("properties", {})}, words, given)
    return found


def options(words: Sequence[str]) -> dict[str, Any]:
    """Return options of an instance, typed; whether they fit is decided where they are used."""
    from toft.plugins.instances import OPTIONS_SCHEMA  # noqa: PLC0415 - 25 ms that `toft --help` does not pay

    found: dict[str, Any] = _reading().read_cli({"parameters": OPTIONS_SCHEMA["properties"]}, words)
    return found


def _reading() -> Any:
    from toft.plugins.manifests import arguments  # noqa: PLC0415 - 17 ms of schemas that `toft --help` does not pay

    return arguments


_RETRY = {"on": str, "first_s": float, "factor": float, "most_s": float, "jitter": float}


def retry(text: str) -> dict[str, Any]:
    """Return a retry policy written as `N` or `N,on=transient+resource,first_s=1`.

    Raises:
        UsageError: It is not written like that.
    """
    first, *rest = text.split(",")
    try:
        found: dict[str, Any] = {"max_attempts": int(first)}
        for word in rest:
            name, _, value = word.partition("=")
            found[name] = _RETRY[name](value)
    except (ValueError, KeyError):
        found = {"max_attempts": 0}
    if found["max_attempts"] < 1:
        raise UsageError(
            f"--retry {one_line(text)!r} is not N[,KEY=VALUE...]",
            code="request.command_line",
            hint=f"such as --retry 5 or --retry 5,on=transient,first_s=2; it takes {', '.join(_RETRY)}",
        )
    if "on" in found:
        found["on"] = tuple(found["on"].split("+"))
    return found
