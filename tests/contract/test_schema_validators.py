"""Three readers of a schema agree: the SDK in the worker, the node for arguments, and a full validator."""

import enum
import typing
from dataclasses import make_dataclass
from typing import Annotated, Any, Literal

import jsonschema_rs
from hypothesis import given, settings
from hypothesis import strategies as st

from toft.plugins.manifests.checks import compile_check
from toft.plugins.manifests.scalars import Misfit
from toft_sdk.conversion import converter
from toft_sdk.options import option
from toft_sdk.schema import type_schema
from toft_sdk.validation import problems


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


limits = st.integers(-3, 3)
leaves = st.one_of(
    st.sampled_from([str, int, float, bool, None, list, dict, Any, Colour, Literal["a", 1], Literal["b"]]),
    limits.map(lambda low: Annotated[int, option(minimum=low)]),
    limits.map(lambda high: Annotated[float, option(below=high)]),
    st.integers(0, 3).map(lambda size: Annotated[str, option(max_length=size)]),
    st.just(Annotated[str, option(pattern="[ab]+")]),
)


def _grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda each: list[each]),  # type: ignore[valid-type]
        inner.map(lambda each: dict[str, each]),  # type: ignore[valid-type]
        inner.map(lambda each: typing.Optional[each]),  # noqa: UP045
        st.tuples(inner, inner).map(lambda each: typing.Union[each]),  # noqa: UP007
        st.tuples(inner, inner).map(lambda each: tuple[each]),  # type: ignore[valid-type]
        inner.map(lambda each: Annotated[list[each], option(max_items=1)]),  # type: ignore[valid-type]
        st.tuples(inner, inner).map(
            lambda each: make_dataclass("Made", [("a", each[0]), ("b", each[1], option(None))])
        ),
    )


annotations = st.recursive(leaves, _grown, max_leaves=4)
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-4, 4),
        # 1.0 is an integer to JSON Schema and none to Python; that is not what is compared here.
        st.floats(-4, 4, allow_nan=False).filter(lambda each: not each.is_integer()),
        st.text("abc", max_size=3),
        st.sampled_from(["red", "a\n", "b"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def fits_the_node(schema: dict[str, Any], value: Any) -> bool:
    try:
        compile_check(schema)(value)
    except Misfit:
        return False
    return True


@settings(max_examples=400, deadline=None)
@given(annotations, values)
def test_the_validators_agree(annotation: Any, value: Any) -> None:
    schema = type_schema(annotation)
    expected = jsonschema_rs.validator_for(schema).is_valid(value)
    assert (not problems(schema, value)) is expected
    assert fits_the_node(schema, value) is expected


@settings(max_examples=200, deadline=None)
@given(annotations, values)
def test_what_fits_can_be_converted(annotation: Any, value: Any) -> None:
    convert = converter(annotation)
    if convert is not None and not problems(type_schema(annotation), value):
        convert(value)
