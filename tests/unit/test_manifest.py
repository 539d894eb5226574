import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toft.plugins.manifests import manifest, manifest_checks

NESTED = {
    "format_version": "2.0",
    "install": {
        "python_path": "/env/bin/python",
        "conda_env": "media",
        "db_path": "/data/jobs.db",
        "env_vars": {"MODE": "fast"},
        "installed_at": "2026-01-02T03:04:05Z",
        "installer_version": "0.0.34",
        "package_source": "media==1",
        "unknown": [1],
    },
    "code": {
        "name": "media-tool",
        "version": "1.2",
        "description": "Cuts clips.",
        "module": "media.plugin",
        "class": "Media",
        "interface": "cjm_media_plugin_system.core.MediaPlugin",
        "taxonomy": {
            "domain": "media",
            "role": "MediaPlugin",
            "interface_fqcn": "cjm_media_plugin_system.core.MediaPlugin",
        },
        "resources": {"requires_gpu": False, "platforms": ["linux-x64"], "accelerators": [], "min_ram": 3},
        "config_schema": {"type": "object", "properties": {"fast": {"type": "boolean"}}},
        "worker_env": [{"name": "API_KEY", "secret": True}],
    },
    "drift_tracking": {"config_schema_hash": "sha256:00"},
    "overrides": {"note": "kept"},
    "later_section": {"kept": True},
}
FLAT = {
    "name": "old-tool",
    "version": "0.1",
    "description": "Old.",
    "module": "old.plugin",
    "class": "Old",
    "interface": "old.core.OldPlugin",
    "category": "media",
    "category_override": "Fine media",
    "python_path": "/env/bin/python",
    "env_vars": {"A": "1"},
    "config_schema": {"type": "object"},
}


def test_format_2_round_trips_with_what_this_version_does_not_know():
    written = manifest.parse(NESTED).to_dict()
    toft = written.pop("toft")
    assert toft["hosting"] == "reference"
    assert written == NESTED


def test_the_flat_format_is_read_and_written_as_2():
    old = manifest.parse(FLAT)
    assert (old.format_version, old.config_schema_hash, old.code.category) == ("1.0", None, "media")
    assert old.runtime.hosting == "reference"
    written = old.to_dict()
    assert written["format_version"] == "2.0"
    assert written["install"]["env_vars"] == {"A": "1"}
    assert written["overrides"] == {"category": "Fine media"}
    assert manifest.parse(written).code == old.code


@pytest.mark.parametrize("version", ["1.0", "3.0", 2.0, None])
def test_another_format_version_is_an_error(version):
    with pytest.raises(manifest.ManifestError, match="format_version"):
        manifest.parse({**NESTED, "format_version": version})


@pytest.mark.parametrize(
    "name", ["../evil", "a/b", "a\n", "a\nb", "", ".", "..", "A", "-a", "a" * 65, "a\0", "é", "a b", None, 3]
)
def test_a_name_that_is_no_path_component_is_refused(name):
    for data in (
        {**NESTED, "code": {**NESTED["code"], "name": name}},
        {**FLAT, "name": name},
    ):
        with pytest.raises(manifest.ManifestError) as caught:
            manifest.parse(data)
        assert any("name" in each for each in caught.value.details["problems"])


@pytest.mark.parametrize("module", ["os; import x", "a..b", "../x", "a\n", "a.b ", ".a"])
def test_a_module_that_cannot_be_imported_is_refused(module):
    with pytest.raises(manifest.ManifestError, match="module"):
        manifest.parse({**FLAT, "module": module})


def test_every_problem_is_collected():
    broken = {
        "format_version": "2.0",
        "install": {"python_path": "", "env_vars": {"A B": "1", "OK": 2}},
        "code": {
            "name": "x",
            "version": 3,
            "module": "m",
            "class": "C",
            "interface": "a.B",
            "taxonomy": {"domain": "d", "role": "r", "interface_fqcn": "other.B"},
            "resources": {"requires_gpu": "no", "platforms": "linux"},
            "config_schema": {"properties": []},
            "worker_env": [{"name": "1"}],
        },
        "drift_tracking": {"config_schema_hash": 3},
        "overrides": [],
        "toft": {"concurrency": 0, "environment": "../x"},
    }
    found = "\n".join(manifest_checks.problems(broken))
    for word in (
        "install.python_path",
        "'A B'",
        "env_vars.OK",
        "code.version",
        "code.description",
        "interface_fqcn",
        "requires_gpu",
        "platforms",
        "config_schema.properties",
        "worker_env[0]",
        "config_schema_hash",
        "overrides",
        "toft.concurrency",
        "toft.environment",
    ):
        assert word in found


@pytest.mark.parametrize("data", [None, 3, "x", [], {}, {"format_version": "2.0"}, {"format_version": []}])
def test_what_is_no_manifest_at_all_is_a_problem_not_a_crash(data):
    assert manifest_checks.problems(data)


def test_an_interface_without_a_module_only_warns():
    assert manifest.parse({**FLAT, "interface": "Old"}).code.interface == "Old"
    assert manifest_checks.warnings({**FLAT, "interface": "Old"})
    assert not manifest_checks.warnings(NESTED)


def test_a_manifest_is_made_from_what_a_worker_says():
    description = {
        "name": "ocr",
        "version": "1",
        "description": "",
        "module": "ocr",
        "class": "Ocr",
        "resources": {"requires_gpu": True},
        "config_schema": {"type": "object", "properties": {}},
        "config_defaults": {"dpi": 150},
        "worker_env": [],
        "actions": {"execute": {"input": {}, "output": {}, "stream": False}},
        "main_thread": False,
        "concurrency": None,
        "fork_safe": True,
        "taxonomy": None,
    }
    install = manifest.Install(python_path="/p")
    made = manifest.from_description(
        description, install, manifest.Runtime(environment="abc", source="./ocr")
    )
    assert made.runtime.actions == description["actions"]
    assert made.runtime.fork_safe
    assert (made.runtime.environment, made.runtime.source) == ("abc", "./ocr")
    assert made.code.description == "ocr"
    assert made.config_schema_hash == manifest.schema_hash(description["config_schema"])
    assert manifest.parse(json.loads(made.to_json())) == made


def test_regeneration_rewrites_the_code_and_keeps_the_rest():
    old = replace(manifest.parse(NESTED), format_version="1.0")
    description = {
        "name": "ignored",
        "version": "2",
        "description": "New.",
        "module": "media.plugin",
        "class": "Media",
        "interface": "a.B",
        "config_schema": {"type": "object"},
    }
    new = manifest.regenerated(old, description, at="2026-02-02T00:00:00Z")
    assert (new.name, new.code.version, new.code.regenerated_at) == (
        "media-tool",
        "2",
        "2026-02-02T00:00:00Z",
    )
    assert new.install == old.install
    assert new.overrides == {"note": "kept"}
    assert new.extra == {"later_section": {"kept": True}}
    assert new.to_dict()["format_version"] == "2.0"


def test_reading_is_bounded(tmp_path):
    file = tmp_path / "manifest.json"
    with pytest.raises(manifest.ManifestError, match="cannot be read"):
        manifest.read(file)
    file.write_text("{")
    with pytest.raises(manifest.ManifestError, match="not JSON"):
        manifest.read(file)
    file.write_text("[" * 100_000)
    with pytest.raises(manifest.ManifestError):
        manifest.read(file)
    with file.open("wb") as big:
        big.truncate(manifest.MAX_BYTES + 1)
    with pytest.raises(manifest.ManifestError, match="larger"):
        manifest.read(file)


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=20,
)
KEYS = st.sampled_from(
    [("install", each) for each in NESTED["install"]] + [("code", each) for each in NESTED["code"]]
)


@given(st.one_of(JSON, st.builds(lambda pair, value: (pair, value), KEYS, JSON)))
def test_no_json_is_more_than_a_problem(data):
    if isinstance(data, tuple):
        (section, name), value = data
        data = {**NESTED, section: {**NESTED[section], name: value}}
    try:
        parsed = manifest.parse(data)
    except manifest.ManifestError as error:
        caught = error.details["problems"]
        assert caught
    else:
        assert manifest.parse(json.loads(parsed.to_json())) == parsed


def test_hashes_are_those_of_the_reference():
    assert manifest.schema_hash(None) == (
        "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
    assert manifest.schema_hash({"b": 1, "a": "é"}) == (
        "sha256:6d9eb45284090145dc16661b06abe01185a16a7dabba07c992a131bffa6b8114"
    )
