"""The Swagger UI page and its files come from this server alone, browser or not."""

from __future__ import annotations

import re

import pytest

from app.front.pages.docs import CONTENT_SECURITY_POLICY
from tests.server import Server

MEDIA_TYPES = {"js": "text/javascript", "css": "text/css", "png": "image/png"}


def _loaded(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]+)"', page)


def test_page_forbids_other_origins(server: Server) -> None:
    reply = server.http.get("/docs")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/html")
    assert reply.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY


def test_every_file_of_the_page_is_served_here(server: Server) -> None:
    loaded = _loaded(server.http.get("/docs").text)
    assert len(loaded) == 4
    for address in loaded:
        assert "//" not in address, address
        reply = server.http.get(f"/{address}")
        assert reply.status_code == 200, address
        assert reply.content, address
        assert reply.headers["content-type"].startswith(MEDIA_TYPES[address.rpartition(".")[2]])
        assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["other.js", "..%2f__init__.py", "%2e%2e/app.py"])
def test_no_other_file_is_served(server: Server, name: str) -> None:
    reply = server.http.get(f"/docs/assets/{name}")
    assert reply.status_code == 404
    assert reply.json()["code"] == "not_found"


@pytest.mark.parametrize(("address", "target"), [("/", "docs"), ("/favicon.ico", "docs/assets/favicon.png")])
def test_short_addresses_lead_on(server: Server, address: str, target: str) -> None:
    reply = server.http.get(address)
    assert reply.is_redirect
    assert reply.headers["location"] == target
