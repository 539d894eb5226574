"""What an annotation means, however it was written: an object, a text, newer syntax than this Python's."""

from __future__ import annotations

import ast
import builtins
import sys
import typing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping


class _Unknown:
    """Stands for an annotation nobody can make sense of here; it puts no constraint on a value."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()

# What evaluating somebody's annotation can end in; only its meaning is asked, so none is an error.
_UNREADABLE = (NameError, TypeError, AttributeError, SyntaxError, ValueError, KeyError, ImportError)
_GENERIC_SINCE_39 = {
    "list": "List",
    "dict": "Dict",
    "tuple": "Tuple",
    "set": "Set",
    "frozenset": "FrozenSet",
    "type": "Type",
}


class _Carrier:
    """Has one annotation and nothing else, so that an unreadable one does not take others with it."""

    def __init__(self, annotation: Any) -> None:
        self.__annotations__ = {"it": annotation}


def of_function(function: Any, owner: type[Any] | None = None) -> dict[str, Any]:
    """Return the resolved annotations of a function; `return` is among them when it was given.

    Args:
        function: A plain function, not wrapped and not bound.
        owner: The class it was found in, whose names its annotations may use.
    """
    annotations = getattr(function, "__annotations__", None) or {}
    names: Mapping[str, Any] = getattr(function, "__globals__", {})
    local = dict(vars(owner)) if owner is not None else {}
    return {name: resolve(annotation, names, local) for name, annotation in annotations.items()}


def of_class(kind: type[Any]) -> dict[str, Any]:
    """Return the resolved annotations of a class and its bases, each in the module it was written in."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        names = vars(sys.modules.get(base.__module__, builtins))
        for name, annotation in _own(base).items():
            found[name] = resolve(annotation, names, dict(vars(base)))
    return found


def _own(kind: type[Any]) -> dict[str, Any]:
    # Before 3.10 the attribute is inherited; after 3.13 it is no longer in the class's dictionary.
    if sys.version_info >= (3, 10):
        return getattr(kind, "__annotations__", None) or {}
    return kind.__dict__.get("__annotations__") or {}


def resolve(annotation: Any, names: Mapping[str, Any], local: Mapping[str, Any]) -> Any:
    """Return what an annotation means, or `UNKNOWN`."""
    space, inner = dict(names), dict(local)
    try:
        return _hint(annotation, space, inner)
    except _UNREADABLE:
        pass
    if not isinstance(annotation, str):
        return UNKNOWN
    try:
        return _hint(_evaluate_old(annotation, {**space, **inner}), space, inner)
    except _UNREADABLE:
        return UNKNOWN


def _hint(annotation: Any, names: dict[str, Any], local: dict[str, Any]) -> Any:
    options = {"include_extras": True} if sys.version_info >= (3, 9) else {}
    return typing.get_type_hints(_Carrier(annotation), names, local, **options)["it"]


def _evaluate_old(text: str, names: dict[str, Any]) -> Any:
    """Evaluate `int | None` and `list[str]` on a Python that has neither."""
    tree = _Modern().visit(ast.parse(text.strip(), mode="eval"))
    code = compile(ast.fix_missing_locations(tree), "<annotation>", "eval")
    return eval(code, {**names, "__toft_typing": typing})


class _Modern(ast.NodeTransformer):
    """Writes new annotation syntax in the words of `typing`."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.BitOr):
            return node
        pair = ast.Tuple(elts=[node.left, node.right], ctx=ast.Load())
        inside: Any = pair if sys.version_info >= (3, 9) else ast.Index(value=pair)  # type: ignore[call-arg,unused-ignore]
        return ast.Subscript(value=_typing("Union"), slice=inside, ctx=ast.Load())

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id in _GENERIC_SINCE_39:
            node.value = _typing(_GENERIC_SINCE_39[node.value.id])
        return node


def _typing(name: str) -> ast.Attribute:
    return ast.Attribute(value=ast.Name(id="__toft_typing", ctx=ast.Load()), attr=name, ctx=ast.Load())
