import json
from pathlib import Path

import pytest

from toft.kernel import authored
from toft.kernel.errors import UsageError
from toft.managed import document

WHEEL = {"version": "1.0", "filename": "ocr-1.0-py3-none-any.whl", "sha256": "ab" * 32, "size_bytes": 1000}
TOML = b"""
schema_version = 1
[control]
urls = ["https://central.example.org"]
poll_interval_s = 40
[settings]
lanes = 2
[instances.ocr]
config = { language = "de" }
"""
YAML = b"""
instances: {ocr: {config: {language: de}}}
settings: {lanes: 2}
control:
  poll_interval_s: 40
  urls: [https://central.example.org]
schema_version: 1
"""

BOMB = b"a: &a [x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (each, each, b",".join([b"*%c" % (each - 1)] * 10)) for each in b"bcdefgh"
)


def _places(text: object, name: str = "node.json") -> list[tuple[str, str]]:
    data = text if isinstance(text, bytes) else json.dumps(text).encode()
    with pytest.raises(document.DocumentError) as caught:
        document.author(data, name)
    return [(each["path"], each["message"]) for each in caught.value.details["problems"]]


def test_one_document_has_the_same_bytes_and_name_in_every_language() -> None:
    made = document.author(TOML, "node.toml")
    assert document.author(YAML, "node.yaml") == made
    assert document.author(made.data, "node.json") == made
    assert document.parse(made.data) == made
    assert made.etag == document.etag_of(made.data)
    assert made.control_urls == ("https://central.example.org",)
    assert made.poll_interval_s == 40
    assert document.parse(b'{"schema_version": 1}').poll_interval_s == 300


def test_served_bytes_are_kept_as_they_are() -> None:
    odd = b'  {"x-note" : "\\u00e4",\n "schema_version":1 }\n'
    assert document.parse(odd).data == odd
    assert document.parse(odd).etag != document.author(odd, "node.json").etag


def test_every_problem_is_named_with_its_place() -> None:
    wrong = {
        "schema_version": 1,
        "instance": {},
        "settings": {"lanes": -1, "laness": 1},
        "control": {"urls": []},
    }
    places = dict(_places(wrong))
    assert places["instance"] == "unknown; did you mean instances?"
    assert places["settings.laness"] == "unknown; did you mean lanes?"
    assert set(places) == {"instance", "settings.lanes", "settings.laness", "control.urls"}
    assert dict(_places({}))["schema_version"] == "missing"
    assert _places({"schema_version": 2})[0][0] == "schema_version"


SAMPLES = {
    "access": {"tokens": {"ci": {"sha256": "0" * 64, "scopes": ["read"]}}},
    "audience": {"group": "edge"},
    "control": {"urls": ["https://central.example.org"]},
    "health": {"gates": {"ocr": {"kind": "instances"}}},
    "instances": {"ocr": {}},
    "plugins": {"ocr": WHEEL},
    "revision_floor": 0,
    "tenant": "a-town",
    "schedules": {"nightly": {"instance": "ocr", "every_s": 60}},
}


@pytest.mark.parametrize("place", document.NOT_SERVED)
def test_what_nobody_serves_is_named(place: str) -> None:
    section = place.partition(".")[0]
    made = document.parse(document.encode({"schema_version": 1, section: SAMPLES.get(section, {"a": {}})}))
    [problem] = made.not_served()
    assert problem.path == tuple(place.split("."))
    assert "not served" in problem.message


def test_yours_is_kept_and_never_looked_at() -> None:
    made = document.author(b'{"schema_version": 1, "x-team": {"on call": ["a"]}}', "n.json")
    assert made.value["x-team"] == {"on call": ["a"]}


def test_what_it_says_must_make_sense_together() -> None:
    plugin = {**WHEEL, "enabled": False, "packages": [{"name": "ocr", **WHEEL}]}
    value = {
        "schema_version": 1,
        "not_before": "2026-01-02T00:00:00Z",
        "expires_at": "2026-01-01T00:00:00Z",
        "plugins": {"ocr": plugin},
        "instances": {"reader": {"plugin": "ocr"}},
    }
    assert [place for place, _ in _places(value)] == [
        "expires_at",
        "instances.reader.plugin",
        "plugins.ocr.packages[0]",
    ]
    assert _places({"schema_version": 1, "not_before": "2026-13-40T00:00:00Z"})[0][0] == "not_before"


@pytest.mark.parametrize("rest", [{"revision": 3}, {}])
def test_no_document_keeps_out_what_comes_after_it(rest: dict[str, int]) -> None:
    assert _places({"schema_version": 1, "revision_floor": 4, **rest})[0][0] == "revision_floor"
    assert not document.problems({"schema_version": 1, "revision": 3, "revision_floor": 3})


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://localhost:99999/", "https://", "http://:80/", "http://localhost/%00"]
)
def test_what_is_no_address_is_refused_before_anybody_asks_there(url: str) -> None:
    gates = {"web": {"kind": "http", "url": url}, "port": {"kind": "tcp", "address": "h:65536"}}
    value = {"schema_version": 1, "health": {"gates": gates}, "plugins": {"ocr": {**WHEEL, "url": url}}}
    places = {"health.gates.web.url", "health.gates.port.address", "plugins.ocr.url"}
    assert {place for place, _ in _places(value)} == places
    plain = {
        "tcp": {"kind": "tcp", "address": "[::1]:22"},
        "http": {"kind": "http", "url": "http://[::1]:8/x"},
    }
    wheel = {**WHEEL, "url": "file:///wheels/ocr.whl"}
    assert not document.problems({"schema_version": 1, "health": {"gates": plain}, "plugins": {"ocr": wheel}})


@pytest.mark.parametrize(
    "pin",
    [
        {"version": "1.0"},
        {**WHEEL, "sha256": "ab"},
        {**WHEEL, "filename": "../ocr.whl"},
        {**WHEEL, "size_bytes": 0},
        {**WHEEL, "url": "git+ssh://x"},
    ],
)
def test_a_plugin_without_its_whole_pin_is_refused(pin: object) -> None:
    assert all(
        place.startswith("plugins.ocr")
        for place, _ in _places({"schema_version": 1, "plugins": {"ocr": pin}})
    )


def test_a_document_has_at_most_a_mebibyte() -> None:
    start, end = b'{"schema_version":1,"x-a":"', b'"}'
    whole = start + b"a" * (document.MAX_BYTES - len(start) - len(end)) + end
    assert document.parse(whole).data == whole
    with pytest.raises(document.DocumentError) as caught:
        document.parse(whole + b" ")
    assert caught.value.code == "document.too_large"


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (b"a = 1\na = 2", "n.toml", "Cannot overwrite"),
        (b"a: 1\nb:\n  c: 1\n  c: 2", "n.yaml", "line 3: the name 'c' is there twice"),
        (b'{"a": {"b": 1, "b": 2}}', "n.json", "the name 'b' is there twice"),
        (b'{"a": NaN}', "n.json", "NaN is no JSON number"),
        (b"a: &a [*a]", "n.yaml", "unfolds"),
        (BOMB, "n.yaml", "unfolds"),
        (b"a: [", "n.yaml", "is not YAML"),
        (b"\xff", "n.toml", "not UTF-8"),
        (b"[" * 100_000, "n.json", "is nested too deep to be read"),
        (b"!!python/object:os.system {}", "n.yaml", "is not YAML"),
    ],
)
def test_what_only_looks_harmless_is_no_text_of_anything(text: bytes, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        authored.parse(text, name)


def test_a_date_is_not_a_text() -> None:
    [(place, message)] = _places(b"schema_version: 1\nnot_before: 2026-01-01", "n.yaml")
    assert place == "not_before"
    assert "date" in message


def test_the_published_schema_is_the_one_in_use() -> None:
    published = Path(__file__).parents[2] / "docs" / "reference" / "document.schema.json"
    assert json.loads(published.read_text()) == document.schema()


def test_everything_in_the_schema_has_a_description() -> None:
    def bare(node: object, path: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        found = []
        for name, each in node.get("properties", {}).items():
            if "description" not in each:
                found.append(f"{path}.{name}")
            found += bare(each, f"{path}.{name}")
        for name, each in node.get("$defs", {}).items():
            found += bare(each, name)
        return found

    assert bare(document.schema(), "") == []
