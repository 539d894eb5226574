"""What a plugin written for the reference system finds around it: its directories, variables and programs.

Its system gives it `CJM_DATA_DIR`, the variables its metadata names, and whatever the machine has on PATH.
Here the data directory is the plugin's own, and a program that came inside a wheel is put on PATH.
"""

from __future__ import annotations

import os
import sys

from toft_sdk.errors import FatalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Mapping

# What the versions of that system call the directory that has one directory for each plugin.
_DATA_VARIABLES = ("CJM_DATA_DIR", "CJM_PLUGIN_DATA_DIR", "CJM_CAPABILITY_DATA_DIR")
_FUNCTION = "get_plugin_metadata"
# Program, the package whose wheel has it, the directory inside, how its file's name starts.
_SHIPPED = (("ffmpeg", "imageio_ffmpeg", "binaries", "ffmpeg-"),)


def prepare(module: str) -> dict[str, Any]:
    """Set up the process for a reference plugin, before its class is imported.

    Args:
        module: Any module of the plugin's package.

    Returns:
        What the package says about itself; empty when it has no metadata function.
    """
    data = os.environ.get("TOFT_DATA_DIR") or os.environ.get("HOME") or os.getcwd()
    for variable in _DATA_VARIABLES:
        os.environ.setdefault(variable, data)
    if os.environ.get("TOFT_MODELS_DIR"):
        os.environ.setdefault("CJM_MODELS_DIR", os.environ["TOFT_MODELS_DIR"])
    _offer_programs(os.path.join(data, "bin"))
    told = metadata(module)
    variables = told.get("env_vars")
    for name, value in variables.items() if isinstance(variables, dict) else ():
        os.environ.setdefault(str(name), str(value))
    return told


def declare(kind: type[Any], told: Mapping[str, Any]) -> None:
    """Give the variables a class declares their defaults, after its import and before it is made.

    Args:
        kind: The plugin's class.
        told: What its package says about itself.
    """
    name = str(told.get("name") or kind.__name__)
    data = os.path.join(os.environ["CJM_DATA_DIR"], name)
    places = {
        "PLUGIN_NAME": name,
        "PLUGIN_DATA_DIR": data,
        "CAPABILITY_NAME": name,
        "CAPABILITY_DATA_DIR": data,
        "CJM_MODELS_DIR": os.environ.get("CJM_MODELS_DIR", ""),
        **{variable: os.environ[variable] for variable in _DATA_VARIABLES},
    }
    for each in variables_of(kind):
        if each["default"] is not None and not each["secret"]:
            os.environ.setdefault(each["name"], _filled(each["default"], places))


def variables_of(kind: type[Any]) -> list[dict[str, Any]]:
    """Return the environment variables a class declares, as `EnvVar.to_dict` writes them."""
    declared = getattr(kind, "WORKER_ENV", None) or ()
    found = []
    for each in declared:
        default = getattr(each, "default", None)
        found.append(
            {
                "name": str(each.name),
                "secret": bool(getattr(each, "secret", False)),
                "required": bool(getattr(each, "required", False)) and default is None,
                "default": None if default is None else str(default),
                "label": str(getattr(each, "label", "") or ""),
                "description": str(getattr(each, "description", "") or ""),
            }
        )
    return found


def is_template(text: str) -> bool:
    """Tell whether a default has places to fill in, which only the worker can."""
    return "${" in text


def metadata(module: str) -> dict[str, Any]:
    """Return what `<package>.meta:get_plugin_metadata()` says, of the nearest package that has one.

    Raises:
        FatalError: It says something that is no description.
    """
    for name in _candidates(module):
        if not _exists(name):
            continue
        __import__(name)
        function = getattr(sys.modules[name], _FUNCTION, None)
        if callable(function):
            told = function()
            if not isinstance(told, dict):
                raise FatalError(f"{name}.{_FUNCTION}() returned no dictionary", code="plugin.declaration")
            return told
    return {}


def _candidates(module: str) -> Iterator[str]:
    if module.split(".")[-1] == "meta":
        yield module
    parts = module.split(".")
    for count in range(len(parts), 0, -1):
        yield ".".join([*parts[:count], "meta"])


def _exists(name: str) -> bool:
    """Look for a package's file, without the import of its parents that `find_spec` would do."""
    *parents, last = name.split(".")
    for directory in sys.path:
        base = os.path.join(directory, *parents)
        if os.path.isfile(os.path.join(base, last + ".py")) and os.path.isfile(
            os.path.join(base, "__init__.py")
        ):
            return True
    return False


def _filled(text: str, places: Mapping[str, str]) -> str:
    for name, value in places.items():
        text = text.replace("${" + name + "}", value)
    return text


def _offer_programs(directory: str) -> None:
    """Put programs that came inside wheels on PATH, unless the machine has its own."""
    for program, package, inside, start in _SHIPPED:
        if _on_path(program):
            continue
        shipped = _shipped(package, inside, start)
        if shipped is not None and _linked(directory, program, shipped):
            os.environ["PATH"] = os.environ.get("PATH", "") + os.pathsep + directory


def _on_path(program: str) -> bool:
    directories = os.environ.get("PATH", "").split(os.pathsep)
    return any(os.access(os.path.join(each, program), os.X_OK) for each in directories if each)


def _shipped(package: str, inside: str, start: str) -> str | None:
    for directory in sys.path:
        place = os.path.join(directory, package, inside)
        if os.path.isdir(place):
            for name in sorted(os.listdir(place)):
                if name.startswith(start) and os.access(os.path.join(place, name), os.X_OK):
                    return os.path.join(place, name)
    return None


def _linked(directory: str, program: str, target: str) -> bool:
    link = os.path.join(directory, program)
    try:
        if os.path.islink(link) and os.readlink(link) == target:
            return True
        os.makedirs(directory, exist_ok=True)
        # Another worker of the same plugin may do this at the same time.
        temporary = f"{link}.{os.getpid()}"
        os.symlink(target, temporary)
        os.replace(temporary, link)
    except OSError as error:
        sys.stderr.write(f"toft: {program} from {target} could not be put on PATH: {error}\n")
        return False
    return True
