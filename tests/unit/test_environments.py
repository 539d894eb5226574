"""Deciding what a source is, reading locks and resolver messages, choosing versions: nothing is started."""

import zipfile
from pathlib import Path

import pytest

from toft.host.commands import Completed
from toft.kernel import errors
from toft.plugins.environments import (
    checkouts,
    environment_errors,
    lock_texts,
    plugin_classes,
    projects,
    single_files,
    uv_errors,
)
from toft.plugins.environments.interpreters import Wanted
from toft.plugins.environments.projects import Distribution
from toft.plugins.environments.provisioning import Resolution
from toft.plugins.environments.sources import Source
from toft.plugins.environments.tool_environment import scrubbed, trusted
from toft.plugins.environments.wishes import Wish


def project(directory: Path, name: str = "hello") -> Path:
    directory.mkdir(parents=True)
    (directory / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "1"\n')
    return directory


def test_a_source_is_told_by_what_is_there(tmp_path: Path) -> None:
    found = project(tmp_path / "hello", "Hello_There")
    (tmp_path / "plugins.yaml").write_text("plugins: []\n")
    (tmp_path / "a_b-1.0-py3-none-any.whl").write_text("")

    def parse(text: str) -> tuple[str, str | None, tuple[str, ...]]:
        source = Source.parse(text, directory=tmp_path)
        return source.kind, source.name, source.extras

    assert parse("hello") == ("project", "hello-there", ())
    assert parse("./hello/") == ("project", "hello-there", ())
    assert parse(f"{found}[gpu, more]") == ("project", "hello-there", ("gpu", "more"))
    assert parse(f"hello-there @ file://{found}") == ("project", "hello-there", ())
    assert parse("a_b-1.0-py3-none-any.whl") == ("wheel", "a-b", ())
    assert parse("plugins.yaml") == ("plugins_file", None, ())
    assert parse("My_Package[x]>=1") == ("requirement", "my-package", ())
    assert parse("git+https://code.example.org/x@v1") == ("vcs", None, ())
    assert parse("x @ git+https://code.example.org/x@v1") == ("vcs", "x", ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "one line"),
        ("a\nb", "one line"),
        ("./nowhere", "there is no"),
        ("nowhere.whl", "there is no"),
        ("not a requirement", "neither a path nor a requirement"),
        ("requirements.txt", "lists packages"),
        ("empty/", "not a Python project"),
        ("other @ file:{}/hello", "holds hello, not other"),
    ],
)
def test_what_is_no_source_is_refused_with_the_reason(tmp_path: Path, text: str, said: str) -> None:
    project(tmp_path / "hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "requirements.txt").write_text("x\n")
    with pytest.raises(environment_errors.SourceError, match=said):
        Source.parse(text.format(f"//{tmp_path}"), directory=tmp_path)


def test_passwords_are_not_remembered() -> None:
    source = Source.parse("x @ git+https://me:secret@code.example.org/x@v1")
    assert "secret" not in source.text
    assert source.requirement
    assert "secret" in source.requirement
    assert "secret" not in str(Wish(source=source.text).kept(source))


def test_a_wish_comes_back_as_it_was_kept() -> None:
    wish = Wish(source="x==1", python="3.11", requirements=("y",), env_vars={"A": "1"}, offline=True)
    assert Wish.remembered(wish.kept(Source.parse("x==1"))) == wish


def test_a_portable_lock_does_not_tell_where_wheels_lay(tmp_path: Path) -> None:
    wheels = [tmp_path / place / "hello-1.0-py3-none-any.whl" for place in ("a", "b")]
    texts = [
        f"zzz==1 \\\n    --hash=sha256:{'b' * 64} \\\n    --hash=sha256:{'a' * 64}\n"
        f"hello @ {wheel.as_uri()} \\\n    --hash=sha256:{'c' * 64}\n"
        for wheel in wheels
    ]
    one, two = (lock_texts.portable(text, [wheel]) for text, wheel in zip(texts, wheels, strict=True))
    assert one == two
    assert one.splitlines() == [
        f"hello==1.0 --hash=sha256:{'c' * 64}",
        f"zzz==1 --hash=sha256:{'a' * 64} --hash=sha256:{'b' * 64}",
    ]


def test_the_hash_is_over_lock_identity_and_kind() -> None:
    base = {"kind": "uv", "identity": {"path": "/p"}, "lock": "a"}
    changed = ({"kind": "conda"}, {"identity": {"path": "/q"}}, {"lock": "b"})
    hashes = {Resolution(**{**base, **change}).hash for change in ({}, *changed)}  # type: ignore[arg-type]
    assert len(hashes) == 4
    assert all(len(each) == 32 for each in hashes)


@pytest.mark.parametrize(
    ("asked", "requires", "fits", "refused"),
    [
        (None, None, ["3.8.0", "3.13.1"], ["3.7.17", "2.7.18"]),
        ("3.11", None, ["3.11.0", "3.11.7"], ["3.1.1", "3.12.0"]),
        ("python3.9", None, ["3.9.18"], ["3.10.0"]),
        ("3.11.7", None, ["3.11.7"], ["3.11.8"]),
        (">=3.9,<3.12", None, ["3.9.0", "3.11.9"], ["3.8.18", "3.12.0"]),
        (None, "<3.12", ["3.11.0"], ["3.12.0"]),
        ("3.11", ">=3.12", [], ["3.11.5", "3.12.0"]),
    ],
)
def test_a_wanted_python(
    asked: str | None, requires: str | None, fits: list[str], refused: list[str]
) -> None:
    wanted = Wanted(asked, requires)
    assert all(wanted.fits(version) for version in fits)
    assert not any(wanted.fits(version) for version in refused)


def test_a_wanted_python_that_is_none_is_refused() -> None:
    with pytest.raises(errors.UsageError, match="not a Python version"):
        Wanted("snake", None)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "error: No solution found when resolving dependencies\n  cause: Because a==1 depends on b",
            "Unsatisfiable",
        ),
        ("error: x\n  cause: No space left on device (os error 28)", "DiskFull"),
        ("error: Failed to download `a`\n  cause: Hash mismatch for `a==1`", "HashMismatch"),
        ("error: Failed to fetch: https://x.example/simple\n  cause: dns error", "Download"),
        ("oops\nerror: Failed to build `a`\n  cause: The build backend returned an error", "Build"),
        ("error: No solution found\nhint: the network was disabled", "Download"),
        ("error: something else", "Node"),
    ],
)
def test_what_uv_says_becomes_one_typed_error(tmp_path: Path, text: str, kind: str) -> None:
    error = uv_errors.explain(Completed(("uv",), 1, "", text), "installing", tmp_path)
    assert type(error).__name__ == f"{kind}Error"


def test_a_long_reason_is_shortened_and_kept_whole_in_the_details(tmp_path: Path) -> None:
    text = "error: No solution found when resolving dependencies\n  cause: " + "because " * 500
    error = uv_errors.explain(Completed(("uv",), 1, "", text), "resolving", tmp_path)
    assert len(error.message) < 700
    assert error.details["output"] == text.strip()


def test_tools_see_no_tokens() -> None:
    environ = {
        "PATH": "/bin",
        "https_proxy": "p",
        "UV_INDEX_X_PASSWORD": "u",
        "GITHUB_TOKEN": "t",
        "API_KEY": "k",
        "PYTHONPATH": "/x",
        "VIRTUAL_ENV": "/v",
        "UV_PROJECT_ENVIRONMENT": "/e",
    }
    assert set(scrubbed(environ)) == {"PATH", "https_proxy", "UV_INDEX_X_PASSWORD"}


@pytest.mark.parametrize(
    "text",
    [
        "git+ext::sh",
        "git+https://code.example.org/x@--upload-pack=y",
        "git+file:///x#subdirectory=../..",
        "git+-x",
    ],
)
def test_an_address_that_could_be_more_than_an_address_is_refused(text: str) -> None:
    with pytest.raises(environment_errors.SourceError):
        checkouts.Address.parse(text)


def test_an_address_is_taken_apart() -> None:
    found = checkouts.Address.parse("git+ssh://git@code.example.org/a/b.git@v1#subdirectory=c")
    assert found == checkouts.Address("ssh://git@code.example.org/a/b.git", "v1", Path("c"))


def distribution(tmp_path: Path, **files: str) -> Distribution:
    metadata = tmp_path / "x-1.dist-info"
    metadata.mkdir()
    names = []
    for key, text in files.items():
        name = key.replace("__", "/") + ".py"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        names.append(name)
    (metadata / "RECORD").write_text("".join(f"{name},,\n" for name in names) + "../../../bin/x.py,,\n")
    return Distribution("x", "1", metadata)


def classes(found: Distribution) -> list[tuple[str, str | None]]:
    return [(each.module, each.class_name) for each in plugin_classes.find(found)]


def test_classes_are_found_through_modules_aliases_and_bases(tmp_path: Path) -> None:
    found = distribution(
        tmp_path,
        p__init="",
        p__base="import toft_sdk as sdk\nclass Base(sdk.Plugin): ...\n",
        p__one="from .base import Base as B\nclass One(B): ...\nclass Plain: ...\n",
        p__two="from toft_sdk.plugin import Plugin\nclass Two(Plugin): ...\n",
        p__bad="def (:\n",
        tests__three="from toft_sdk import Plugin\nclass Three(Plugin): ...\n",
    )
    assert classes(found) == [("p.one", "One"), ("p.two", "Two")]


def test_declared_classes_win(tmp_path: Path) -> None:
    found = distribution(
        tmp_path, m="from toft_sdk import Plugin\nclass A(Plugin): ...\nclass B(Plugin): ...\n"
    )
    (found.metadata / "entry_points.txt").write_text("[other]\nz = q:Z\n\n[toft.plugins]\nb = m:B\n")
    assert classes(found) == [("m", "B")]
    (found.metadata / "entry_points.txt").write_text("[toft.plugins]\nb = ../m:B\n")
    with pytest.raises(environment_errors.SourceError, match="not module:Class"):
        plugin_classes.find(found)


def test_the_reference_systems_metadata_is_read(tmp_path: Path) -> None:
    told = '{"name": name, "module": "p.q", "class": "C"}'
    text = f'def get_plugin_metadata():\n    name = "a-b"\n    return {told}\n'
    found = plugin_classes.find(distribution(tmp_path, p__meta=text))
    assert found == [plugin_classes.PluginClass("p.q", "C", "a-b")]


def test_metadata_that_computes_its_answer_is_left_to_the_worker(tmp_path: Path) -> None:
    text = "def get_plugin_metadata():\n    return dict(module=compute())\n"
    assert plugin_classes.find(distribution(tmp_path, p__meta=text)) == [plugin_classes.PluginClass("p.meta")]


def test_without_a_plugin_it_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(environment_errors.SourceError, match="no plugin class in m") as caught:
        plugin_classes.find(distribution(tmp_path, m="class A: ...\n"))
    assert "toft_sdk.Plugin" in caught.value.hint


def test_uv_trusts_whom_the_machine_trusts(tmp_path: Path) -> None:
    bundle = tmp_path / "authorities"
    assert trusted([bundle]) == {}
    bundle.touch()
    assert trusted([bundle]) == {"UV_SYSTEM_CERTS": "true"}


BLOCK = """\
# /// script
# requires-python = ">=3.9"
# dependencies = [
#   "greetlib<2",
# ]
# ///
__version__ = "1.2"
from toft_sdk import Plugin
class Hello(Plugin): ...
"""


def test_a_file_becomes_the_same_wheel_every_time(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(BLOCK)
    source = Source.parse("hello.py", directory=tmp_path)
    assert (source.kind, source.name) == ("file", "hello")
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    one, two = (single_files.write_wheel(tmp_path / "hello.py", tmp_path / place) for place in ("a", "b"))
    assert one.name == "hello-1.2-py3-none-any.whl"
    assert one.read_bytes() == two.read_bytes()
    assert projects.requires_python(one) == projects.requires_python(tmp_path / "hello.py") == ">=3.9"
    with zipfile.ZipFile(one) as archive:
        assert "Requires-Dist: greetlib<2\n" in archive.read("hello-1.2.dist-info/METADATA").decode()
        assert archive.read("hello.py").decode() == BLOCK


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("json.py", "", "another module has that name"),
        ("toft_sdk.py", "", "another module has that name"),
        ("my-plugin.py", "", "no name of a module"),
        ("a.py", "# /// script\n# x = [\n# ///\n", "cannot be read"),
        ("a.py", "# /// script\n# x = 1\n", "cannot be read"),
        ("a.py", "# /// script\n# dependencies = 'x'\n# ///\n", "list of texts"),
    ],
)
def test_a_file_that_cannot_be_a_plugin_says_why(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(environment_errors.SourceError, match=said):
        Source.parse(name, directory=tmp_path)


def test_a_file_without_a_block_or_with_newer_syntax_is_still_a_wheel(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("def (:\n")
    assert single_files.write_wheel(tmp_path / "plain.py", tmp_path).name == "plain-0.0.0-py3-none-any.whl"
