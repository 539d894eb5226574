"""A program of its own around py-rattler: solve into a lock file, install from one.

    python -I conda_rattler.py solve|install SPEC.json

In its own process because a build must be ended at any moment, and an extension module in the node could
neither be cancelled nor crash alone. It prints one JSON object: what it did, or `error` and `message`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import rattler
from rattler import exceptions

_KINDS = (
    (exceptions.SolverError, "unsatisfiable"),
    (exceptions.InvalidMatchSpecError, "bad_spec"),
    (exceptions.InvalidChannelError, "bad_spec"),
    (exceptions.GatewayError, "download"),
    (exceptions.FetchRepoDataError, "download"),
)
# Never hard links: an environment's files belong to it alone.
_CONFIG = "allow-hard-links = false\n"


async def _solve(spec: dict[str, Any]) -> dict[str, Any]:
    channels = [rattler.Channel(name) for name in spec["channels"]]
    sources = rattler.SourceConfig(cache_action="force-cache-only") if spec["offline"] else None
    local = {
        channel.base_url: rattler.SourceConfig()
        for channel in channels
        if channel.base_url.startswith("file:")
    }
    gateway = rattler.Gateway(default_config=sources, per_channel_config=local)
    records = await rattler.solve(
        channels, spec["specs"], gateway=gateway, virtual_packages=rattler.VirtualPackage.detect()
    )
    platform = rattler.LockPlatform(str(rattler.Subdir.current()))
    lock = rattler.LockFile([platform])
    lock.set_channels("default", [rattler.LockChannel(channel.base_url) for channel in channels])
    for record in records:
        lock.add_conda_package("default", platform, record)
    lock.to_path(Path(spec["lock_file"]))
    return {"platform": str(rattler.Subdir.current()), "records": [_told(record) for record in records]}


async def _install(spec: dict[str, Any]) -> dict[str, Any]:
    environment = rattler.LockFile.from_path(Path(spec["lock_file"])).environment("default")
    assert environment is not None
    records = environment.conda_repodata_records().get(str(rattler.Subdir.current()))
    config = rattler.Config.from_toml(_CONFIG)
    await rattler.install(records or [], spec["prefix"], show_progress=False, config=config)
    return {}


def _told(record: rattler.RepoDataRecord) -> dict[str, Any]:
    return {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": str(record.build),
        "url": record.url,
        "sha256": record.sha256.hex() if record.sha256 else None,
        "size": record.size,
    }


def main() -> int:
    """Do one thing and print what came of it."""
    step = {"solve": _solve, "install": _install}[sys.argv[1]]
    spec = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    try:
        answer = asyncio.run(step(spec))
    except Exception as error:  # noqa: BLE001 - the whole program is one guarded call into an extension
        kind = next((kind for base, kind in _KINDS if isinstance(error, base)), "failed")
        answer = {"error": kind, "message": str(error) or type(error).__name__}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    # The extension's threads may crash an interpreter that tears itself down; everything is said by now.
    os._exit(ended)
