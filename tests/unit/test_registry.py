import errno
import json
import os

import pytest

from toft.kernel import errors
from toft.plugins.manifests import drift, manifest, manifest_checks, registry, taxonomy
from toft.store import durable


def made(name, **code):
    description = {
        "name": name,
        "version": "1",
        "description": f"The {name} plugin.",
        "module": "m",
        "class": "C",
        "interface": "toft_sdk.Plugin",
        "config_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
        **code,
    }
    return manifest.from_description(description, manifest.Install("/env/bin/python"), manifest.Runtime())


FLAT = {
    "name": "old",
    "version": "1",
    "module": "m",
    "class": "C",
    "interface": "cjm_text_plugin_system.core.TextPlugin",
    "python_path": "/p",
}


class Stop(Exception):
    pass


class StopsAt:
    """Real operations that stop the world before the n-th step."""

    def __init__(self, step):
        self.left = step

    def __getattr__(self, name):
        def act(*arguments):
            self.left -= 1
            if self.left < 0:
                raise Stop
            return getattr(durable.SYSTEM, name)(*arguments)

        return act


def test_what_is_written_is_found_by_name_and_in_the_list(tmp_path):
    plugins = registry.Registry(tmp_path)
    path = plugins.write(made("ocr"))
    assert path == tmp_path / "plugins" / "ocr" / "manifest.json"
    assert plugins.get("ocr") == made("ocr")
    assert [each.name for each in plugins.list()] == ["ocr"]
    assert plugins.remove("ocr")
    assert not plugins.remove("ocr")
    assert plugins.list() == []
    assert list((tmp_path / "plugins").iterdir()) == []


def test_two_plugins_of_one_name_are_refused(tmp_path):
    plugins = registry.Registry(tmp_path)
    plugins.write(made("ocr"), replace=False)
    with pytest.raises(errors.ConflictError, match="already installed"):
        plugins.write(made("ocr", version="2"), replace=False)
    assert plugins.get("ocr").code.version == "1"


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path):
    plugins = registry.Registry(tmp_path)
    plugins.write(made("summarize"))
    with pytest.raises(errors.NotFoundError, match="did you mean summarize"):
        plugins.get("sumarize")


@pytest.mark.parametrize("name", ["../x", "a\nb", "", "/etc/passwd", ".."])
def test_a_name_that_is_no_path_component_touches_no_file(tmp_path, name):
    plugins = registry.Registry(tmp_path / "home")
    for act in (plugins.get, plugins.remove):
        with pytest.raises(errors.UsageError):
            act(name)
    assert not (tmp_path / "home").exists()


def test_bad_files_are_problems_and_hide_nothing(tmp_path):
    plugins = registry.Registry(tmp_path)
    plugins.write(made("good"))
    evil = tmp_path / "plugins" / "evil"
    evil.mkdir()
    (evil / "manifest.json").write_text(json.dumps({**FLAT, "name": "../evil"}))
    torn = tmp_path / "plugins" / "torn"
    torn.mkdir()
    (torn / "manifest.json").write_text("{")
    other = tmp_path / "plugins" / "other"
    other.mkdir()
    (other / "manifest.json").write_bytes(made("good").to_json())
    found = plugins.discover()
    assert [each.manifest.name for each in found.found] == ["good"]
    assert sorted(each.path.parent.name for each in found.problems) == ["evil", "other", "torn"]


def test_the_first_name_wins_project_before_home_before_reference(tmp_path):
    project, old = tmp_path / "project", tmp_path / "old"
    for directory in (project, old):
        directory.mkdir()
        for name in ("both", directory.name):
            (directory / f"{name}.json").write_text(
                json.dumps({**FLAT, "name": name, "version": directory.name})
            )
    home = registry.Registry(tmp_path, search_paths=[project], fallback_paths=[old])
    home.write(made("old"))
    assert {each.manifest.name: each.manifest.code.version for each in home.discover().found} == {
        "both": "project",
        "project": "project",
        "old": "1",
    }
    with pytest.raises(errors.ConflictError, match="does not manage"):
        home.remove("both")


def test_manifests_of_another_user_are_passed_over(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root: only root can give a file away")
    (tmp_path / "x.json").write_text(json.dumps(FLAT))
    os.chown(tmp_path / "x.json", 65534, 65534)
    looked = registry.Registry(tmp_path / "home", search_paths=[tmp_path]).discover()
    assert looked.found == ()
    assert looked.problems[0].reason == "it belongs to another user"


def test_a_write_is_whole_or_not_at_all(tmp_path):
    registry.Registry(tmp_path).write(made("ocr"))
    for step in range(20):
        try:
            registry.Registry(tmp_path, operations=StopsAt(step)).write(made("ocr", version="2"))
        except Stop:
            assert registry.Registry(tmp_path).get("ocr").code.version in ("1", "2")
        else:
            break
    else:
        pytest.fail("never finished")
    assert registry.Registry(tmp_path).get("ocr").code.version == "2"


class FullDisk(durable.SystemOperations):
    def write(self, path, data, mode):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_what_was_there(tmp_path):
    registry.Registry(tmp_path).write(made("ocr"))
    with pytest.raises(errors.UnavailableError, match="No space left"):
        registry.Registry(tmp_path, operations=FullDisk()).write(made("ocr", version="2"))
    assert registry.Registry(tmp_path).get("ocr").code.version == "1"
    assert os.listdir(tmp_path / "plugins" / "ocr") == ["manifest.json"]


def test_an_odd_interface_is_a_warning(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({**FLAT, "interface": "Plain"}))
    (found,) = registry.Registry(tmp_path / "home", search_paths=[tmp_path]).discover().found
    assert found.warnings


def test_validating_a_file_lists_everything(tmp_path):
    file = tmp_path / "m.json"
    file.write_text(json.dumps({**FLAT, "name": "", "module": ""}))
    assert len(registry.validate_file(file, manifest_checks.problems)) == 2
    assert registry.validate_file(tmp_path / "absent", manifest_checks.problems)


MEDIA = {
    "interface": "cjm_media_plugin_system.core.MediaPlugin",
    "taxonomy": {
        "domain": "media_tools",
        "role": "MediaPlugin",
        "interface_fqcn": "cjm_media_plugin_system.core.MediaPlugin",
    },
}


def test_taxonomy_follows_the_interface():
    assert taxonomy.derive("cjm_text_plugin_system.core.TextPlugin") == manifest.Taxonomy(
        "text", "TextPlugin", "cjm_text_plugin_system.core.TextPlugin"
    )
    assert taxonomy.derive("other.X").domain == "other"
    assert taxonomy.derive("X") is None


def test_category_is_override_then_domain_then_what_was_written():
    assert taxonomy.category(made("a", **MEDIA)) == "Media Tools"
    assert taxonomy.category(manifest.parse({**FLAT, "category": "text"})) == "text"
    both = {**FLAT, **MEDIA, "category": "x", "category_override": "Mine"}
    assert taxonomy.category(manifest.parse(both)) == "Mine"
    assert taxonomy.category(made("a")) == ""


def test_plugins_are_selected_by_every_question():
    media, plain = made("a", **MEDIA), made("b", resources={"platforms": ["win-x64"]})
    assert taxonomy.select([media, plain], category="media tools") == [media]
    assert taxonomy.select([media, plain], role="MediaPlugin") == [media]
    assert taxonomy.select([media, plain], domain="media_tools") == [media]
    assert taxonomy.select([media, plain], platform="linux-x64") == [media]
    assert taxonomy.categories([media, plain]) == ["Media Tools"]


def test_the_canonical_plugin_of_a_role_is_the_only_one():
    one, other = made("a", **MEDIA), made("b", **MEDIA)
    assert taxonomy.canonical([one], "MediaPlugin") == one
    assert taxonomy.canonical([one, other], "MediaPlugin") is None
    assert taxonomy.canonical([one], "Nobody") is None


def able(name, action, parameters, output, description=""):
    return made(
        name,
        description=description or name,
        actions={action: {"input": {"parameters": parameters}, "output": output, "description": ""}},
    )


def test_who_can_do_a_task_is_answered_from_signatures(tmp_path):
    plugins = registry.Registry(tmp_path)
    path = {"image": {"type": "string", "x-toft-type": "path"}}
    plugins.write(able("ocr", "execute", path, {"type": "array"}, "Reads text from an image."))
    plugins.write(
        able("search", "query", {"text": {"type": "string"}}, {"type": "object"}, "Finds passages.")
    )
    assert [each.name for each in plugins.find("read text image")] == ["ocr", "search"]
    assert [each.name for each in plugins.find(takes=["image:path"])] == ["ocr"]
    assert [each.name for each in plugins.find(gives="object")] == ["search"]
    assert plugins.find("weld") == []


def test_drift_tells_what_changed():
    recorded = made("a")
    live = {"type": "object", "properties": {"b": {"type": "string"}}}
    found = drift.detect(recorded, live)
    assert found.changes == ("new setting b", "setting a is gone")
    assert drift.detect(recorded, recorded.code.config_schema) is None
    assert drift.detect(recorded, None) is None
    assert drift.detect(manifest.parse(FLAT), live) is None


def test_this_machines_platform_is_called_here():
    here, elsewhere = (
        made("a", resources={"platforms": [taxonomy.platform_word()]}),
        made("b", resources={"platforms": ["plan9-pdp11"]}),
    )
    assert taxonomy.select([here, elsewhere], platform="here") == [here]
