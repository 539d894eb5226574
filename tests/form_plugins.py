"""Two plugins for the pages: one with a setting of every kind, and one in which every text is an attack."""

from __future__ import annotations

from pathlib import Path

from tests.command_line import CommandLine
from tests.sample_packages import write_project

PAINTER = '''
    """Paints."""
    from __future__ import annotations

    import pathlib
    from dataclasses import dataclass, field

    from toft_sdk import EnvVar, Plugin, option
    from toft_sdk.plugin import FieldOptions, Option


    @dataclass
    class Model:
        size: str = option("small", choices=["small", "large"], title="Size")
        threads: int = option(4, minimum=1, maximum=64, title="Threads", reload="model")
        strength: float = option(0.75, above=0, maximum=1, title="Strength")


    @dataclass
    class Settings:
        model: Model = field(default_factory=Model)
        checkpoint: str = option("base", title="Checkpoint", description="Which weights are loaded")
        styles: list[str] = option(factory=lambda: ["ink"], title="Styles")
        words: list[str] = option(factory=lambda: ["night", "rain"], title="Words", description="One a line")
        prefix: str = option("", title="Prefix", max_length=12)
        seed: int | None = option(None, title="Seed", description="Nothing means another one each time")
        tiled: bool = option(False, title="Tiled", description="In pieces, for little memory")
        palette: dict[str, list[int]] = option(factory=lambda: {"sky": [40, 90, 160]}, title="Palette")
        folder: pathlib.Path = option(pathlib.Path("/tmp"), title="Folder")


    class Painter(Plugin):
        """Paints pictures from words, as many as you like."""

        name = "painter"
        Config = Settings
        environment = [
            EnvVar("PAINTER_KEY", secret=True, label="Key", description="Of the gallery", required=False),
            EnvVar("PAINTER_REGION", required=False, label="Region"),
        ]

        def get_config_options(self):
            return {
                "checkpoint": FieldOptions(
                    [Option("base", "Base", {"size": "2 GB"}), Option("xl", "Extra large")]
                ),
                "styles": FieldOptions(["ink", "oil", "chalk"]),
            }

        def execute(self, words: str, count: int = 1) -> list:
            """Paint."""
            found = []
            for index in range(count):
                print(f"painted {words} with {self.config.model.threads} threads")
                self.report_progress((index + 1) / count, f"painted {index + 1}")
                found.append(words)
            return found
'''

ATTACK = (
    "\"><img src=x onerror=alert(1)><script>alert(2)</script>'</textarea></title><b class=pwned>"
    "{{7*7}}\u202egnp\u2066x\x1b[31mred\x07\x9b-->"
)

MEAN = '''
    """Mean."""
    from dataclasses import dataclass

    from toft_sdk import EnvVar, Plugin, option
    from toft_sdk.plugin import FieldOptions, Option

    BAD = ATTACK


    @dataclass
    class Inner:
        leaf: str = option(BAD, title=BAD, description=BAD)


    @dataclass
    class Settings:
        text: str = option(BAD, title="text " + BAD, description=BAD)
        choice: str = option(BAD, choices=[BAD, "other" + BAD], title="choice " + BAD)
        offered: str = option(BAD, title="offered " + BAD)
        lines: list = option(factory=lambda: [BAD], title="lines " + BAD)
        inner: dict = option(factory=lambda: {BAD: BAD}, title="inner " + BAD)
        long: str = option("x\\n" + BAD * 3, title="long " + BAD)


    class Mean(Plugin):
        __doc__ = BAD
        name = "mean"
        Config = Settings
        environment = [EnvVar("MEAN_KEY", secret=True, required=False, label=BAD, description=BAD)]

        def get_config_options(self):
            return {"offered": FieldOptions([Option(BAD, BAD, {BAD: BAD})], {"pattern": BAD})}

        def execute(self, what: str, text: str = BAD):
            __doc__ = BAD
            print(BAD)
            self.report_progress(0.5, BAD)
            if what == "raise":
                raise type(BAD, (ValueError,), {})(BAD)
            return {BAD: [text]}
'''


def install(directory: Path) -> Path:
    """Install both into a home below a directory, and return the home."""
    toft = CommandLine(directory / "home", directory)
    for name, code in (("painter", PAINTER), ("mean", MEAN.replace("ATTACK", repr(ATTACK)))):
        write_project(directory / name, name, {f"{name}.py": code})
        done = toft("plugin", "add", f"./{name}", "--json")
        assert done.status == 0, done.err
    return toft.home
