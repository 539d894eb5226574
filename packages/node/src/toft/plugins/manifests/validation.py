"""`toft plugin validate`: everything wrong with a manifest or a plugins.yaml, as sentences."""

from __future__ import annotations

from pathlib import Path

from toft.kernel.errors import UsageError
from toft.plugins.manifests import manifest_checks, plugins_yaml, registry

FORMATS = ("manifest", "plugins_yaml")


def problems(path: Path, form: str | None = None) -> list[str]:
    """Return what is wrong with a file; empty when nothing is.

    Args:
        path: The file.
        form: `manifest` or `plugins_yaml`; None decides by the file's suffix.

    Raises:
        UsageError: There is no such format.
    """
    if form is None:
        form = "plugins_yaml" if path.suffix.lower() in (".yaml", ".yml") else "manifest"
    if form not in FORMATS:
        raise UsageError(f"{form!r} is no format that can be checked; there are {' and '.join(FORMATS)}")
    if form == "manifest":
        return registry.validate_file(path, manifest_checks.problems)
    try:
        plugins_yaml.read(path)
    except plugins_yaml.PluginsFileError as error:
        return list(error.details.get("problems") or [error.message])
    return []
