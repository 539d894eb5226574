"""Refuse text that ties the repository to one machine or one registry, and lines that no reviewer would pass.

Addresses are closed by default: a host that is not in `HOSTS` fails, so that no registry, mirror or proxy
gets in by way of a lock file, a fixture or a pasted log.
"""

import re
import sys
from collections.abc import Iterator

from tracked_files import ROOT, list_files

HOSTS = {
    "127.0.0.1",
    "localhost",
    "www.apache.org",
    "www.w3.org",
    "json-schema.org",
    "keepachangelog.com",
    "semver.org",
}
RESERVED = (".example", ".invalid", ".test", ".example.com", ".example.org", ".localhost")
VENDORED = "packages/node/src/toft/web/static/vendor/"
"""Published by others and never changed: what they wrote there is theirs, and nothing is fetched from it."""

BINARY = {".pdf", ".png", ".jpg", ".ico", ".woff2", ".whl", ".gz", ".zip", ".db"}

ADDRESS = re.compile(r"""https?://(?:[^/@\s"'<>]*@)?([A-Za-z0-9.-]+)""")
RULES = {
    # Written with a class of one letter so that this file does not match itself.
    "a path of somebody's machine": re.compile(r"/wor[k]/|/root/\.pyen[v]"),
    "an index line in a requirements file": re.compile(r"^\s*--(?:extra-)?index-ur[l]"),
    "a recorded download address": re.compile(r'"resolve[d]":\s*"http'),
    "an unfinished mark": re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X])\b"),
    "a merge mark": re.compile(r"^(?:<{7}|>{7}) "),
}
FORBIDDEN_NAMES = re.compile(
    r"(^|/)(uv\.lock|poetry\.lock|package-lock\.json|(?:utils|helpers|common|misc|manager)\.py)$"
)


def complaints_in(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        for host in ADDRESS.findall(line):
            host = host.lower().rstrip(".")
            if (
                host not in HOSTS
                and host not in {"example.com", "example.org"}
                and not host.endswith(RESERVED)
            ):
                yield f"{name}:{number}: an address outside the allowed hosts: {host}"
        for what, rule in RULES.items():
            if rule.search(line):
                yield f"{name}:{number}: {what}: {line.strip()[:80]}"


def main() -> int:
    found = []
    for path in list_files():
        name = str(path.relative_to(ROOT))
        if FORBIDDEN_NAMES.search(name):
            found.append(f"{name}: a file of this name does not belong here")
        if path.suffix not in BINARY and not name.startswith(VENDORED):
            found.extend(complaints_in(name, path.read_text(encoding="utf-8")))
    for complaint in found:
        print(complaint)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
