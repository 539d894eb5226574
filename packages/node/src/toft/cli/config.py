"""`toft config …`: the document of this node: look whether one is right, and what the node makes of it."""

from __future__ import annotations

from typing import Annotated

import typer

from toft.cli import documents, failures
from toft.cli import session as sessions
from toft.cli.session import JsonOption, argument

app = typer.Typer(no_args_is_help=True, help="The document of this node: check it.")

FileArgument = Annotated[str, argument("FILE", "TOML, YAML or JSON; - is standard input.")]


@app.command("validate")
def validate(context: typer.Context, file: FileArgument, as_json: JsonOption = False) -> None:
    """Say everything that is wrong with a document; changes nothing."""
    from toft.managed import document  # noqa: PLC0415 - schemas, which `toft --help` does not pay

    session = sessions.of(context)
    problems: list[dict[str, str]] = []
    made = None
    try:
        made = document.author(documents.read_bytes(file), file)
    except document.DocumentError as error:
        if "problems" not in error.details:
            raise
        problems = error.details["problems"]
    if as_json:
        etag = None if made is None else made.etag
        session.terminal.json({"path": file, "ok": not problems, "etag": etag, "problems": problems})
    else:
        for each in problems:
            session.terminal.line(f"{each['path'] or 'the document'}: {each['message']}")
        count = len(problems)
        session.terminal.note(f"{file}: {count or 'no'} problem{'' if count == 1 else 's'}")
    if problems:
        raise typer.Exit(failures.FAILED)
