"""What the worker may rely on: a plugin class, found, described, configured and called."""

import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import pytest

from toft_sdk import InputError, Plugin, action, context, errors, hosting, option
from toft_sdk.plugin import EnvVar, FieldOptions


@pytest.fixture
def module(request: pytest.FixtureRequest) -> Iterator[types.ModuleType]:
    made = types.ModuleType("toft_sdk_hosting_probe")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def hosted(module: types.ModuleType, kind: type[Any]) -> hosting.Hosted:
    kind.__module__ = module.__name__
    setattr(module, kind.__name__, kind)
    found = hosting.load(module.__name__, kind.__name__)
    assert isinstance(found, hosting.Hosted)
    return found


class Shout(Plugin):
    """Says it louder.

    And more.
    """

    def execute(self, text: str, times: int = 1) -> str:
        return " ".join([text.upper()] * times)


def test_a_simple_class_is_found_described_and_called(module: types.ModuleType) -> None:
    plugin = hosted(module, Shout)
    plugin.initialize({})
    assert plugin.call("execute", {"text": "hi", "times": 2}) == "HI HI"
    assert list(plugin.stream("execute", {"text": "hi"})) == ["HI"]
    described = plugin.describe()
    assert described["name"] == "shout"
    assert described["description"] == "Says it louder."
    assert described["module"] == module.__name__
    assert described["class"] == "Shout"
    assert described["concurrency"] == 1
    assert described["actions"]["execute"] == {
        "input": {
            "parameters": {
                "text": {"type": "string", "kind": "positional_or_keyword"},
                "times": {"type": "integer", "default": 1, "kind": "positional_or_keyword"},
            },
            "required": ["text"],
            "additional": False,
        },
        "output": {"type": "string"},
        "stream": False,
        "description": "",
    }


def test_a_plugin_runs_in_plain_python() -> None:
    assert Shout().execute("hi") == "HI"
    with Shout() as plugin:
        assert plugin.execute(text="hi") == "HI"


def test_the_only_class_of_a_module_needs_no_name(module: types.ModuleType) -> None:
    Shout.__module__ = module.__name__
    module.Shout = Shout  # type: ignore[attr-defined]
    assert hosting.load(module.__name__).describe()["class"] == "Shout"


def test_a_class_that_is_not_there_is_refused_with_what_is(module: types.ModuleType) -> None:
    Shout.__module__ = module.__name__
    module.Shout = Shout  # type: ignore[attr-defined]
    with pytest.raises(errors.FatalError, match="plugin classes there: Shout"):
        hosting.load(module.__name__, "Whisper")


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ({}, {"text": "is missing"}),
        ({"text": "a", "tmes": 2}, {"tmes": "is not an argument; execute takes: text, times"}),
        ({"self": 1, "text": "a"}, {"self": "is not an argument; execute takes: text, times"}),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    module: types.ModuleType, arguments: dict[str, Any], fields: dict[str, str]
) -> None:
    plugin = hosted(module, Shout)
    plugin.initialize()
    with pytest.raises(InputError) as caught:
        plugin.call("execute", arguments)
    assert caught.value.fields == fields
    assert caught.value.blame == "caller"


def test_an_unknown_action_is_refused_with_the_known_ones(module: types.ModuleType) -> None:
    plugin = hosted(module, Shout)
    plugin.initialize()
    with pytest.raises(InputError, match="it has: execute"):
        plugin.call("whisper", {})


@dataclass
class Size:
    width: int
    height: int = 1


class Shapes(Plugin):
    concurrency = None
    environment = (EnvVar("SHAPES_KEY", secret=True, label="key"),)

    @action("area")
    def compute_area(self, size: Size, factor: float = 1.0) -> float:
        return size.width * size.height * factor

    @action
    def lines(self, count: int) -> Iterator[str]:
        for index in range(count):
            yield f"line {index}"

    @action("spread")
    def spread(self, first: int, second: int = 7, /, *rest: int, last: int = 0) -> list[int]:
        return [first, second, *rest, last]

    @action("kind")
    @staticmethod
    def kind_of(path: Path, **others: object) -> list[str]:
        return [type(path).__name__, *sorted(others)]

    @action("wait")
    async def wait(self, value: int) -> int:
        return value


def test_named_actions_stream_spread_and_convert(module: types.ModuleType) -> None:
    plugin = hosted(module, Shapes)
    plugin.initialize()
    assert plugin.concurrency is None
    assert plugin.call("area", {"size": {"width": 3, "height": 2}}) == 6.0
    assert plugin.call("area", {"size": Size(2)}) == 2.0
    assert plugin.call("lines", {"count": 2}) == ["line 0", "line 1"]
    assert next(plugin.stream("lines", {"count": 2})) == "line 0"
    assert plugin.call("spread", {"first": 1}) == [1, 7, 0]
    assert plugin.call("spread", {"first": 1, "rest": [3, 4], "last": 5}) == [1, 7, 3, 4, 5]
    assert plugin.call("kind", {"path": "/tmp", "size": 1}) == [type(Path()).__name__, "size"]
    assert plugin.call("wait", {"value": 4}) == 4


def test_an_argument_that_cannot_be_converted_names_its_field(module: types.ModuleType) -> None:
    plugin = hosted(module, Shapes)
    plugin.initialize()
    with pytest.raises(InputError) as caught:
        plugin.call("area", {"size": {"depth": 3}})
    assert list(caught.value.fields) == ["size"]


def test_actions_of_a_description_say_what_streams(module: types.ModuleType) -> None:
    described = hosted(module, Shapes).describe()
    assert sorted(described["actions"]) == ["area", "kind", "lines", "spread", "wait"]
    lines = described["actions"]["lines"]
    assert lines["stream"] is True
    assert lines["chunk"] == {"type": "string"}
    assert lines["output"] == {"type": "array", "items": {"type": "string"}}
    assert described["actions"]["kind"]["input"]["additional"] is True
    assert described["actions"]["kind"]["input"]["required"] == ["path"]
    assert described["actions"]["spread"]["input"]["parameters"]["first"]["kind"] == "positional_only"
    assert described["worker_env"] == [
        {
            "name": "SHAPES_KEY",
            "secret": True,
            "required": True,
            "default": None,
            "label": "key",
            "description": "",
        }
    ]


class Model(Plugin):
    @dataclass
    class Config:
        model: str = option("base", choices=["base", "large"], reload="model")
        size: int = option(3, minimum=1, reload="model")
        device: str = option("cpu", reload="device")
        note: Optional[str] = None  # noqa: UP045 - what authors on old Pythons write

    config: Config

    def __init__(self) -> None:
        self.happened: list[str] = []

    def initialize(self) -> None:
        self.happened.append(f"initialize {self.config.model}")

    def release_model(self) -> None:
        self.happened.append(f"release_model {self.config.model}")
        raise RuntimeError("stuck")

    def release_device(self) -> None:
        self.happened.append("release_device")

    def get_config_options(self) -> dict[str, FieldOptions]:
        return {"model": FieldOptions(["base"])}

    def execute(self) -> list[str]:
        return self.happened


class Notes(context.Call):
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def log(self, level: str, event: str, fields: Any) -> None:
        self.lines.append((level, event, dict(fields)))


def test_reconfigure_releases_each_changed_trigger_once_and_goes_on(module: types.ModuleType) -> None:
    plugin = hosted(module, Model)
    plugin.initialize({})
    notes = Notes()
    with context.enter(notes):
        plugin.reconfigure({}, {"model": "large", "size": 4, "device": "gpu"})
    assert plugin.call("execute", {}) == [
        "initialize base",
        "release_model base",
        "release_device",
        "initialize large",
    ]
    assert notes.lines == [
        ("warning", "release_failed", {"trigger": "model", "error": "RuntimeError: stuck"})
    ]


def test_reconfigure_with_equal_values_does_nothing(module: types.ModuleType) -> None:
    plugin = hosted(module, Model)
    plugin.initialize({"size": 5})
    plugin.reconfigure({"size": 5}, {"size": 5, "model": "base"})
    assert plugin.call("execute", {}) == ["initialize base"]


def test_a_configuration_that_does_not_fit_names_every_field(module: types.ModuleType) -> None:
    plugin = hosted(module, Model)
    with pytest.raises(InputError) as caught:
        plugin.initialize({"modle": "base", "size": 0, "device": 3, "note": None})
    assert caught.value.fields == {
        "modle": "is unknown; did you mean model?",
        "size": "must be at least 1, not 0",
        "device": "must be a string, not int",
    }


def test_live_options_become_plain_values(module: types.ModuleType) -> None:
    plugin = hosted(module, Model)
    assert plugin.config_options() == {
        "model": {"options": [{"value": "base", "label": "base", "metadata": {}}], "constraints": {}}
    }


def test_a_monitor_question_nobody_answers_is_typed(module: types.ModuleType) -> None:
    with pytest.raises(errors.PluginError) as caught:
        hosted(module, Shout).monitor("status")
    assert caught.value.code == "plugin.not_supported"


def test_a_static_method_has_no_self_to_leave_out(module: types.ModuleType) -> None:
    plugin = hosted(module, Shapes)
    plugin.initialize()
    with pytest.raises(InputError) as caught:
        plugin.call("kind", {"other": 1})
    assert caught.value.fields == {"path": "is missing"}


class Nothing(Plugin):
    """Can do nothing."""


class Twice(Plugin):
    @action("same")
    def one(self) -> None:
        """Do one thing."""

    @action("same")
    def other(self) -> None:
        """Do another."""


class Unending(Plugin):
    async def execute(self):  # type: ignore[no-untyped-def]
        yield 1


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Nothing, "has no execute"), (Twice, "are both the action 'same'"), (Unending, "is an async generator")],
)
def test_a_class_that_cannot_be_called_is_refused_when_it_is_loaded(
    module: types.ModuleType, kind: type[Plugin], said: str
) -> None:
    with pytest.raises(errors.FatalError, match=said) as caught:
        hosted(module, kind)
    assert caught.value.code == "plugin.signature"


class Base(Plugin):
    name = "base"

    @action("say")
    def say(self) -> str:
        return "base"

    def execute(self) -> str:
        return "one"

    def execute_stream(self) -> Iterator[str]:
        yield from "one"


class Leaf(Base):
    def say(self) -> str:
        return "leaf"


def test_a_subclass_keeps_actions_and_the_name_that_was_given(module: types.ModuleType) -> None:
    plugin = hosted(module, Leaf)
    plugin.initialize()
    assert plugin.call("say", {}) == "leaf"
    assert plugin.call("execute", {}) == "one"
    assert list(plugin.stream("execute", {})) == ["o", "n", "e"]
    described = plugin.describe()
    assert described["name"] == "base"
    assert described["actions"]["execute"]["chunk"] == {"type": "string"}
    assert described["actions"]["execute"]["output"] == {"type": "string"}


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"resources": {"gpu": True}}, "resources has no 'gpu'"),
        ({"resources": {"platforms": "linux-x64"}}, "resources\\['platforms'\\] has the wrong type"),
        ({"environment": ["KEY"]}, "environment takes EnvVar"),
        ({"Config": dict}, "Config is no dataclass"),
        ({"concurrency": 0}, "concurrency is a number from 1 up"),
        ({"concurrency": True}, "concurrency is a number from 1 up"),
        ({"main_thread": True, "concurrency": None}, "main_thread needs concurrency = 1"),
    ],
    ids=str,
)
def test_a_wrong_declaration_is_refused_by_name(
    module: types.ModuleType, attributes: dict[str, Any], said: str
) -> None:
    plugin = hosted(module, type("Wrong", (Shout,), attributes))
    with pytest.raises(errors.FatalError, match=said) as caught:
        plugin.describe()
    assert caught.value.code == "plugin.declaration"


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("Shout", "shout"),
        ("SpeechToText", "speech-to-text"),
        ("OCR", "ocr"),
        ("PDFReader2", "pdf-reader2"),
        ("My_Plugin", "my_-plugin"),
    ],
)
def test_a_class_is_called_by_its_words(class_name: str, name: str) -> None:
    assert type(class_name, (Plugin,), {}).name == name  # type: ignore[attr-defined]


def test_what_needs_a_started_plugin_says_so(module: types.ModuleType) -> None:
    plugin = hosted(module, Shout)
    plugin.cleanup()
    with pytest.raises(errors.FatalError, match="not initialized"):
        plugin.call("execute", {"text": "a"})


def test_a_failed_reconfigure_leaves_the_old_configuration(module: types.ModuleType) -> None:
    class Failing(Model):
        def release_device(self) -> None:
            """Release nothing."""

        def apply_config(self, new: Any) -> None:
            raise RuntimeError("no")

    plugin = hosted(module, Failing)
    plugin.initialize({})
    with pytest.raises(RuntimeError):
        plugin.reconfigure({}, {"model": "large"})
    assert plugin._plugin is not None
    assert plugin._plugin.config.model == "base"


def test_a_secret_cannot_have_a_default() -> None:
    with pytest.raises(ValueError, match="cannot have a default"):
        EnvVar("KEY", secret=True, default="x")
    assert not EnvVar("PLACE", default="x").required


class Monitor(Plugin):
    domain = "system"

    def execute(self, first: int = 1, second: int = 2, third: int = 3, /) -> list[int]:
        return [first, second, third]

    def get_system_status(self) -> dict[str, int]:
        return {"free": 1}


def test_positional_only_arguments_that_are_left_out_keep_their_defaults(module: types.ModuleType) -> None:
    plugin = hosted(module, Monitor)
    plugin.initialize()
    assert plugin.call("execute", {"third": 9}) == [1, 2, 9]
    assert plugin.call("execute", {"second": 8}) == [1, 8, 3]
    assert plugin.call("execute", {}) == [1, 2, 3]


def test_a_monitor_answers_what_it_measures(module: types.ModuleType) -> None:
    plugin = hosted(module, Monitor)
    assert plugin.monitor("status") == {"free": 1}
    with pytest.raises(errors.PluginError, match="does not measure processes"):
        plugin.monitor("processes")
    with pytest.raises(errors.PluginError, match="does not measure _kind"):
        plugin.monitor("_kind")


def test_a_declared_domain_makes_a_taxonomy_and_the_package_the_version(module: types.ModuleType) -> None:
    described = hosted(module, Monitor).describe()
    assert described["taxonomy"] == {
        "domain": "system",
        "role": "Monitor",
        "interface_fqcn": described["interface"],
    }
    assert described["version"] == "0.0.0"
    assert "taxonomy" not in hosted(module, Shout).describe()
    kit = hosting.load("toft_sdk.testing", "Conformance")
    assert kit.describe()["version"] == "1"


def test_a_plugin_is_constructed_with_a_configuration_of_either_kind() -> None:
    class Plain(Plugin):
        Config = Model.Config
        config: Model.Config

    assert Plain().config == Model.Config()
    assert Plain({"size": 4}).config == Model.Config(size=4)
    assert Plain(Model.Config(size=5)).config.size == 5
    with pytest.raises(InputError):
        Plain({"sise": 4})
    with pytest.raises(InputError):
        Shout({"size": 4})


def test_a_class_that_is_no_plugin_is_told_apart_from_a_missing_one(module: types.ModuleType) -> None:
    module.Size = Size  # type: ignore[attr-defined]
    with pytest.raises(errors.FatalError, match="Size in .* is no plugin class"):
        hosting.load(module.__name__, "Size")


def test_a_configuration_of_defaults_is_taken_as_it_is_and_anything_else_is_checked(
    module: types.ModuleType,
) -> None:
    plugin = hosted(module, Model)
    plugin.initialize({"model": "base", "size": 3, "device": "cpu", "note": None})
    assert plugin._plugin is not None
    assert plugin._plugin.config == Model.Config()
    with pytest.raises(InputError) as caught:
        plugin.initialize({"model": "base", "size": True, "other": None})
    assert sorted(caught.value.fields) == ["other", "size"]


class Demanding(Plugin):
    @dataclass
    class Config:
        place: str = option()

    config: Config

    def execute(self) -> str:
        return self.config.place


def test_a_required_field_that_is_missing_is_named(module: types.ModuleType) -> None:
    plugin = hosted(module, Demanding)
    with pytest.raises(InputError) as caught:
        plugin.initialize({})
    assert caught.value.fields == {"place": "is missing"}
    plugin.initialize({"place": "here"})
    assert plugin.call("execute", {}) == "here"
