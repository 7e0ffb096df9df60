"""Golden bytes: what this version writes and signs is what every later one reads, and the other way round.

The files of tests/vectors are the contract with other implementations; a change there is a new protocol.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from circles import CIRCLE_VECTORS, MESSAGE_VECTORS, person
from pares.circle import invites
from pares.circle.invites import proof
from pares.circle.statements import checked
from pares.circle.words import words
from pares.wire import messages
from pares.wire.framing import frame, size_of
from pares.wire.messages import STATEMENTS, CircleReply, CircleRequest, SwarmReply, SwarmRequest
from pares.wire.signing import Identity, decoded

FOLDER = Path(__file__).parents[1] / "vectors"
STATEMENT_FILE = json.loads((FOLDER / "statements.json").read_text())
MESSAGE_FILE = json.loads((FOLDER / "messages.json").read_text())
IDENTITY_FILE = json.loads((FOLDER / "identities.json").read_text())
LINK_FILE = json.loads((FOLDER / "invite.json").read_text())


def test_there_is_a_vector_for_every_statement_and_every_message() -> None:
    assert [v["label"] for v in STATEMENT_FILE] == list(STATEMENTS)
    unions = (CircleRequest, CircleReply, SwarmRequest, SwarmReply)
    kinds = {kind for union in unions for kind in get_args(union)}
    assert {v["type"] for v in MESSAGE_FILE} == {kind.__struct_config__.tag for kind in kinds}


@pytest.mark.parametrize("vector", IDENTITY_FILE, ids=lambda v: v["seed"][:8])
def test_a_seed_gives_its_key_and_words(vector: dict[str, str]) -> None:
    identity = Identity(bytes.fromhex(vector["seed"]))
    assert identity.id.hex() == vector["key"]
    assert " ".join(words(identity.id)) == vector["words"]


@pytest.mark.parametrize("number", range(len(STATEMENT_FILE)))
def test_a_statement_is_written_signed_named_and_read_as_recorded(number: int) -> None:
    vector, record = STATEMENT_FILE[number], CIRCLE_VECTORS[number]
    signed = record.signed
    assert (signed.body.hex(), signed.by.hex()) == (vector["body"], vector["by"])
    assert signed.signature.hex() == vector["signature"]
    assert record.name.hex() == vector["name"]
    body = bytes.fromhex(vector["body"])
    assert json.loads(msgspec.json.encode(decoded(body, STATEMENTS[record.label]))) == vector["fields"]
    assert checked(record).statement == decoded(body, STATEMENTS[record.label])


@pytest.mark.parametrize("number", range(len(MESSAGE_FILE)))
def test_a_message_is_framed_and_read_as_recorded(number: int) -> None:
    vector, message = MESSAGE_FILE[number], MESSAGE_VECTORS[number]
    framed = frame(msgspec.msgpack.encode(message))
    assert framed.hex() == vector["frame"]
    recorded = bytes.fromhex(vector["frame"])
    assert size_of(recorded[:4]) == len(recorded) - 4
    assert decoded(recorded[4:], type(message)) == message
    assert json.loads(msgspec.json.encode(message)) == vector["fields"]


def test_the_circles_id_an_invites_proof_and_its_link_are_as_recorded() -> None:
    circle = CIRCLE_VECTORS[0].signed.digest
    assert circle.hex() == LINK_FILE["circle"]
    secret = bytes.fromhex(LINK_FILE["secret"])
    assert proof(secret, circle, person(1).id).hex() == LINK_FILE["proof"]
    invitation = invites.parse(LINK_FILE["link"], 0)
    assert (invitation.circle, invitation.secret) == (circle, secret)
    assert invites.link(invitation) == LINK_FILE["link"]
    assert LINK_FILE["protocol"] == messages.CIRCLE
