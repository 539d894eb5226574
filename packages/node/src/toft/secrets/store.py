"""The seam behind which secret values are kept; tests/contract/test_secret_store.py says what it promises."""

from __future__ import annotations

import re
from typing import Protocol

from toft.kernel import ids
from toft.kernel.errors import NotFoundError, UsageError

DEFAULT_SCOPE = "__default__"
"""The scope of a node with one set of secrets; no person can name a scope of their own like this."""

LONGEST_VALUE_BYTES = 64 * 1024

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}\Z")


class SecretStore(Protocol):
    """Values under scope, plugin and key; instances of one plugin share them."""

    def get(self, plugin: str, key: str, *, scope: str = DEFAULT_SCOPE) -> str:
        """Return the value.

        Raises:
            NotFoundError: There is no such secret (`secret.not_found`).
        """
        ...

    def find(self, plugin: str, key: str, *, scope: str = DEFAULT_SCOPE) -> str | None:
        """Return the value, or None where there is none."""
        ...

    def set(self, plugin: str, key: str, value: str, *, scope: str = DEFAULT_SCOPE) -> None:
        """Store a value; it is on disk when this returns.

        Raises:
            UsageError: A name or the value is not one that can be stored.
        """
        ...

    def delete(self, plugin: str, key: str, *, scope: str = DEFAULT_SCOPE) -> None:
        """Remove a value for good.

        Raises:
            NotFoundError: There is no such secret (`secret.not_found`).
        """
        ...

    def list_keys(self, plugin: str, *, scope: str = DEFAULT_SCOPE) -> list[str]:
        """Return the names that have a value, sorted; never the values."""
        ...

    def list_plugins(self, *, scope: str = DEFAULT_SCOPE) -> list[str]:
        """Return the plugins that have a value, sorted."""
        ...

    def list_values(self) -> list[tuple[str, str]]:
        """Return (key, value) of every scope and plugin, for the redactor alone."""
        ...


def check_place(plugin: str, key: str | None, scope: str) -> None:
    """Refuse names that could be read as something else: a path, a line of a log, a reserved word."""
    ids.check_name(plugin, "plugin name")
    if key is not None and not _KEY.match(key):
        raise UsageError(
            f"{key!r} cannot be the name of a secret: a letter or underscore, then letters, digits, . _ -",
            code="secret.bad_name",
            hint="Name it like the environment variable that the plugin declares, such as API_KEY.",
        )
    if scope != DEFAULT_SCOPE and not ids.is_name(scope):
        raise UsageError(
            f"{scope!r} cannot be a scope: lower-case letters, digits, _ and -, at most 64",
            code="secret.bad_scope",
            details={"reserved": DEFAULT_SCOPE},
        )


def check_value(value: str) -> None:
    """Refuse a value that an environment variable or a JSON file could not carry unchanged."""
    if not value:
        raise UsageError(
            "An empty value is no secret", code="secret.bad_value", hint="toft secret rm removes one."
        )
    if "\0" in value:
        raise UsageError(
            "A secret cannot contain a zero byte: no environment variable can", code="secret.bad_value"
        )
    try:
        size_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise UsageError(
            "A secret must be UTF-8 text; encode binary data as base64", code="secret.bad_value"
        ) from error
    if size_bytes > LONGEST_VALUE_BYTES:
        raise UsageError(
            f"The value has {size_bytes} bytes; a secret has at most {LONGEST_VALUE_BYTES}",
            code="secret.bad_value",
            details={"size_bytes": size_bytes, "limit_bytes": LONGEST_VALUE_BYTES},
        )


def not_found(plugin: str, key: str) -> NotFoundError:
    """The error of `get` and `delete`, the same from every store."""
    return NotFoundError(
        f"Plugin {plugin} has no secret {key}",
        code="secret.not_found",
        details={"plugin": plugin, "key": key},
        hint=f"toft secret set {plugin} {key}",
    )
