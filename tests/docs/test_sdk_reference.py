"""Everything an author can use is on the SDK's reference page."""

import re

from tests.docs import pages

import toft_sdk
import toft_sdk.testing
from toft_sdk.options import OPTION_KEYWORDS
from toft_sdk.plugin import Plugin

PAGE = (pages.ROOT / "docs" / "reference" / "sdk.md").read_text(encoding="utf-8")


def documented() -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w+", " ".join(re.findall(r"`([^`]+)`", PAGE))))


def test_every_exported_name_is_on_the_page() -> None:
    assert sorted(set(toft_sdk.__all__) - documented()) == []


def test_every_public_name_of_a_plugin_is_on_the_page() -> None:
    public = {name for name in vars(Plugin) if not name.startswith("_")}
    assert sorted(public - documented()) == []


def test_every_constraint_is_on_the_page() -> None:
    assert sorted(set(OPTION_KEYWORDS) - documented()) == []


def test_exports_are_sorted_and_real() -> None:
    assert toft_sdk.__all__ == sorted(toft_sdk.__all__)
    assert [name for name in toft_sdk.__all__ if not hasattr(toft_sdk, name)] == []
    assert sorted(toft_sdk._HOMES) == toft_sdk.__all__


def test_the_testing_module_is_on_the_page() -> None:
    assert sorted(set(toft_sdk.testing.__all__) - documented()) == []
