"""What an author writes, as a strict type checker must see it; never executed.

A line that has to be refused carries `type: ignore` with its code: unused ignores are errors, so a line that
stops being refused fails as well.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from typing_extensions import assert_type

import toft_sdk
from toft_sdk import (
    CancelledError,
    EnvVar,
    FieldOptions,
    InputError,
    Option,
    Plugin,
    PluginError,
    ResourceError,
    TransientError,
    action,
    option,
    run,
)


class Shout(Plugin):
    """Says it louder."""

    def execute(self, text: str, times: int = 1) -> str:
        return " ".join([text.upper()] * times)


assert_type(Shout().execute("a"), str)
assert_type(Shout().execute(text="a", times=2), str)
Shout().execute(1)  # type: ignore[arg-type]
Shout().execute("a", tmes=2)  # type: ignore[call-arg]


@dataclass
class Settings:
    model: str = option("base", choices=["base", "large"], reload="model")
    beam: int = option(5, minimum=1)
    limit: Optional[int] = option(None, minimum=1)
    words: list[str] = option(factory=list)
    plain: float = 0.5
    listed: list[int] = field(default_factory=list)
    wrong: int = option("text")  # type: ignore[assignment]


class Model(Plugin):
    name = "model"
    version = "1.0"
    Config = Settings
    config: Settings
    environment = [EnvVar("KEY", secret=True), EnvVar("PLACE", default="here", label="where")]
    concurrency = 4
    resources = {"requires_gpu": True}
    examples = [{"action": "count", "arguments": {"until": 2}, "result": [0, 1]}]
    cancel_within_s = 0.5

    def initialize(self) -> None:
        assert_type(self.config.beam, int)
        assert_type(self.config.limit, Optional[int])
        assert_type(self.config.words, list[str])

    def apply_config(self, new: Settings) -> None:
        assert_type(new.model, str)

    def get_config_options(self) -> dict[str, FieldOptions]:
        return {"model": FieldOptions(["base", Option("large", label="Large", metadata={"size": 3})])}

    @action
    def count(self, until: int) -> Iterator[int]:
        yield from range(until)

    @action("say")
    def say_it(self, text: str) -> str:
        return text

    @action("spell", stream=True)
    def spell(self, text: str) -> list[str]:
        return list(text)

    @action("wait")
    async def wait(self, seconds: float) -> None:
        """Nothing."""

    def execute(self, *files: str, **others: Any) -> dict[str, int]:
        self.report_progress(0.5, "half way")
        self.report_usage(tokens=12, seconds=0.5)
        self.check_cancel()
        self.log("page_done", page=3, level="debug")
        forget = self.register_cancel_callback(lambda: None)
        forget()
        with subprocess.Popen(["true"]) as child, self.cancel_signal_to(child):
            child.wait()
        with self.cancel_signal_to(lambda: None):
            pass
        self.report_progress("half")  # type: ignore[arg-type]
        self.cancel_signal_to(3)  # type: ignore[arg-type]
        return {}


assert_type(Model().say_it("a"), str)
assert_type(Model().count(2), Iterator[int])
Model().say_it(3)  # type: ignore[arg-type]
with Model({"beam": 3}) as opened:
    assert_type(opened, Model)


def errors_are_typed(error: PluginError) -> None:
    try:
        raise InputError("no", fields={"text": "is missing"})
    except ValueError:
        pass
    raise TransientError("later", retry_after_s=2)


def more_errors() -> None:
    try:
        raise ResourceError("small", resource="gpu_ram", needed_bytes=3)
    except CancelledError as error:
        assert_type(error.details, dict[str, Any])


if __name__ == "__main__":
    run(Shout)
    toft_sdk.run(Model)
    run(str)  # type: ignore[arg-type]
