"""Which plugin is of which kind: category, domain, role, platform, and what it can do.

Everything is answered from manifests; no plugin is imported or started.
"""

from __future__ import annotations

import platform as machine
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toft.kernel import log
from toft.plugins.manifests.manifest import Code, Manifest, Taxonomy

_LOG = log.get_logger("plugins.taxonomy")
_CONVENTION = re.compile(r"cjm_(?P<domain>\w+)_plugin_system")


@dataclass(frozen=True)
class Capability:
    """One action of one plugin, as the reason why it was found.

    Attributes:
        plugin: The plugin's name.
        action: The action's name.
        score: How well it fits, higher is better; only for putting answers in order.
        matched: The words that were found.
    """

    plugin: str
    action: str
    score: int
    matched: tuple[str, ...]


def derive(interface: str) -> Taxonomy | None:
    """Return the taxonomy an interface's dotted name implies; None when it has no module."""
    root, dot, rest = interface.partition(".")
    if not dot:
        return None
    found = _CONVENTION.fullmatch(root)
    return Taxonomy(found["domain"] if found else root, rest.rpartition(".")[2], interface)


def of(code: Code) -> Taxonomy | None:
    """Return what a manifest says, else what its interface implies."""
    return code.taxonomy or derive(code.interface)


def category(manifest: Manifest) -> str:
    """Return the words people sort plugins by, such as `Text Processing`; empty when nothing is said."""
    code = manifest.code
    override = manifest.overrides.get("category")
    if isinstance(override, str) and override:
        return override
    if code.taxonomy is not None:
        return code.taxonomy.domain.replace("_", " ").title()
    return code.category


def categories(manifests: Iterable[Manifest]) -> list[str]:
    """Return the categories there are, sorted, each once."""
    return sorted({category(each) for each in manifests} - {""})


def select(
    manifests: Iterable[Manifest],
    *,
    category: str | None = None,
    role: str | None = None,
    domain: str | None = None,
    platform: str | None = None,
) -> list[Manifest]:
    """Return the plugins that fit every question asked.

    Args:
        manifests: Where to look.
        category: As `category()` gives it; upper and lower case are the same.
        role: Name of the interface's class.
        domain: Domain of the taxonomy.
        platform: Such as `linux-x64`, or `here` for this machine's; a plugin that names none runs anywhere.
    """
    if platform == "here":
        platform = platform_word()
    return [
        each
        for each in manifests
        if (category is None or _category_is(each, category))
        and (role is None or _part(each, "role") == role)
        and (domain is None or _part(each, "domain") == domain)
        and (platform is None or runs_on(each, platform))
    ]


def find(
    manifests: Iterable[Manifest],
    task: str = "",
    *,
    category: str | None = None,
    role: str | None = None,
    domain: str | None = None,
    platform: str | None = None,
    takes: Iterable[str] = (),
    gives: str | None = None,
) -> list[Manifest]:
    """Return the manifests that fit, the best first; see `select` and `able`."""
    chosen = select(manifests, category=category, role=role, domain=domain, platform=platform)
    wanted = list(takes)
    if not task and not wanted and gives is None:
        return list(chosen)
    ranked = able(chosen, task, takes=wanted, gives=gives)
    by_name = {each.name: each for each in chosen}
    return [by_name[name] for name in dict.fromkeys(each.plugin for each in ranked)]


def canonical(manifests: Iterable[Manifest], role: str) -> Manifest | None:
    """Return the only plugin of a role; None when there is none, or several and nobody can say which."""
    found = select(manifests, role=role)
    if len(found) > 1:
        _LOG.warning("role_is_ambiguous", role=role, plugins=[each.name for each in found])
    return found[0] if len(found) == 1 else None


def runs_on(manifest: Manifest, platform: str) -> bool:
    """Tell whether a plugin names this platform or names none; whether there is a GPU is not looked at."""
    resources = manifest.code.resources
    return resources is None or not resources.platforms or platform in resources.platforms


def platform_word() -> str:
    """Return this machine's platform as manifests write it: `linux-x64`, `darwin-arm64`, `win-x64`."""
    systems = {"linux": "linux", "darwin": "darwin", "win32": "win"}
    processors = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
    processor = machine.machine().lower()
    return f"{systems.get(sys.platform, sys.platform)}-{processors.get(processor, processor)}"


def able(
    manifests: Iterable[Manifest],
    task: str = "",
    *,
    takes: Iterable[str] = (),
    gives: str | None = None,
) -> list[Capability]:
    """Answer "which plugin can do this" from recorded signatures.

    Args:
        manifests: Where to look.
        task: Words to look for in names, descriptions, actions and parameters; empty asks for no words.
        takes: Parameters the action must have; `image` or, with its type, `image:path`.
        gives: Type of the result: a JSON type or a marker such as `bytes`, `ndarray`, `array`.

    Returns:
        The best first; equal ones by name.
    """
    words = [each for each in re.split(r"\W+", task.lower()) if each]
    wanted = list(takes)
    found = []
    for manifest in manifests:
        for action, described in manifest.runtime.actions.items():
            if not isinstance(described, Mapping) or not _fits(described, wanted, gives):
                continue
            capability = _score(manifest, action, described, words)
            if not words or capability.matched:
                found.append(capability)
    return sorted(found, key=lambda each: (-each.score, each.plugin, each.action))


def _score(manifest: Manifest, action: str, described: Mapping[str, Any], words: list[str]) -> Capability:
    taxonomy = of(manifest.code)
    parameters = _parameters(described)
    places = (
        (4, f"{manifest.name} {action}"),
        (3, f"{category(manifest)} {taxonomy.domain} {taxonomy.role}" if taxonomy else category(manifest)),
        (2, f"{manifest.code.description} {described.get('description', '')}"),
        (1, " ".join(parameters)),
    )
    score, matched = 0, []
    for word in words:
        best = max((weight for weight, text in places if word in text.lower()), default=0)
        score += best
        if best:
            matched.append(word)
    return Capability(manifest.name, action, score, tuple(matched))


def _fits(described: Mapping[str, Any], wanted: list[str], gives: str | None) -> bool:
    if gives is not None and gives not in _types(described.get("output")):
        return False
    parameters = _parameters(described)
    for each in wanted:
        name, _, kind = each.partition(":")
        if name not in parameters or (kind and kind not in _types(parameters[name])):
            return False
    return True


def _parameters(described: Mapping[str, Any]) -> Mapping[str, Any]:
    given = described.get("input")
    parameters = given.get("parameters") if isinstance(given, Mapping) else None
    return parameters if isinstance(parameters, Mapping) else {}


def _types(schema: Any) -> set[str]:
    if not isinstance(schema, Mapping):
        return set()
    found = {str(schema[word]) for word in ("x-toft-type", "title") if word in schema}
    kinds = schema.get("type")
    found |= set(kinds) if isinstance(kinds, list) else {kinds} if isinstance(kinds, str) else set()
    for each in schema.get("anyOf", ()):
        found |= _types(each)
    return found


def _category_is(manifest: Manifest, wanted: str) -> bool:
    return category(manifest).lower() == wanted.lower()


def _part(manifest: Manifest, name: str) -> str | None:
    taxonomy = of(manifest.code)
    return getattr(taxonomy, name) if taxonomy else None
