"""`toft plugin`: what is installed, how it is configured, what it printed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from toft.cli import authoring, failures, install, rendering, shown
from toft.cli import follow as following
from toft.cli import session as sessions
from toft.cli import words as typed
from toft.cli.session import JsonOption, PluginArgument, Session, argument, option
from toft.kernel.errors import UsageError
from toft.kernel.quantities import counted
from toft.plugins.manifests import signatures

app = typer.Typer(no_args_is_help=True, help="Install, look at and configure plugins.")
install.register(app)
authoring.register(app)

InstanceOption = Annotated[
    str | None, option("--instance", metavar="ID", help="Which instance; the plugin's own by default.")
]


@app.command("list")
def list_plugins(context: typer.Context, as_json: JsonOption = False) -> None:
    """List what is installed."""
    session = sessions.of(context)
    with session.node() as node:
        rows = [sessions.entry(each) for each in node.plugins()]
    for each in _unreadable(session):
        session.terminal.warn(each)
    if as_json:
        session.terminal.json(rows)
    elif not rows:
        session.terminal.note("nothing is installed; toft plugin add SOURCE installs a plugin")
    else:
        columns = ("name", "version", "state", "python", "environment", "drift", "instances")
        session.terminal.table(columns, [[_cell(row[name]) for name in columns] for row in rows])


def _unreadable(session: Session) -> list[str]:
    if session.target() is not None:
        return []  # what lies in its home is its own affair
    from toft.plugins.manifests.registry import Registry  # noqa: PLC0415 - it came with the node already

    problems = Registry(session.settings().home).discover().problems
    return [f"{each.path} is passed over: {each.reason}" for each in problems]


@app.command("show")
def show(context: typer.Context, name: PluginArgument, as_json: JsonOption = False) -> None:
    """Show what a plugin does, takes, gives and needs."""
    session = sessions.of(context)
    with session.node() as node:
        manifest = node.installed.get(name)
        if as_json:
            session.terminal.json(rendering.to_json(manifest.to_dict()))
            return
        _show(session, manifest, [each.to_dict() for each in node.installed.variables(name)])


def _show(session: Session, manifest: Any, variables: list[Mapping[str, Any]]) -> None:
    terminal, code, runtime = session.terminal, manifest.code, manifest.runtime
    terminal.line(f"{manifest.name} {code.version}: {code.description}")
    terminal.line(f"  from         {manifest.install.package_source or runtime.source}")
    terminal.line(f"  class        {code.module}:{code.class_name}")
    terminal.line(f"  environment  {runtime.environment or manifest.install.python_path}")
    terminal.line(f"  python       {runtime.python_version}")
    for name, described in runtime.actions.items():
        terminal.line(f"  action       {signatures.action(name, described)}")
        if described.get("description"):
            terminal.line(f"               {described['description'].splitlines()[0]}")
    properties = (code.config_schema or {}).get("properties", {})
    for name, schema in properties.items():
        field = signatures.setting(name, schema, runtime.config_defaults.get(name, schema.get("default")))
        terminal.line(
            f"  setting      {field[0]}: {field[1]} = {field[2]}" + (f"  {field[3]}" if field[3] else "")
        )
    for each in variables:
        kind = "secret" if each["secret"] else "variable"
        state = "set" if each["satisfied"] else "missing" if each["required"] else "not set"
        terminal.line(f"  {kind:<12} {each['name']} ({state}) {each.get('description') or ''}".rstrip())


@app.command("find")
def find(
    context: typer.Context,
    task: Annotated[list[str] | None, argument("WORDS", "What it should do, in a few words.")] = None,
    category: Annotated[
        str | None, option("--category", metavar="CATEGORY", help="Of this category.")
    ] = None,
    role: Annotated[str | None, option("--role", metavar="ROLE", help="Of this role.")] = None,
    domain: Annotated[str | None, option("--domain", metavar="DOMAIN", help="Of this domain.")] = None,
    platform: Annotated[
        str | None, option("--platform", metavar="WORD|here", help="Runs on it, such as linux-x64.")
    ] = None,
    takes: Annotated[
        list[str] | None, option("--takes", metavar="NAME[:TYPE]", help="Takes this argument; repeatable.")
    ] = None,
    gives: Annotated[
        str | None, option("--gives", metavar="TYPE", help="Gives a result of this type.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the plugin that can do something.

    Looks at what is installed, and starts nothing.
    """
    session = sessions.of(context)
    with session.node() as node:
        found = node.installed.find(
            " ".join(task or ()),
            category=category,
            role=role,
            domain=domain,
            platform=platform,
            takes=tuple(takes or ()),
            gives=gives,
        )
    if as_json:
        session.terminal.json([_found(each) for each in found])
    elif not found:
        session.terminal.note("no installed plugin fits; toft plugin list shows what there is")
    for each in found if not as_json else ():
        session.terminal.line(f"{each.name}: {each.code.description}")
        for name, described in each.runtime.actions.items():
            session.terminal.line(f"  {signatures.action(name, described)}")


def _found(manifest: Any) -> dict[str, Any]:
    taxonomy = manifest.code.taxonomy
    return {
        "name": manifest.name,
        "version": manifest.code.version,
        "description": manifest.code.description,
        "domain": taxonomy.domain if taxonomy else "",
        "role": taxonomy.role if taxonomy else "",
        "actions": list(manifest.runtime.actions),
    }


@app.command("check")
def check(context: typer.Context, name: PluginArgument, as_json: JsonOption = False) -> None:
    """Look whether a plugin can still run.

    Its manifest, environment, import, drift and variables.
    """
    session = sessions.of(context)
    with session.node() as node:
        found = [asdict(each) for each in node.installed.check(name)]
    sessions.show_checks(session, found, as_json=as_json)


@app.command("config")
def configure(
    context: typer.Context,
    name: PluginArgument,
    words: Annotated[
        list[str] | None, argument("KEY=VALUE", "What to set; without any, shows what is set.")
    ] = None,
    input_json: Annotated[
        str | None, option("--input", metavar="JSON|@FILE", help="Settings as one JSON object.")
    ] = None,
    schema: Annotated[bool, option("--schema", help="Show the JSON Schema.")] = False,
    options: Annotated[
        bool, option("--options", help="Ask the plugin what each setting can be right now.")
    ] = False,
    reset: Annotated[bool, option("--reset", help="Go back to the defaults first.")] = False,
    instance: InstanceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or change a plugin's configuration.

    What is set is kept, and used whenever the instance is loaded.
    """
    session = sessions.of(context)
    typed.check(words or (), f"toft plugin config {name} shows the settings")
    if sum((schema, options, bool(words or input_json or reset))) > 1:
        raise UsageError(
            "--schema and --options show; they do not go with a change", code="request.command_line"
        )
    with session.node() as node:
        manifest = node.installed.get(name)
        if schema:
            session.terminal.json(rendering.to_json(manifest.code.config_schema or {}))
            return
        if options:
            with node.load(name, instance=instance) as loaded:
                session.terminal.json(rendering.to_json(loaded.config_options()))
            return
        if words or input_json or reset:
            changes = typed.settings(manifest, words or (), input_json)
            node.configure(name, changes, instance=instance, replace=reset)
        config = node.config(name, instance=instance)
    if as_json:
        session.terminal.json(
            {"plugin": name, "instance": instance or name, "config": rendering.to_json(config)}
        )
        return
    properties = (manifest.code.config_schema or {}).get("properties", {})
    if not config:
        session.terminal.note(f"{name} has no settings")
    else:
        rows = [signatures.setting(each, properties.get(each, {}), value) for each, value in config.items()]
        session.terminal.table(["setting", "type", "value", "what it is"], rows)


@app.command("options")
def set_options(
    context: typer.Context,
    name: PluginArgument,
    words: Annotated[
        list[str] | None, argument("KEY=VALUE", "What to set; without any, shows what is set.")
    ] = None,
    env: Annotated[
        list[str] | None,
        option("--env", metavar="NAME=VALUE", help="A variable the plugin declares; repeatable."),
    ] = None,
    reset: Annotated[bool, option("--reset", help="Go back to the defaults first.")] = False,
    instance: InstanceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or change how an instance is run.

    concurrency, queue_limit, memory_bytes, processes, spare, zygote, network, writable, env, cancel_grace_s,
    load_stall_s, call_stall_s, is_monitor, pinned. What is set is kept, and holds from the next load on.
    """
    session = sessions.of(context)
    typed.check([*(words or ()), *(env or ())], f"toft plugin options {name} shows the options")
    with session.node() as node:
        changes = typed.options(words or ())
        if env:
            kept = {} if reset else node.set_options(name, {}, instance=instance).env
            changes["env"] = {**kept, **changes.get("env", {}), **dict(each.split("=", 1) for each in env)}
        options = node.set_options(name, changes, instance=instance, replace=reset)
    found = rendering.to_json(options)
    if as_json:
        session.terminal.json({"plugin": name, "instance": instance or name, "options": found})
    else:
        session.terminal.table(
            ["option", "value"], [[each, json.dumps(value)] for each, value in found.items()]
        )


@app.command("enable")
def enable(
    context: typer.Context, name: PluginArgument, instance: InstanceOption = None, as_json: JsonOption = False
) -> None:
    """Let an instance take calls again."""
    _switch(sessions.of(context), name, instance, enabled=True, as_json=as_json)


@app.command("disable")
def disable(
    context: typer.Context, name: PluginArgument, instance: InstanceOption = None, as_json: JsonOption = False
) -> None:
    """Keep an instance from taking calls."""
    _switch(sessions.of(context), name, instance, enabled=False, as_json=as_json)


def _switch(session: Session, name: str, instance: str | None, *, enabled: bool, as_json: bool) -> None:
    with session.node() as node:
        node.set_enabled(name, enabled, instance=instance)
    if as_json:
        session.terminal.json({"plugin": name, "instance": instance or name, "enabled": enabled})
    else:
        session.terminal.note(f"{instance or name} is {'enabled' if enabled else 'disabled'}")


@app.command("logs")
def logs(
    context: typer.Context,
    name: PluginArgument,
    count: Annotated[int, option("--lines", "-n", metavar="COUNT", min=1, help="How many lines; 50.")] = 50,
    follow: Annotated[bool, option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    instance: InstanceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the last lines a plugin printed.

    Works also when it does not run.
    """
    session = sessions.of(context)
    if follow and session.target() is not None:
        raise UsageError(
            "--follow reads the file of the log, and that is on another machine",
            code="remote.local_only",
            hint=f"toft plugin logs {name} shows its last lines; toft job events ID --follow goes on",
        )
    with session.node() as node:
        node.installed.get(name)
        lines = node.logs(name, count, instance=instance)
    if as_json and not follow:
        session.terminal.json([shown.log_line(each) for each in lines])
        return
    path = session.settings().home / "logs" / f"{instance or name}.log"
    if not lines and not follow:
        session.terminal.note(f"{instance or name} has printed nothing yet")
    # A follower ends with Ctrl-C, and needs no node meanwhile.
    for line in itertools.chain(lines, following.lines(path) if follow else ()):
        if as_json:
            session.terminal.json_line(shown.log_line(line))
        else:
            session.terminal.line(line)
            session.terminal.out.flush()


@app.command("validate")
def validate(
    context: typer.Context,
    path: Annotated[Path, argument("PATH", "A manifest.json or a plugins.yaml.")],
    form: Annotated[
        str | None, option("--format", metavar="manifest|plugins_yaml", help="By the file's name by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say everything that is wrong with a file."""
    from toft.plugins.manifests import validation  # noqa: PLC0415 - YAML and schemas, which `toft --help` does not pay

    session = sessions.of(context)
    problems = validation.problems(path, form)
    if as_json:
        session.terminal.json({"path": str(path), "ok": not problems, "problems": problems})
    else:
        for each in problems:
            session.terminal.line(each)
        session.terminal.note(f"{path}: {counted(len(problems), 'problem')}")
    if problems:
        raise typer.Exit(failures.FAILED)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value)[:20] if value else "-"
