"""A secret is found in whatever form another program printed it."""

from __future__ import annotations

import base64
import json
import shlex
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toft.secrets.redaction import Redactor

SECRET = 's3cr&t/"quoted" ü+\'x\\end'


@pytest.mark.parametrize(
    "printed",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        repr(SECRET),
        repr(SECRET.encode()),
        shlex.quote(SECRET),
        urllib.parse.quote(SECRET, safe=""),
        urllib.parse.quote(SECRET, safe="").lower(),
        urllib.parse.quote_plus(SECRET),
        SECRET.encode().hex(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        base64.b64encode(b"user:" + SECRET.encode() + b"@host").decode(),
        base64.b64encode(b"ab" + SECRET.encode()).decode(),
    ],
)
def test_every_common_form_is_replaced(printed: str) -> None:
    shown = Redactor([("API_KEY", SECRET)]).text(f"before {printed} after")
    assert "[secret API_KEY]" in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert "cr&t" not in shown
    assert SECRET not in shown


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=40),
    st.binary(max_size=7),
    st.binary(max_size=7),
)
def test_base64_of_any_text_around_the_secret_does_not_keep_it(
    secret: str, before: bytes, after: bytes
) -> None:
    if len(secret.encode()) < 6 or secret in "[secret KEY]":
        return
    whole = base64.b64encode(before + secret.encode() + after).decode()
    shown = Redactor([("KEY", secret)]).text(whole)
    assert "[secret KEY]" in shown


def test_a_secret_of_several_lines_is_found_line_by_line() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"
    redactor = Redactor([("PEM", key)])
    assert redactor.text("2026 MIIEvQIBADANBgkq") == "2026 [secret PEM]"
    assert redactor.text(f"whole {key}") == "whole [secret PEM]"
    assert redactor.text("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


def test_a_short_secret_does_not_black_out_ordinary_words() -> None:
    redactor = Redactor([("PIN", "12"), ("FLAG", "a")])
    assert redactor.text("page 12 of a book") == "page 12 of a book"
    assert redactor.text("PIN=12 sent") == "PIN=[secret PIN] sent"
    assert redactor.text('{"PIN": "12"}') == '{"PIN": "[secret PIN]"}'
    assert redactor.text("PIN=123") == "PIN=123"
    assert redactor.text("12") == "[secret PIN]"
    assert redactor.value({"PIN": 12, "page": 12}) == {"PIN": "[secret PIN]", "page": 12}


def test_one_secret_inside_another_leaves_no_rest() -> None:
    redactor = Redactor([("SHORT", "abcd"), ("LONG", "abcd-efgh")])
    assert redactor.text("x abcd-efgh y abcd z") == "x [secret LONG] y [secret SHORT] z"


def test_values_are_redacted_all_through_and_other_types_kept() -> None:
    redactor = Redactor([("KEY", "hunter22")])
    value = {"hunter22": ["a hunter22", ("hunter22", 3, None, 1.5, True)], "n": b"raw"}
    assert redactor.value(value) == {
        "[secret KEY]": ["a [secret KEY]", ("[secret KEY]", 3, None, 1.5, True)],
        "n": b"raw",
    }


def test_without_secrets_everything_stays() -> None:
    assert Redactor().text("nothing [secret] here") == "nothing [secret] here"


def test_a_secret_learnt_later_is_replaced_from_then_on() -> None:
    redactor = Redactor()
    redactor.add([("KEY", "hunter22")])
    assert redactor.text("hunter22") == "[secret KEY]"
