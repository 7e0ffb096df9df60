"""The node's HTTP application: the table of routes behind the perimeter."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Address

from pares.api.auth import Gate, Perimeter
from pares.api.calls import Endpoint, Route, Shared
from pares.api.failures import refusal, surface_of
from pares.api.inventory import Inventory
from pares.api.metrics import Metrics
from pares.api.routes import PAGE_ROUTE, ROUTES
from pares.api.services import Services
from pares.errors import NotFound


def create_app(services: Services, *, gate: Gate | None = None) -> Starlette:
    """The application for one node; serve it on as many ports as you like.

    Give a `gate` to make tickets for the page yourself (`gate.ticket()`), as `pares up` does to open the browser.
    """
    shared = Shared(services, gate or Gate(services), Metrics(services), Inventory(services))
    by_path: dict[str, dict[str, Route]] = {}
    for route in (*ROUTES, PAGE_ROUTE):
        by_path.setdefault(route.path, {})[route.method] = route
    addresses = [Address(path, Endpoint(methods, shared)) for path, methods in by_path.items()]
    return Starlette(
        routes=addresses,
        middleware=[Middleware(Perimeter, services=services)],
        exception_handlers={HTTPException: _nowhere},
    )


async def _nowhere(request: Request, problem: Exception) -> Response:
    """An address that not even the page's route matches: one with a line break in it."""
    return refusal(NotFound("There is no such address."), surface_of(request.url.path))
