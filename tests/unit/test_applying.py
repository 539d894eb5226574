"""Whatever a document says within its schema, it is taken or refused with its place; nothing else happens."""

from __future__ import annotations

import json
import sys
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toft.managed import applying, document
from toft.plugins.manifests import manifest
from toft_sdk import introspect

MANIFEST = manifest.from_description(
    {
        **introspect.describe("toft_sdk.misbehaving", "MisbehavingPlugin"),
        "name": "known",
        "worker_env": [{"name": "KEY", "secret": True}],
    },
    manifest.Install(python_path=sys.executable),
    manifest.Runtime(source="tests"),
)
ODD: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "\x00", "\x1b[31m", "store:KEY", "../..", "é" * 300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["known", "left", "absent"])
OPTIONS = st.dictionaries(
    st.sampled_from(["concurrency", "env", "writable", "memory_bytes", "zygote", "is_monitor", "nonsense"]),
    ODD,
)
INSTANCES = st.dictionaries(
    NAMES,
    st.fixed_dictionaries(
        {},
        optional={
            "plugin": NAMES,
            "enabled": st.booleans(),
            "config": st.dictionaries(st.sampled_from(["label", "seconds", "odd"]), ODD),
            "options": OPTIONS,
            "secrets": st.dictionaries(
                st.sampled_from(["KEY", "OTHER"]),
                st.sampled_from(
                    ["store:KEY", "store:a/KEY", "store:/", "store:../x", "store:a/b/c", "openbao:k/v"]
                ),
            ),
        },
    ),
)
SCHEDULES = st.dictionaries(
    NAMES,
    st.fixed_dictionaries(
        {"instance": NAMES},
        optional={
            "action": st.sampled_from(["echo", "absent", "execute"]),
            "arguments": st.dictionaries(st.sampled_from(["value", "do", "odd"]), ODD),
            "every_s": st.floats(1, 1e6),
            "cron": st.sampled_from(["* * * * *", "0 0 31 2 *", "x x x x x", "*/0 * * * *"]),
            "overlap": st.booleans(),
        },
    ),
)
DOCUMENTS = st.fixed_dictionaries(
    {"schema_version": st.just(1)},
    optional={"instances": INSTANCES, "schedules": SCHEDULES, "monitors": st.lists(NAMES, max_size=2)},
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(DOCUMENTS)
def test_a_document_is_taken_or_refused_with_its_place_and_nothing_else(value: dict[str, Any]) -> None:
    if document.problems(value):
        return
    data = json.dumps(value).encode()
    parsed = document.parse(data)
    found = applying.problems(parsed, lambda name: MANIFEST if name in ("known", "left") else None)
    for each in found:
        assert each.path[0] in ("instances", "schedules")
        assert each.message
    applied = applying.of(parsed, parsed.etag, 0.0)
    named = value.get("instances", {}).keys()
    assert applied.instances.keys() | applied.unusable.keys() == named
    if not found:
        assert not applied.unusable, "what was let in can be run"
    for name, record in applied.instances.items():
        assert record.options.is_monitor >= (name in value.get("monitors", ()))
