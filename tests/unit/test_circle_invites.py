"""Invites: short enough for a QR code, recognised when broken, good for what they say and nothing else."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circles import NOW, charter, contact, nonce, person
from pares.circle import invites
from pares.circle.invites import Invitation, Invite, NotAdmitted, check, link, packed, parse, proof, unpacked
from pares.circle.words import words
from pares.errors import BadRequest
from pares.wire.messages import Join
from pares.wire.signing import Identity

ADA, BEN, EVE = person(0), person(1), person(2)
CIRCLE = charter(ADA).signed.digest
SECRET = nonce("secret")


def invitation(*, contacts: int = 2, expires: int = NOW + 86_400, commons: bool = False) -> Invitation:
    members = [
        invites.contact(who.id, ["192.0.2.17:41641", "198.51.100.23:50123"], "https://relay.example.org:443")
        for who in (ADA, BEN)
    ]
    return Invitation(
        circle=CIRCLE,
        name="Kitchen table",
        invite=nonce("invite"),
        secret=b"" if commons else SECRET,
        role="member",
        expires=expires,
        inviter=ADA.id,
        inviter_name="Ada Lovelace",
        open=commons,
        contacts=members[:contacts],
    )


def joining(joiner: Identity, secret: bytes = SECRET) -> Join:
    return Join(
        circle=CIRCLE,
        invite=nonce("invite"),
        inviter=ADA.id,
        joiner=joiner.id,
        contact=contact(joiner).signed,
        proof=proof(secret, CIRCLE, joiner.id),
    )


INVITE = Invite(nonce("invite"), SECRET, CIRCLE, "member", NOW, NOW + 60, uses_left=2)


def test_a_link_comes_back_as_it_was_and_fits_a_qr_code() -> None:
    text = link(invitation())
    assert len(text) <= 400
    read = parse(text, NOW)
    assert (read.circle, read.secret, read.inviter_name) == (CIRCLE, SECRET, "Ada Lovelace")
    addresses = ("192.0.2.17:41641", "198.51.100.23:50123")
    relay = "https://relay.example.org:443"
    assert read.where() == [(ADA.id, addresses, relay), (BEN.id, addresses, relay)]
    assert parse(link(read), NOW) == read


PASTED: list[Callable[[str], str]] = [
    lambda text: f"  {text}\n",
    lambda text: "\r\n".join(text[at : at + 60] for at in range(0, len(text), 60)),
    lambda text: text.removeprefix("pares://join/"),
    lambda text: text.removeprefix("pares://"),
    lambda text: text.replace("pares://join/", "PARES://Join/"),
    lambda text: f"<{text}>",
    lambda text: f'"{text}=="',
]


def test_how_it_was_pasted_does_not_matter() -> None:
    text = link(invitation())
    for spoil in PASTED:
        assert parse(spoil(text), NOW) == parse(text, NOW)


def test_every_way_of_cutting_off_or_mistyping_is_said() -> None:
    text = link(invitation())
    start = len("pares://join/")
    for cut in range(start + 1, len(text)):
        with pytest.raises(BadRequest, match="cut off or mistyped") as caught:
            parse(text[:cut], NOW)
        assert "Copy the whole link" in caught.value.hint
    for at in range(start, len(text) - 1, 7):
        with pytest.raises(BadRequest, match="cut off or mistyped"):
            parse(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :], NOW)


@pytest.mark.parametrize("text", ["", "hello there", "https://example.org/join/abc", "pares://join/", "pares://join/ä"])
def test_what_is_no_invite_is_called_so(text: str) -> None:
    with pytest.raises(BadRequest, match="not a Pares invite"):
        parse(text, NOW)


def test_expired_too_long_and_newer_links_say_what_to_do() -> None:
    with pytest.raises(BadRequest, match=r"expired 3 hours ago\. Ask Ada Lovelace"):
        parse(link(invitation(expires=NOW)), NOW + 3 * 3600)
    with pytest.raises(BadRequest, match="far too long"):
        parse("A" * 5_000, NOW)
    body = msgspec.msgpack.encode(["something", "new"])
    text = invites.SCHEME + base64.urlsafe_b64encode(body + invites._check(body)).decode()
    with pytest.raises(BadRequest, match="Update Pares"):
        parse(text, NOW)
    with pytest.raises(BadRequest, match="secret has the wrong size"):
        parse(link(msgspec.structs.replace(invitation(), secret=b"short")), NOW)


def test_a_link_to_a_commons_has_no_secret() -> None:
    assert parse(link(invitation(commons=True)), NOW).secret == b""


@given(st.text(max_size=600) | st.text("ABCDEFabcdef0123-_=", max_size=600))
def test_no_text_does_harm(text: str) -> None:
    with pytest.raises(BadRequest):
        parse(text, NOW)


@given(st.binary(max_size=300))
def test_no_bytes_with_a_right_check_do_harm(body: bytes) -> None:
    text = invites.SCHEME + base64.urlsafe_b64encode(body + invites._check(body)).decode()
    with pytest.raises(BadRequest):
        parse(text, NOW)


@given(st.ip_addresses(), st.integers(0, 65_535))
def test_addresses_come_back_from_their_bytes(ip: object, port: int) -> None:
    text = f"[{ip}]:{port}" if ":" in str(ip) else f"{ip}:{port}"
    assert unpacked(packed(text)) == text


def test_the_right_proof_admits_until_expired_or_used_up() -> None:
    check(INVITE, joining(BEN), NOW)
    check(INVITE.used(), joining(BEN), NOW + 59)
    with pytest.raises(NotAdmitted) as expired:
        check(INVITE, joining(BEN), NOW + 60)
    spent = INVITE.used().used()
    assert spent.secret == b""
    with pytest.raises(NotAdmitted) as used:
        check(spent, joining(BEN), NOW)
    assert [e.value.refusal.code for e in (expired, used)] == ["expired_invite", "used_invite"]


def test_without_the_secret_nobody_joins_nor_with_anothers_proof() -> None:
    overheard = msgspec.structs.replace(joining(BEN), joiner=EVE.id)
    elsewhere = msgspec.structs.replace(joining(EVE), circle=bytes(32))
    for bad in (joining(EVE, secret=bytes(16)), overheard, elsewhere, msgspec.structs.replace(joining(EVE), proof=b"")):
        with pytest.raises(NotAdmitted) as caught:
            check(INVITE, bad, NOW)
        assert caught.value.refusal.code == "bad_invite"
    with pytest.raises(NotAdmitted, match="not known here"):
        check(None, joining(BEN), NOW)


def test_five_words_stand_for_a_key() -> None:
    assert words(bytes(32)) == ("grid", "duck", "problem", "valid", "cloth")
    assert len({words(person(number).id) for number in range(500)}) == 500


def test_the_list_of_words_is_read_only_when_needed() -> None:
    code = "import sys, pares.circle.words; sys.exit('mnemonic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
