"""Why what a document pins cannot be had, and whether that may change by itself."""

from __future__ import annotations

from toft.kernel.errors import NodeError

_FAMILY = "generation."


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
