"""Errors on their way out of the node, without the secrets that may have got into their texts."""

from __future__ import annotations

from toft.kernel import errors
from toft.secrets.redaction import Redactor
from toft_sdk import errors as plugin_errors


class ErrorRedactor:
    """Takes secrets out of errors.

    Args:
        redactor: Knows them.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, error: Exception) -> None:
        """Change the texts of an error and of what caused it, in place."""
        seen: set[int] = set()
        current: BaseException | None = error
        while current is not None and id(current) not in seen:
            seen.add(id(current))
            if isinstance(current, (errors.NodeError, plugin_errors.PluginError)):
                self._redact(current)
            current = current.__cause__ or current.__context__

    def _redact(self, error: errors.NodeError | plugin_errors.PluginError) -> None:
        text = self._redactor.text
        error.message = text(error.message)
        error.args = tuple(text(each) if isinstance(each, str) else each for each in error.args)
        error.details = self._redactor.value(error.details)
        if isinstance(error, plugin_errors.PluginError):
            error.trace = text(error.trace)
        else:
            error.hint = text(error.hint)
        if isinstance(error, plugin_errors.InputError):
            error.fields = self._redactor.value(error.fields)
