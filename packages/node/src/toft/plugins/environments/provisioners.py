"""What makes environments on this node, put together from the settings; called by the wiring alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from toft.host import commands
from toft.kernel.settings import Settings
from toft.plugins.environments import (
    conda_environments,
    interpreters,
    micromamba,
    pinned_wheels,
    uv_environments,
)
from toft.plugins.environments.provisioning import Provisioner


def build(
    settings: Settings, environ: Mapping[str, str], *, run: commands.Run = commands.run
) -> list[Provisioner]:
    """Return the provisioners in the order they are asked.

    Args:
        settings: The node's.
        environ: What tools may see, scrubbed.
        run: Runs what may be foreign code: build backends, what a channel brought.
    """
    found = interpreters.Interpreters(settings.interpreters, environ=environ)
    uv = uv_environments.UvProvisioner(
        found,
        uv_environments.UvOptions(
            offline=settings.offline,
            wheelhouses=settings.wheelhouses,
            allow_downloads=settings.python_downloads,
        ),
        environ=environ,
        run=run,
    )
    conda = conda_environments.CondaProvisioner(
        uv,
        conda_environments.CondaOptions(
            tool=settings.conda_tool, prefix=_conda_prefix(settings), offline=settings.offline
        ),
        environ=environ,
        run=run,
    )
    return [pinned_wheels.PinnedProvisioner(uv, found), uv, conda]


def own_micromamba(settings: Settings, environ: Mapping[str, str]) -> micromamba.Micromamba:
    """Return what sets up this node's own micromamba."""
    options = micromamba.MicromambaOptions(
        prefix=_conda_prefix(settings),
        source=settings.micromamba_source,
        sha256=settings.micromamba_sha256,
        offline=settings.offline,
    )
    return micromamba.Micromamba(options, environ=environ)


def _conda_prefix(settings: Settings) -> Path:
    return settings.conda_prefix or settings.home / "conda"
