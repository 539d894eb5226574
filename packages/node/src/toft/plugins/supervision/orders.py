"""What is started for an instance: its manifest, its options and the place it runs in, put together."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from toft.host import keeper
from toft.kernel import errors, log
from toft.plugins import instances
from toft.plugins.manifests.manifest import Manifest
from toft.plugins.supervision import launch
from toft.secrets.store import DEFAULT_SCOPE, SecretStore
from toft.store import durable

_log = log.get_logger("plugins.orders")
PrepareSdk = Callable[[str, str], Awaitable[str]]


class Interpreter(Protocol):
    """What is known of the interpreter a plugin runs in."""

    @property
    def path(self) -> Path:
        """The environment's directory."""
        ...

    @property
    def python(self) -> str:
        """The executable."""
        ...

    @property
    def cache_tag(self) -> str:
        """Its tag in the names of compiled files; empty when not known."""
        ...


@dataclass(frozen=True, kw_only=True)
class ForeignEnvironment:
    """An environment that toft did not make: all that is known is its interpreter."""

    path: Path
    python: str
    cache_tag: str = ""

    @classmethod
    def of(cls, python: str, version: str = "") -> ForeignEnvironment:
        """Take the directory above `bin` as its prefix.

        Args:
            python: The executable.
            version: Its version, when somebody wrote it down.

        Raises:
            NotFoundError: There is no such interpreter.
        """
        if not Path(python).is_file():
            raise errors.NotFoundError(
                f"the interpreter {python} is not there",
                code="environment.no_interpreter",
                blame="environment",
                details={"python": python},
                hint="toft plugin refresh NAME, or install the plugin again",
            )
        numbers = version.split(".")
        tag = f"cpython-{numbers[0]}{numbers[1]}" if len(numbers) > 1 else ""
        return cls(path=Path(python).parent.parent, python=python, cache_tag=tag)


class Orders:
    """Writes what workers are started with.

    Args:
        place: Where the node is.
        prepare_sdk: Makes the SDK ready for an interpreter and returns the program to start.
        secrets: Where secrets are, resolved at each start.
        learn: Told every secret that is handed out, so that it can be taken out of what is shown.
    """

    def __init__(
        self,
        place: launch.Place,
        prepare_sdk: PrepareSdk,
        secrets: SecretStore,
        *,
        learn: Callable[[Sequence[tuple[str, str]]], object],
    ) -> None:
        self._place = place
        self._prepare_sdk = prepare_sdk
        self._secrets = secrets
        self._learn = learn

    @property
    def place(self) -> launch.Place:
        """Return where the node is."""
        return self._place

    async def for_instance(
        self,
        name: str,
        manifest: Manifest,
        interpreter: Interpreter,
        options: instances.InstanceOptions,
        references: Mapping[str, str] | None = None,
    ) -> launch.Launch:
        """Write the order for a worker of an instance.

        Args:
            name: Of the instance.
            manifest: Of its plugin.
            interpreter: What it runs in.
            options: How it is run.
            references: Where secrets are from that are not the plugin's own, by variable.

        Raises:
            RefusedError: A variable or a secret that it needs has no value.
        """
        boot = await self._prepare_sdk(interpreter.python, interpreter.cache_tag)
        secrets = await asyncio.to_thread(self.secret_values, manifest, references)
        lacking = sorted(set(references or {}) - secrets.keys())
        if lacking:
            raise _unresolved(name, manifest, lacking[0], (references or {})[lacking[0]])
        self._learn(list(secrets.items()))
        specs = manifest.code.worker_env
        declared = launch.declared_values(specs, manifest.install.env_vars, options.env)
        missing = launch.missing_variables(specs, {**declared, **secrets})
        if missing and manifest.runtime.hosting == "toft":
            raise _incomplete(manifest, missing)
        if missing:
            # The reference system starts its plugins without them, and some get along.
            _log.warning("required_variables_missing", instance=name, names=missing)
        return await asyncio.to_thread(
            self._write, name, manifest, interpreter, options, boot=boot, declared=declared, secrets=secrets
        )

    def _write(
        self,
        name: str,
        manifest: Manifest,
        interpreter: Interpreter,
        options: instances.InstanceOptions,
        *,
        boot: str,
        declared: Mapping[str, str],
        secrets: Mapping[str, str],
    ) -> launch.Launch:
        place, plugin, python = self._place, manifest.name, interpreter.python
        data = place.data_directory(plugin)
        durable.make_directory(data, 0o700)
        sandbox = launch.sandbox(
            place, plugin, python, interpreter.path, writable=options.writable, network=options.network
        )
        own_place = launch.is_own_place(place)
        return launch.Launch(
            instance=name,
            argv=(python, "-I", boot, "3"),
            env=launch.environment_variables(place, plugin, python, declared),
            cwd=str(place.cwd if own_place else data),
            sandbox=sandbox,
            limits=keeper.Limits(memory_bytes=options.memory_bytes, processes=options.processes),
            module=manifest.code.module,
            class_name=manifest.code.class_name,
            secrets=secrets,
            defaults=manifest.runtime.config_defaults if manifest.runtime.hosting == "toft" else None,
        )

    async def for_scratch(
        self,
        interpreter: Interpreter,
        module: str,
        class_name: str | None,
        scratch: Path,
        *,
        network: bool,
    ) -> launch.Launch:
        """Write the order for a worker of no instance: it gets a directory that goes away."""
        boot = await self._prepare_sdk(interpreter.python, interpreter.cache_tag)
        shown = launch.sandbox(self._place, "none", interpreter.python, interpreter.path, network=network)
        variables = launch.environment_variables(self._place, "none", interpreter.python, {})
        own = {"HOME": str(scratch), "TOFT_DATA_DIR": str(scratch), "TMPDIR": str(scratch)}
        return launch.Launch(
            instance=f"{module} on trial",
            argv=(interpreter.python, "-I", boot, "3"),
            env={**variables, **own},
            cwd=str(scratch),
            sandbox=dataclasses.replace(shown, writable=(str(scratch),)),
            limits=keeper.Limits(),
            module=module,
            class_name=class_name,
        )

    def secret_values(
        self, manifest: Manifest, references: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Return the secrets a worker of a plugin would be given now; blocks.

        Args:
            manifest: Of the plugin.
            references: Where some of them are from instead of the plugin's own secrets.
        """
        scope = manifest.runtime.secrets_scope or DEFAULT_SCOPE
        found: dict[str, str] = {}
        for spec in manifest.code.worker_env:
            if spec.get("secret"):
                key = str(spec["name"])
                reference = (references or {}).get(key)
                place = place_of(reference or f"store:{key}", manifest.name)
                value = self._secrets.find(*place, scope=scope)
                if value is not None:
                    found[key] = value
        return found


def place_of(reference: str, plugin: str) -> tuple[str, str]:
    """Return for which plugin, and as which key, the secret of a reference is kept.

    Raises:
        UsageError: It is no reference to a secret of this node (`secret.reference`).
    """
    kind, _, rest = reference.partition(":")
    owner, _, key = rest.rpartition("/")
    if kind != "store" or not key:
        raise errors.UsageError(
            f"{reference[:80]!r} is no reference to a secret of this node",
            code="secret.reference",
            hint="store:KEY is one of the plugin itself, store:PLUGIN/KEY one that is kept for another",
        )
    return owner or plugin, key


def _unresolved(name: str, manifest: Manifest, variable: str, reference: str) -> errors.RefusedError:
    """Say that the document refers to a secret that this node does not have."""
    plugin, key = place_of(reference, manifest.name)
    return errors.RefusedError(
        f"{name} is not started: {variable} is to be {reference}, and this node has no such secret",
        code="secret.unresolved",
        blame="environment",
        details={"instance": name, "variable": variable, "reference": reference},
        hint=f"toft secret set {plugin} {key}",
    )


def _incomplete(manifest: Manifest, missing: Sequence[str]) -> errors.RefusedError:
    """Say which variables have no value, and how the first of them gets one."""
    first = missing[0]
    if any(spec["name"] == first and spec.get("secret") for spec in manifest.code.worker_env):
        command = f"secret set {manifest.name} {first}"
    else:
        command = f"plugin options {manifest.name} --env {first}=VALUE"
    return errors.RefusedError(
        f"{manifest.name} is not started; without a value: {', '.join(missing)}",
        code="plugin.variables_missing",
        details={"plugin": manifest.name, "missing": list(missing)},
        hint=f"toft {command}",
    )
