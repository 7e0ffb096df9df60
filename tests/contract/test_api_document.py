"""The OpenAPI document is what the node does: requests made from it, answers checked against it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from door import TOKEN, scripted_door
from pares.api.openapi import document
from pares.api.routes import CONTROL_ROUTES, OLLAMA_ROUTES, OPENAI_ROUTES, ROUTES

ENDLESS = "/pares/v1/events"
WALKS_THE_DISK = "/pares/v1/models/import"

schema = schemathesis.openapi.from_dict(document(ROUTES)).exclude(path=[ENDLESS, WALKS_THE_DISK])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node in a thread of its own, since these requests block; in a folder where `.` has nothing to import."""
    home, before = tmp_path_factory.mktemp("home"), Path.cwd()
    (home / "empty").mkdir()
    os.chdir(home / "empty")
    ready: threading.Event = threading.Event()
    address: list[str] = []
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with scripted_door(home) as door:
            address.append(door.url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield address[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()
    os.chdir(before)


@schema.parametrize()
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_address_keeps_its_word(case: schemathesis.Case[Any], url: str) -> None:
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    answer = case.call(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)
    if answer.status_code != 502:  # offline, and said so
        case.validate_response(answer, checks=checks)


def test_the_document_has_every_route_of_the_three_apis() -> None:
    paths = document(ROUTES)["paths"]
    assert isinstance(paths, dict)
    told = sum(len(operations) for operations in paths.values())
    assert told == len(CONTROL_ROUTES) + len(OPENAI_ROUTES) + len(OLLAMA_ROUTES)
    operations = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(set(operations)) == len(operations)
