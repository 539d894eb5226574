"""What somebody asked to have installed, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toft.plugins.environments import artifact_names as artifacts
from toft.plugins.environments.sources import Source


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How somebody wants a plugin installed; kept in its manifest, so that `refresh` can ask the same again.

    Attributes:
        source: A directory, a wheel, a requirement or `git+…`, as `Source.parse` reads it.
        name: What the plugin is to be called; its own name when None.
        python: A version, a range or a path.
        requirements: More packages for the same environment.
        lock: Path of a requirements file with hashes to install from.
        env_file: Path or URL of an `environment.yml`.
        offline: Never use the network; None for what the settings say.
        env_vars: Variables for the worker, stored openly.
        env_name: What a reference `plugins.yaml` calls the environment.
        origin: What somebody on another machine calls the source; None for a wish of this one. No path of
            this machine is meant then; what was uploaded is `artifact:SHA256/FILE`, wherever a path may be.
    """

    source: str
    name: str | None = None
    python: str | None = None
    requirements: tuple[str, ...] = ()
    lock: str | None = None
    env_file: str | None = None
    offline: bool | None = None
    env_vars: Mapping[str, str] = field(default_factory=dict)
    env_name: str = ""
    origin: str | None = None

    def kept(self, source: Source) -> dict[str, Any]:
        """Return what the manifest remembers; no passwords."""
        text = source.text + (f"[{','.join(source.extras)}]" if source.extras else "")
        remembered = {
            "source": self.source if artifacts.is_named(self.source) else text,
            "name": self.name,
            "python": self.python,
            "requirements": list(self.requirements),
            "lock": self.lock,
            "env_file": self.env_file,
            "offline": self.offline,
            "env_vars": dict(self.env_vars),
            "env_name": self.env_name,
            "origin": self.origin,
        }
        return {key: value for key, value in remembered.items() if value}

    @classmethod
    def of(cls, source: str, fields: Mapping[str, Any]) -> Wish:
        """Return the wish for a source, with those of the other fields that are not None."""
        given = {name: value for name, value in fields.items() if value is not None}
        if "requirements" in given:
            given["requirements"] = tuple(given["requirements"])
        return cls(source=source, **given)

    @classmethod
    def remembered(cls, fields: Mapping[str, Any]) -> Wish:
        """Read back what `kept` wrote."""
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        known["requirements"] = tuple(known.get("requirements", ()))
        return cls(**known)
