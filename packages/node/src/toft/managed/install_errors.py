"""Why what a document pins cannot be had, and whether that may change by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toft.kernel.errors import NodeError

_FAMILY = "generation."
_RETRY_S = 30.0


class InstallError(NodeError):
    """What a document pins cannot be had; nothing that runs was touched.

    Its code is `generation.` and one of three words: `plugin_install_failed`, `artifact_hash_mismatch`,
    `bundled_version_mismatch`. With `retry_after_s` it may work later, and is held against no document.
    """

    code = "generation.plugin_install_failed"
    blame = "environment"

    @property
    def kind(self) -> str:
        """Return why, as one word; the reason for which a document is held back."""
        return self.code.removeprefix(_FAMILY)

    @property
    def is_transient(self) -> bool:
        """Say whether the same may work later without anybody changing the document."""
        return self.retry_after_s is not None


def for_now(message: str, *, details: Mapping[str, Any] | None = None, hint: str = "") -> InstallError:
    """Return the error for what may work later."""
    error = InstallError(
        message, details=details, hint=hint or "it is tried again by itself", retry_after_s=_RETRY_S
    )
    error.category = "transient"
    return error


def for_good(message: str, *, details: Mapping[str, Any] | None = None, hint: str = "") -> InstallError:
    """Return the error for what works with another document only."""
    return InstallError(message, details=details, hint=hint)


def mismatch(message: str, *, details: Mapping[str, Any] | None = None) -> InstallError:
    """Return the error for a file that is another one than was pinned."""
    return InstallError(
        message,
        code="generation.artifact_hash_mismatch",
        details=details,
        hint="pin the right file, or find out who put another one there; the log of the node says what came",
    )


def other_version(message: str, *, details: Mapping[str, Any] | None = None) -> InstallError:
    """Return the error for a plugin that comes with toft, in another version than is pinned."""
    return InstallError(
        message,
        code="generation.bundled_version_mismatch",
        details=details,
        hint="pin the version that comes with the toft of these nodes, or bring another toft to them first",
    )
