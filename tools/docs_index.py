"""Write docs/index.md: every page under docs/ by its title; `--check` only compares."""

import sys

from tracked_files import ROOT, list_files

INDEX = ROOT / "docs" / "index.md"
HEAD = """# toft

The [README](../README.md) says what toft is, and two commands show it. Made by `make fix`; do not edit.
"""
SECTIONS = (
    ("tutorial", "Learn", "From nothing to a plugin that runs."),
    ("how-to", "Do", "One task each."),
    ("explanation", "Understand", "How it works inside, and why."),
    ("reference", "Look up", "Everything there is, complete."),
    ("decisions", "Decisions", "What was chosen, and what was measured to choose it."),
    ("contributing", "Contribute", "For those who change toft itself."),
)


def title(text: str) -> str:
    return next((line[2:].strip() for line in text.splitlines() if line.startswith("# ")), "")


def render() -> tuple[str, list[str]]:
    parts = [HEAD]
    complaints = []
    pages = {path.relative_to(ROOT / "docs"): path for path in list_files("docs/*.md", "docs/**/*.md")}
    for folder, heading, says in SECTIONS:
        rows = []
        for name, path in pages.items():
            if name.parts[0] != folder or (folder == "decisions" and name.name != "README.md"):
                continue
            found = title(path.read_text(encoding="utf-8"))
            if not found:
                complaints.append(f"docs/{name}: no first line `# title`")
            rows.append(f"- [{found}]({name.as_posix()})\n")
        if rows:
            parts.append(f"\n## {heading}\n\n{says}\n\n{''.join(rows)}")
    known = {folder for folder, _, _ in SECTIONS}
    complaints += [
        f"docs/{name}: in no section" for name in pages if name.parts[0] not in {*known, "index.md"}
    ]
    parts.append(
        "\n[Security](../SECURITY.md) · [Contributing](../CONTRIBUTING.md) · [Changelog](../CHANGELOG.md)\n"
    )
    return "".join(parts), complaints


def main() -> int:
    text, found = render()
    if "--check" not in sys.argv[1:]:
        INDEX.write_text(text, encoding="utf-8")
    elif INDEX.read_text(encoding="utf-8") != text:
        found.append("docs/index.md does not list the pages there are; run `make fix`")
    for complaint in found:
        print(complaint)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
