import pytest

from toft.plugins.manifests import plugins_yaml

GOOD = """
plugins:
  - name: media-ffmpeg
    env_name: cjm-media-ffmpeg
    python_version: "3.12"
    package: cjm-media-plugin-ffmpeg==0.0.6
    interface_libs: [cjm-plugin-system==0.0.34]
    requirements: [imageio-ffmpeg==0.6.0]
    env_vars: {MODE: fast, LEVEL: 3}
    typ: media
  - name: local
    env_name: local
    env_file: ./environment.yml
    package: -e ../local
  - name: hub
    env_name: hub
    python_version: 3.10
    package: git+https://example.invalid/x.git
"""


def write(tmp_path, text):
    path = tmp_path / "plugins.yaml"
    path.write_text(text)
    return path


def test_a_list_is_read_with_paths_relative_to_the_file(tmp_path):
    found = plugins_yaml.read(write(tmp_path, GOOD))
    media, local, hub = found.plugins
    assert media.interface_libs == ("cjm-plugin-system==0.0.34",)
    assert media.package == "cjm-media-plugin-ffmpeg==0.0.6"
    assert media.requirements == ("imageio-ffmpeg==0.6.0",)
    assert media.env_vars == {"MODE": "fast", "LEVEL": "3"}
    assert local.env_file == str(tmp_path / "environment.yml")
    assert local.package == str(tmp_path.parent / "local")
    assert local.is_editable
    assert hub.python_version == "3.10"
    assert hub.package == "git+https://example.invalid/x.git"


@pytest.mark.parametrize(
    ("package", "libs", "own"),
    [
        ("lib==1 plugin==2", ("lib==1",), "plugin==2"),
        ("plugin >= 2", (), "plugin >= 2"),
        ("plugin[a, b]>=2; python_version > '3.8'", (), "plugin[a, b]>=2; python_version > '3.8'"),
        ("plugin @ git+https://example.invalid/x", (), "plugin @ git+https://example.invalid/x"),
    ],
)
def test_several_packages_in_one_text_are_taken_apart(tmp_path, package, libs, own):
    text = f'plugins: [{{name: a, env_name: a, python_version: "3.12", package: "{package}"}}]'
    (found,) = plugins_yaml.read(write(tmp_path, text)).plugins
    assert (found.interface_libs, found.package) == (libs, own)


def test_what_is_not_used_is_said(tmp_path):
    notes = plugins_yaml.read(write(tmp_path, GOOD + "extra: 1\n")).notes
    assert any("typ is not used" in each for each in notes)
    assert any("installed as a copy" in each for each in notes)
    assert "extra is not used" in notes


def test_a_configuration_in_the_list_is_not_passed_over_in_silence(tmp_path):
    text = (
        'plugins: [{name: a, env_name: a, python_version: "3.12", package: p, config: {x: 1}, enabled: no}]'
    )
    notes = plugins_yaml.read(write(tmp_path, text)).notes
    assert notes == ("a: config is not used", "a: enabled is not used")


def test_two_plugins_of_one_name_are_refused_with_everything_else_that_is_wrong(tmp_path):
    text = """
plugins:
  - {name: a, env_name: e, package: p, python_version: "3.12"}
  - {name: a, env_name: e, package: --index-url=x, python_version: twelve}
  - {name: ../b, env_name: "x y", interface_libs: p}
  - 3
"""
    with pytest.raises(plugins_yaml.PluginsFileError) as caught:
        plugins_yaml.read(write(tmp_path, text))
    problems = "\n".join(caught.value.details["problems"])
    for words in (
        "plugins[1].name 'a' is taken by plugins[0]",
        "plugins[1].package '--index-url=x' would be read as an option",
        "plugins[1].python_version is not a version",
        "plugins[2].name '../b'",
        "plugins[2].env_name 'x y'",
        "plugins[2].package is required",
        "plugins[2] needs env_file or python_version",
        "plugins[2].interface_libs must be a list",
        "plugins[3] must be an object",
    ):
        assert words in problems


@pytest.mark.parametrize(
    "text", ["", "3", "plugins: x", "a: [", "plugins: &a [*a]", "!!python/object:os.system {}"]
)
def test_what_is_no_list_of_plugins_is_an_error_not_a_crash(tmp_path, text):
    with pytest.raises(plugins_yaml.PluginsFileError):
        plugins_yaml.read(write(tmp_path, text))


def test_aliases_that_unfold_without_end_cost_nothing(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 12)]
    lines.append(
        "plugins: [{name: *a11, env_name: *a11, package: *a11, python_version: *a11, env_vars: *a11}]"
    )
    with pytest.raises(plugins_yaml.PluginsFileError) as caught:
        plugins_yaml.read(write(tmp_path, "\n".join(lines)))
    assert len(str(caught.value)) < 2000


def test_a_file_that_is_not_there_or_too_big_is_an_error(tmp_path):
    with pytest.raises(plugins_yaml.PluginsFileError, match="cannot be read"):
        plugins_yaml.read(tmp_path / "absent.yaml")
    with pytest.raises(plugins_yaml.PluginsFileError, match="larger"):
        plugins_yaml.read(write(tmp_path, "#" * (plugins_yaml.MAX_BYTES + 1)))
