"""Makes a conda channel on disk, in both package formats, with nothing but the standard library.

`python` in it is a symbolic link to a real interpreter with a `pyvenv.cfg`: enough to start workers from.
"""

import bz2
import hashlib
import io
import json
import os
import struct
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VERSION = ".".join(map(str, sys.version_info[:3]))
SHORT = f"{sys.version_info[0]}.{sys.version_info[1]}"


def make_channel(directory: Path, *, zips: bool = True) -> str:
    """Write a channel with `python` and two versions of `greetlib`; return its address.

    One of them is a `.conda` file unless `zips` is false: then all are `.tar.bz2`.
    """
    records: dict[str, dict[str, Any]] = {}
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    _add(
        records,
        directory,
        _python(base),
        "python",
        VERSION,
        links={"bin/python": base, f"bin/python{SHORT}": base},
    )
    for version, is_zip in (("1.0", False), ("2.0", zips)):
        source = {f"lib/python{SHORT}/site-packages/greetlib.py": f"VERSION = '{version}'\n"}
        _add(records, directory, source, "greetlib", version, depends=["python"], is_zip=is_zip)
    _add(records, directory, {"share/other": "x"}, "other", "1.0", depends=["greetlib <2"])
    for subdir in ("noarch", "linux-64"):
        (directory / subdir).mkdir(parents=True, exist_ok=True)
        of_subdir = records if subdir == "noarch" else {}
        repodata = {
            "info": {"subdir": subdir},
            "packages": {name: one for name, one in of_subdir.items() if name.endswith(".bz2")},
            "packages.conda": {name: one for name, one in of_subdir.items() if name.endswith(".conda")},
            "repodata_version": 1,
        }
        (directory / subdir / "repodata.json").write_text(json.dumps(repodata))
    return directory.as_uri()


def _python(base: str) -> dict[str, str]:
    config = f"home = {Path(base).parent}\ninclude-system-site-packages = false\nversion = {VERSION}\n"
    return {"pyvenv.cfg": config, f"lib/python{SHORT}/site-packages/README.txt": ""}


def _add(
    records: dict[str, dict[str, Any]],
    directory: Path,
    files: Mapping[str, str],
    name: str,
    version: str,
    *,
    depends: list[str] | None = None,
    links: Mapping[str, str] | None = None,
    is_zip: bool = False,
) -> None:
    index = {
        "name": name,
        "version": version,
        "build": "0",
        "build_number": 0,
        "depends": depends or [],
        "noarch": "generic",
        "subdir": "noarch",
    }
    paths = [
        {
            "_path": path,
            "path_type": "hardlink",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "size_in_bytes": len(text),
        }
        for path, text in files.items()
    ]
    paths += [
        {"_path": path, "path_type": "softlink", "sha256": "0" * 64, "size_in_bytes": 0}
        for path in links or {}
    ]
    info = {
        "info/index.json": json.dumps(index),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}),
        "info/files": "\n".join(sorted((*files, *(links or {})))),
    }
    stem = f"{name}-{version}-0"
    if is_zip:
        file_name, data = f"{stem}.conda", _conda(stem, _tar(info, {}), _tar(files, links or {}))
    else:
        file_name, data = f"{stem}.tar.bz2", bz2.compress(_tar({**info, **files}, links or {}))
    (directory / "noarch").mkdir(parents=True, exist_ok=True)
    (directory / "noarch" / file_name).write_bytes(data)
    hashes = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "size": len(data),
    }
    records[file_name] = {**index, **hashes}


def _tar(files: Mapping[str, str], links: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mtime = len(text.encode()), 1577836800
            archive.addfile(entry, io.BytesIO(text.encode()))
        for path, target in links.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname, entry.mtime = tarfile.SYMTYPE, target, 1577836800
            archive.addfile(entry)
    return buffer.getvalue()


def _conda(stem: str, info: bytes, package: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in (
            ("metadata.json", b'{"conda_pkg_format_version": 2}'),
            (f"pkg-{stem}.tar.zst", _zst(package)),
            (f"info-{stem}.tar.zst", _zst(info)),
        ):
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


def _zst(data: bytes) -> bytes:
    """Wrap bytes in a Zstandard frame of raw blocks: valid, not smaller."""
    frame = struct.pack("<IBQ", 0xFD2FB528, 0b11100000, len(data))
    step = 1 << 17
    for start in range(0, len(data), step):
        block = data[start : start + step]
        is_last = start + step >= len(data)
        frame += struct.pack("<I", (len(block) << 3) | is_last)[:3] + block
    return frame


_MICROMAMBA = r"""#!{python}
import bz2, io, json, os, pathlib, re, sys, tarfile, urllib.parse
from packaging.specifiers import SpecifierSet

arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\n")
verb = arguments.pop(0)
flags, channels, specs, prefix = set(), [], [], None
while arguments:
    each = arguments.pop(0)
    if each == "--prefix":
        prefix = pathlib.Path(arguments.pop(0))
    elif each == "--channel":
        channels.append(arguments.pop(0))
    elif each.startswith("--"):
        flags.add(each)
    else:
        specs.append(each)
root = pathlib.Path(urllib.parse.urlsplit(channels[0]).path)
packages = json.loads((root / "noarch" / "repodata.json").read_text())["packages"]
wanted, chosen = list(specs), {{}}
while wanted:
    name, rest = re.fullmatch("([a-z0-9_-]+) *=?([0-9.=]*|[ <>=!~].*)", wanted.pop(0)).groups()
    exact, _, build = rest.partition("=") if rest[:1].isdigit() and "=" in rest else ("", "", "")
    rule = "==" + exact if exact else ("==" + rest if rest[:1].isdigit() else rest)
    fitting = [
        (file, one)
        for file, one in packages.items()
        if one["name"] == name and SpecifierSet(rule.strip()).contains(one["version"])
    ]
    if not fitting or (name in chosen and chosen[name] not in fitting):
        print(json.dumps({{"success": False, "solver_problems": ["nothing provides " + name + " " + rest]}}))
        sys.exit(1)
    if name not in chosen:
        chosen[name] = max(fitting, key=lambda pair: pair[1]["version"])
        if "--no-deps" not in flags:
            wanted = chosen[name][1]["depends"] + wanted
if "--dry-run" in flags:
    assert verb == "create"
    link = [dict(one, url=channels[0] + "/noarch/" + file) for file, one in chosen.values()]
    print("a word before")
    print(json.dumps({{"success": True, "actions": {{"LINK": link, "FETCH": link}}}}, indent=2))
    sys.exit(0)
if verb == "create" and prefix.exists():
    sys.exit("Non-conda folder exists at prefix")
if not (prefix / "conda-meta" / "history").exists():
    sys.exit("this is no environment")
for file, one in chosen.values():
    with tarfile.open(fileobj=io.BytesIO(bz2.decompress((root / "noarch" / file).read_bytes()))) as archive:
        members = [each for each in archive.getmembers() if not each.name.startswith("info/")]
        archive.extraction_filter = lambda member, path: member
        archive.extractall(prefix, members)
    record = dict(one, url=channels[0] + "/noarch/" + file)
    (prefix / "conda-meta" / (file + ".json")).write_text(json.dumps(record))
"""


def write_micromamba(path: Path, log: Path) -> Path:
    """Write a program that answers like micromamba, from a channel of `make_channel`; logs its arguments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_MICROMAMBA.format(python=sys.executable, log=str(log)))
    path.chmod(0o755)
    return path


_PIXI = r"""#!{python}
import json, pathlib, shutil, subprocess, sys, yaml

verb, arguments = sys.argv[1], sys.argv[2:]
project = pathlib.Path(arguments[-1])
work, lock = project / "environment.yml", project / "pixi.lock"

def micromamba(*arguments):
    done = subprocess.run([{micromamba!r}, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout

if verb == "init":
    assert arguments[0] == "--import"
    shutil.copy(arguments[1], work)
    sys.exit(0)
wanted = yaml.safe_load(work.read_text())
channel = ["--channel", wanted["channels"][0]]
if verb == "lock":
    specs = wanted["dependencies"]
    plan = micromamba("create", "--dry-run", "--json", "--prefix", "/nowhere", *channel, *specs)
    found = [dict(conda=one["url"], **one) for one in json.loads(plan[plan.index("{{"):])["actions"]["LINK"]]
    listed = {{{subdir!r}: [{{"conda": one["conda"]}} for one in found]}}
    answer = {{"environments": {{"default": {{"packages": listed}}}}, "packages": found}}
    lock.write_text(yaml.safe_dump(answer))
elif verb == "install":
    assert "--frozen" in arguments
    prefix = project / ".pixi" / "envs" / "default"
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta" / "history").touch()
    locked = yaml.safe_load(lock.read_text())["packages"]
    exact = ["=".join((one["name"], one["version"], one["build"])) for one in locked]
    micromamba("install", "--no-deps", "--prefix", str(prefix), *channel, *exact)
"""


def write_pixi(path: Path, micromamba: Path, subdir: str) -> Path:
    """Write a program that answers like pixi, and lets `write_micromamba`'s do the work."""
    path.write_text(_PIXI.format(python=sys.executable, micromamba=str(micromamba), subdir=subdir))
    path.chmod(0o755)
    return path
