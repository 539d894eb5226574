"""Plugins of the reference system, hosted by their methods; the fixture package stands in for it."""

import pathlib
import sys
import threading

import pytest

from toft.plugins.manifests import arguments, config, manifest
from toft_sdk import context, errors, hosting

FIXTURE = pathlib.Path(__file__).parents[1] / "fixtures" / "reference_like"
PACKAGES = ("cjm_plugin_system", "cjm_words_plugin_system", "words_plugin")


class Recorded(context.Call):
    def __init__(self):
        self.progresses, self.used, self.callbacks = [], [], []
        self.cancelled = False

    def progress(self, fraction, message):
        self.progresses.append((fraction, message))

    def usage(self, units):
        self.used.append(dict(units))

    def is_cancelled(self):
        return self.cancelled

    def add_cancel_callback(self, callback):
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def cancel(self):
        self.cancelled = True
        for callback in list(self.callbacks):
            callback()


@pytest.fixture
def hosted(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FIXTURE))
    monkeypatch.setenv("TOFT_DATA_DIR", str(tmp_path / "data"))
    for name in (
        "CJM_DATA_DIR",
        "CJM_PLUGIN_DATA_DIR",
        "CJM_CAPABILITY_DATA_DIR",
        "WORDS_DATA",
        "WORDS_HOME",
    ):
        # Set and taken away again, so that what the code under test sets is undone.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield hosting.load("words_plugin.meta")
    for name in [each for each in sys.modules if each.split(".")[0] in PACKAGES]:
        del sys.modules[name]


@pytest.fixture
def ready(hosted):
    hosted.initialize({"model": "small"})
    return hosted


def run(hosted, arguments, action="execute"):
    call = Recorded()
    with context.enter(call):
        return hosted.call(action, arguments), call


def test_a_class_is_found_by_its_packages_metadata_and_described(hosted):
    described = hosted.describe()
    assert described["module"] == "words_plugin.plugin"
    assert described["class"] == "Words"
    assert described["interface"] == "cjm_words_plugin_system.core.WordsPlugin"
    assert described["taxonomy"]["domain"] == "words"
    assert described["hosting"] == "reference"
    assert set(described["actions"]) == {"execute", "marked"}
    assert described["actions"]["execute"]["stream"]
    assert described["worker_env"][0]["default"] is None
    made = manifest.from_description(described, manifest.Install("/p"), manifest.Runtime())
    assert manifest.parse(made.to_dict()) == made


def test_types_the_reference_does_not_know_are_mended_from_the_dataclass(hosted):
    described = hosted.describe()
    given = {"weights": {"a": 1.0}, "label": None}
    merged = config.validate(described["config_schema"], given, described["config_defaults"])
    assert merged == {"model": "small", "weights": {"a": 1.0}, "label": None}
    with pytest.raises(errors.InputError):
        config.validate(described["config_schema"], {"modle": "x", "model": 3}, described["config_defaults"])


def test_a_schema_does_not_depend_on_where_the_data_is(hosted, tmp_path):
    assert str(tmp_path) not in repr(hosted.describe())


def test_directories_and_variables_are_there_before_the_import(hosted, tmp_path):
    module = sys.modules["words_plugin.plugin"]
    assert str(tmp_path / "data" / "words") == module.DATA_AT_IMPORT
    assert module.os.environ["WORDS_HOME"] == str(tmp_path / "data" / "words" / "home")
    assert "WORDS_KEY" not in module.os.environ


def test_a_result_has_plain_dictionaries_and_times_as_text(ready):
    result, _ = run(ready, {"source": pathlib.Path("/a/b"), "loud": True})
    assert result == {
        "spans": [{"text": "a", "at": "2026-01-02T03:04:05"}],
        "source": "/a/b",
        "rest": (),
        "options": {"loud": True},
    }


def test_progress_and_usage_reach_the_call(ready):
    _, call = run(ready, {})
    assert call.progresses == [(0.5, "half"), (0.75, "half")]
    assert call.used == [{"words": 2.0}, {"words": 3.0}]


@pytest.mark.parametrize(
    ("kind", "expected", "fields"),
    [
        ("input", errors.InputError, {"details": {"fields": {"source": ""}}}),
        ("transient", errors.TransientError, {"retry_after_s": 3.0}),
        (
            "resource",
            errors.ResourceError,
            {"details": {"resource": "gpu_ram", "needed_bytes": 4 << 20, "available_bytes": 1 << 20}},
        ),
        ("fatal", errors.FatalError, {}),
    ],
)
def test_errors_are_typed_by_name_with_their_fields(ready, kind, expected, fields):
    with pytest.raises(expected) as caught:
        run(ready, {"action": "fail", "kind": kind})
    assert type(caught.value) is expected
    for name, value in fields.items():
        assert getattr(caught.value, name) == value
    assert caught.value.__cause__ is not None


def test_a_bare_exception_comes_through_as_it_is(ready):
    with pytest.raises(KeyError):
        run(ready, {"action": "fail", "kind": "bare"})


def test_a_cancel_is_of_one_call_and_ends_as_cancelled(ready):
    call = Recorded()
    ended = []

    def work():
        with context.enter(call):
            try:
                ended.append(ready.call("execute", {"action": "wait"}))
            except errors.CancelledError as error:
                ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert ready._plugin.started.wait(20)
    call.cancel()
    thread.join(20)
    assert isinstance(ended[0], errors.CancelledError)
    assert call.callbacks == []
    assert run(ready, {})[0]["spans"]


def test_a_new_call_cannot_clear_a_cancel_that_came_before_it(ready):
    call = Recorded()
    call.cancelled = True
    with context.enter(call):
        ready.call("execute", {})
        ready._plugin._cancel_requested = False
        with pytest.raises(errors.CancelledError):
            list(ready.stream("execute", {}))


def test_a_callback_that_comes_after_the_cancel_is_called_at_once(ready):
    call = Recorded()
    call.cancelled = True
    with context.enter(call), pytest.raises(errors.CancelledError):
        ready.call("execute", {"action": "wait"})


def test_a_stream_yields_its_chunks_and_typed_errors(ready):
    assert [each["text"] for each in ready.stream("execute", {})] == ["0", "1", "2"]


def test_marked_actions_are_dispatched_by_execute(ready):
    assert run(ready, {}, "marked")[0] == "marked"
    with pytest.raises(errors.InputError, match="no action"):
        run(ready, {}, "absent")


def test_hooks_configuration_and_options(ready):
    ready.reconfigure({"model": "small"}, {"model": "large"})
    ready.disable()
    ready.enable()
    ready.prefetch()
    ready.cleanup()
    assert ready._plugin.events == [
        ("initialize", {"model": "small"}),
        ("reconfigure", {"model": "small"}, {"model": "large"}),
        "disabled",
    ]
    assert ready.config_options() == {"model": {"options": [{"value": "small", "label": "Small"}]}}


def test_a_monitor_that_only_answers_questions_is_asked_by_name(ready):
    assert ready.monitor("status") == {"cpu_percent": 1.0}
    with pytest.raises(errors.PluginError, match="does not measure"):
        ready.monitor("processes")


class Bare:
    """Has the methods and no base class."""

    released: list = []

    def initialize(self, config=None):
        self.config = config

    def execute(self, *args, **kwargs):
        return [list(args), kwargs]

    def get_config_schema(self):
        return None

    def get_current_config(self):
        return self.config

    def _release_model(self):
        self.released.append("model")


def test_a_class_with_the_methods_alone_is_hosted(hosted):
    words = sys.modules["words_plugin.plugin"]
    Bare.config_class = words.WordsConfig
    from toft_sdk.reference import ReferenceHosted  # noqa: PLC0415 - after the fixture's path is set

    bare = ReferenceHosted(Bare, __name__)
    bare.initialize({"model": "a"})
    assert bare.call("execute", {"args": [1], "x": 2}) == [[1], {"x": 2}]
    assert list(bare.stream("execute", {})) == [[[], {}]]
    bare.reconfigure({"model": "a"}, {"model": "b"})
    assert Bare.released == ["model"]
    assert bare._plugin.config == {"model": "b"}
    bare.prefetch()


class Clip:
    def to_temp_file(self):
        return "/tmp/clip.wav"


def test_the_host_turns_file_backed_arguments_and_paths_into_text(hosted):
    binder = arguments.Binder(hosted.describe()["actions"]["execute"]["input"])
    assert binder.bind({"source": Clip(), "other": Clip()}) == {
        "source": "/tmp/clip.wav",
        "other": "/tmp/clip.wav",
    }
    assert binder.bind({"action": "x", "source": pathlib.Path("/a")})["source"] == "/a"
    with pytest.raises(errors.InputError):
        binder.bind({"action": 3})


class Dispatching(Bare):
    def execute(self, action: str = "count", **kwargs):
        if action == "count":
            return self.count(kwargs["text"])
        if action in ("shout", "never mind"):
            return self._shout(**kwargs)
        raise ValueError(action)

    def count(self, text: str) -> int:
        """Count words."""
        return len(text.split())

    def _shout(self, text, *, times: int = 1):
        return text.upper() * times


def test_actions_nobody_marked_are_found_in_the_body_of_execute(hosted):
    from toft_sdk.reference import ReferenceHosted  # noqa: PLC0415 - after the fixture's path is set

    plugin = ReferenceHosted(Dispatching, __name__)
    actions = plugin.describe()["actions"]
    assert set(actions) == {"execute", "count", "shout"}
    assert actions["count"]["input"]["parameters"]["text"]["type"] == "string"
    assert actions["count"]["description"] == "Count words."
    assert set(actions["shout"]["input"]["parameters"]) == {"text", "times"}
    plugin.initialize({})
    assert plugin.call("count", {"text": "a b"}) == 2
    assert plugin.call("shout", {"text": "a", "times": 2}) == "AA"
