"""Messages between a node and its central: what is built is read, and nothing else is."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from toft.managed import messages, protocol, signatures
from toft.managed.messages import Enrolled, Facts
from toft.managed.protocol import MessageError
from toft.managed.signatures import PrivateKey, Root, Signature, SignatureError, SignedRoot

OLD, NEW, OTHER = (PrivateKey(bytes([each]) * 32) for each in (1, 2, 3))
NODE = "node_01ARZ3NDEKTSV4RRFFQ69G5FAV"
NONCE = "0123456789abcdef" * 2
AT = 1_700_000_000.0
CREDENTIAL = "nt_" + "A" * 43
TOKEN = "jt_abcd1234_" + "b" * 43


def sent(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_an_enrolment_is_read_as_it_was_built() -> None:
    facts = Facts("höst", "Debian 12", "0.1.0", "f" * 64)
    found = messages.read_enroll(sent(messages.enroll(TOKEN, OLD, NONCE, facts)))
    assert (found.token, found.key, found.nonce, found.facts) == (TOKEN, OLD.public, NONCE, facts)
    assert TOKEN not in repr(found)


def test_a_refresh_and_a_rotation_are_read_as_they_were_built() -> None:
    refresh = messages.read_refresh(sent(messages.refresh(NODE, OLD, NONCE, AT)))
    assert (refresh.node_id, refresh.nonce, refresh.at) == (NODE, NONCE, AT)
    refresh.check(OLD.public)
    rotation = messages.read_rotate_key(sent(messages.rotate_key(NODE, OLD, NEW, NONCE, AT)))
    assert (rotation.node_id, rotation.new_key, rotation.at) == (NODE, NEW.public, AT)
    rotation.check(OLD.public)
    for each in (refresh, rotation):
        with pytest.raises(SignatureError):
            each.check(OTHER.public)


@pytest.mark.parametrize(
    "change",
    [
        {"token": "jt_other"},
        {"public_key": OTHER.public.text},
        {"nonce": "f" * 32},
        {"facts": {"hostname": "another"}},
        {"signature": "A" * 86 + "=="},
        {"signature": ""},
        {"signature": None},
    ],
)
def test_no_part_of_an_enrolment_can_be_changed(change: dict[str, Any]) -> None:
    body = sent(messages.enroll(TOKEN, OLD, NONCE, Facts("host")))
    with pytest.raises(SignatureError):
        messages.read_enroll({**body, **change})


def test_a_signature_for_one_request_is_none_for_another() -> None:
    body = messages.sign_request(
        protocol.ROTATE_KEY_TYPE, {"node_id": NODE, "nonce": NONCE, "at": "2026-11-27T00:00:00Z"}, OLD
    )
    with pytest.raises(SignatureError):
        messages.read_refresh(sent(body)).check(OLD.public)


def test_whoever_rotates_has_the_new_key() -> None:
    body = sent(messages.rotate_key(NODE, OLD, NEW, NONCE, AT))
    with pytest.raises(SignatureError):
        messages.read_rotate_key({**body, "new_public_key": OTHER.public.text})
    with pytest.raises(SignatureError):
        messages.read_rotate_key({**body, "new_signature": body["signature"]})


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"nonce": NONCE.upper()},
        {"nonce": "short"},
        {"token": ""},
        {"token": 7},
        {"token": "x" * 300},
        {"public_key": "x"},
        {"public_key": None},
        {"facts": None},
        {"facts": {"more": "x"}},
        {"facts": {"hostname": 7}},
        {"facts": {"hostname": "x" * 300}},
        {"facts": {"hostname": "\ud800"}},
        {"facts": {"hostname": "a\0b"}},
    ],
)
def test_an_enrolment_without_the_form_of_one_is_refused(change: dict[str, Any]) -> None:
    body = {"token": TOKEN, "public_key": OLD.public.text, "nonce": NONCE, "facts": {}, **change}
    with pytest.raises(MessageError):
        messages.read_enroll(messages.sign_request(protocol.ENROLL_TYPE, body, OLD))


@pytest.mark.parametrize("value", [None, [], "x", {}, {"node_id": NODE}])
def test_what_is_no_request_at_all_is_refused(value: Any) -> None:
    for read in (messages.read_enroll, messages.read_refresh, messages.read_rotate_key, Enrolled.of_value):
        with pytest.raises(MessageError):
            read(value)


@pytest.mark.parametrize(
    "at", ["", "yesterday", "2026-11-27", "2026-11-27T00:00:00+02:00", "9" * 40 + "Z", 17, None]
)
def test_a_moment_is_in_utc_or_refused(at: Any) -> None:
    body = {"node_id": NODE, "nonce": NONCE, "at": at, "signature": ""}
    with pytest.raises(MessageError):
        messages.read_refresh(body)


def test_the_answer_is_read_as_it_was_built_and_may_grow() -> None:
    root = Root.of(1, 1, [OTHER.public])
    for answer in (
        Enrolled(NODE, CREDENTIAL, AT, root, ("https://central.example:8443/toft",), "acme"),
        Enrolled(NODE, CREDENTIAL, AT),
    ):
        assert Enrolled.of_value({**sent(answer.to_value()), "later": 1}) == answer
        assert CREDENTIAL not in repr(answer)


@pytest.mark.parametrize(
    "change",
    [
        {"node_id": "../../etc"},
        {"node_id": NODE + "\n"},
        {"access_token": "x\r\nHost: y"},
        {"access_token": None},
        {"expires_at": "soon"},
        {"root": {}},
        {"control_urls": "https://central.example"},
        {"control_urls": ["file:///etc/passwd"]},
        {"control_urls": ["https://central.example"] * 17},
        {"tenant": ["acme"]},
        {"tenant": "a" * 256},
    ],
)
def test_an_answer_that_would_mislead_a_node_is_refused(change: dict[str, Any]) -> None:
    value = sent(Enrolled(NODE, CREDENTIAL, AT).to_value())
    with pytest.raises(MessageError):
        Enrolled.of_value({**value, **change})


def test_signatures_travel_in_a_header() -> None:
    found = (Signature("a" * 16, bytes(64)), Signature("b" * 16, b"\xff" * 64))
    assert messages.decode_signatures(messages.encode_signatures(found)) == found
    assert messages.decode_signatures(None) == messages.decode_signatures("") == ()
    wrong: list[Any] = [{}, [1], [{"key_id": "a"}], [{"key_id": "a", "signature": "!"}], [{}] * 65, "x"]
    for text in ("x", "é", *(signatures.to_base64(json.dumps(each).encode()) for each in wrong)):
        with pytest.raises(MessageError):
            messages.decode_signatures(text)


def test_roots_travel_as_the_bytes_that_were_signed() -> None:
    root = Root.of(1, 1, [OLD.public])
    chain = (SignedRoot(root.data, (signatures.sign(signatures.ROOT_TYPE, root.data, OLD),)),)
    assert messages.read_roots(sent(messages.roots_value(chain))) == chain
    for value in (
        None,
        {},
        {"roots": {}},
        {"roots": [1]},
        {"roots": [{"root": "!"}]},
        {"roots": [{}] * 1001},
    ):
        with pytest.raises(MessageError):
            messages.read_roots(value)


def test_names_of_bytes_are_read_whatever_a_proxy_made_of_them() -> None:
    etag = "sha256-" + hashlib.sha256(b"x").hexdigest()
    for text in (protocol.quoted(etag), f'W/"{etag}"', etag, f' "{etag}-gzip" ', f'"{etag};gzip"'):
        assert protocol.read_etag(text) == etag
    for text in (None, "", '"', '"sha256-12"', f'"{etag}x"', f'"{etag}\n"', f'"{etag}", "{etag}"', "*"):
        assert protocol.read_etag(text) == ""


def test_a_digest_is_read_among_others() -> None:
    expected = hashlib.sha256(b"x").hexdigest()
    assert protocol.read_digest(protocol.digest(b"x")) == expected
    assert protocol.read_digest("sha-512=:AAAA:, " + protocol.digest(b"x")) == expected
    for text in (None, "", "sha-256=x", "sha-256=:AAAA:", protocol.digest(b"x").strip(":")):
        assert protocol.read_digest(text) == ""


@pytest.mark.parametrize(
    "url",
    ["https://central.example", "http://127.0.0.1:8080", "https://[::1]:8443", "https://c.example/toft/"],
)
def test_the_url_of_a_central_is_taken(url: str) -> None:
    assert protocol.check_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "central.example",
        "ftp://central.example",
        "https://",
        "https:///v1",
        "https://u:secret@central.example",
        "https://central.example?x=1",
        "https://central.example#x",
        "https://central.example:99999",
        "https://central.example:0",
        "https://central.example/ x",
        "https://central.example/\n",
        "https://é.example",
        "https://c.example/" + "x" * 2100,
    ],
)
def test_any_other_url_is_refused_without_its_password(url: Any) -> None:
    with pytest.raises(MessageError) as caught:
        protocol.check_url(url)
    assert "secret" not in str(caught.value)


def test_tokens_and_credentials_have_their_own_forms() -> None:
    assert protocol.token_id(TOKEN) == "abcd1234"
    assert protocol.token_id(TOKEN + "x") == protocol.token_id("") == protocol.token_id(CREDENTIAL) == ""
    assert protocol.is_credential(CREDENTIAL)
    assert not protocol.is_credential(TOKEN)
    assert protocol.is_node_id(NODE)
    assert not protocol.is_node_id("node_" + "U" * 26)


def test_a_chunk_has_one_name_however_often_it_is_sent_and_another_one_elsewhere() -> None:
    name = protocol.chunk_key("logs", "a", 0, b"{}\n")
    assert protocol.is_chunk_key(name)
    assert name == protocol.chunk_key("logs", "a", 0, b"{}\n")
    others = [("metrics", "a", 0, b"{}\n"), ("logs", "b", 0, b"{}\n"), ("logs", "a", 3, b"{}\n")]
    others += [("logs", "a", 0, b"{} \n"), ("logs", "a\n0", 0, b"{}\n")]
    assert len({name, *(protocol.chunk_key(*each) for each in others)}) == 6
    assert not protocol.is_chunk_key(name.upper() + "A")
    assert not protocol.is_chunk_key(name[1:])
