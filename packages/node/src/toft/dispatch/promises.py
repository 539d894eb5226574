"""Whether the steps of a graph fit their plugins, and what each step gives fits where it is used.

Nothing has run yet: what a step will give is known as far as its recorded schema says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from toft.jobs import graphs, references
from toft.jobs.references import Item, Ref
from toft.kernel import errors
from toft.plugins.manifests import unseen
from toft.plugins.plugin_errors import PluginError

Schema = Mapping[str, Any] | None


class Binds(Protocol):
    """Checks the arguments of one action."""

    def bind(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what would be sent, or raise `InputError`."""
        ...


class Accepts(Protocol):
    """What this asks of whoever knows what is installed."""

    async def binder(self, plugin: str, instance: str, action: str | None) -> Binds:
        """Return what checks the arguments of an action of an enabled instance."""
        ...

    async def output(self, plugin: str, instance: str, action: str | None) -> Schema:
        """Return the recorded schema of what an action returns."""
        ...


async def check(graph: graphs.Graph, accepts: Accepts) -> None:
    """Refuse a graph of which a step does not fit; the step is named.

    Raises:
        GraphError: With the code of what is wrong, and all arguments of that step that do not fit.
    """
    outputs: dict[str, Schema] = {}
    for step in graph.steps:
        try:
            binder = await accepts.binder(step.plugin, step.instance or step.plugin, step.action)
            item = _item(step, outputs)
            binder.bind(
                {name: _promised(step, value, outputs, item) for name, value in step.arguments.items()}
            )
            output = await accepts.output(step.plugin, step.instance or step.plugin, step.action)
        except (errors.NodeError, PluginError) as error:
            raise _named(step, error) from error
        if step.is_fan_out:
            output = {"type": "array", "items": output or {}, "$defs": (output or {}).get("$defs", {})}
        outputs[step.id] = output


def _named(step: graphs.Step, error: errors.NodeError | PluginError) -> graphs.GraphError:
    if isinstance(error, graphs.GraphError):
        return error
    told = error.to_dict()
    details = {"plugin": step.plugin, **(told.get("details") or {}), "step": step.id}
    return graphs.GraphError(
        f"step {step.id}: {told['message']}",
        code=told["code"],
        details=details,
        hint=str(told.get("hint") or ""),
    )


def _promised(step: graphs.Step, value: Any, outputs: Mapping[str, Schema], item: unseen.Promised) -> Any:
    def by(ref: Ref | Item) -> unseen.Promised:
        if isinstance(ref, Ref):
            return _part(step.id, ref.path, outputs[ref.step], f"what step {ref.step} gives", ref)
        return _part(step.id, ref.path, item.schema, item.what, ref, item.root)

    return references.replace(value, by)


def _part(
    step: str,
    path: references.Path,
    schema: Schema,
    what: str,
    ref: Ref | Item,
    root: Mapping[str, Any] | None = None,
) -> unseen.Promised:
    root = schema or {} if root is None else root
    try:
        found = unseen.part(schema, path, root)
    except unseen.NoSuchPart as missing:
        came = references.shown(path[: missing.at])
        raise graphs.refuse(
            f"{what} has nothing at {references.shown(path)}: {came} {missing.reason}",
            code="graph.reference",
            step=step,
            reference=ref.to_json(),
        ) from None
    return unseen.Promised(found, root, f"{what} at {references.shown(path)}" if path else what)


def _item(step: graphs.Step, outputs: Mapping[str, Schema]) -> unseen.Promised:
    nothing = unseen.Promised(None, {}, "an item")
    source = references.read(step.for_each) if isinstance(step.for_each, Mapping) else None
    if not isinstance(source, Ref):
        return nothing
    listed = _part(step.id, source.path, outputs[source.step], f"what step {source.step} gives", source)
    kinds = listed.kinds()
    if kinds and "array" not in kinds:
        raise graphs.refuse(
            f"for_each takes a list, and {listed.what} is {' or '.join(sorted(kinds))}",
            code="graph.reference",
            step=step.id,
            reference=source.to_json(),
        )
    items = listed.schema.get("items") if listed.schema is not None else None
    return unseen.Promised(items if isinstance(items, Mapping) else None, listed.root, "an item")
