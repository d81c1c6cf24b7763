"""Swagger UI at `/docs`, its files served by us, and the way from `/` to it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

# Swagger UI writes style attributes; everything else comes from files of this origin.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pullback</title>
<link rel="icon" type="image/png" href="docs/assets/favicon.png">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/assets/start.js"></script>
</body>
</html>
"""

# `validatorUrl: null`: the badge would ask another origin.
_START: Final = """\
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: false,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""

# file → (media type, where it lies in the package that carries Swagger UI; None = it is ours, above)
_ASSETS: Final[dict[str, tuple[str, str | None]]] = {
    "swagger-ui-bundle.js": ("text/javascript; charset=utf-8", "swagger-ui-bundle.js"),
    "swagger-ui.css": ("text/css; charset=utf-8", "swagger-ui.css"),
    "favicon.png": ("image/png", "favicon.png"),
    "start.js": ("text/javascript; charset=utf-8", None),
}


@cache
def _asset(name: str) -> bytes:
    source = _ASSETS[name][1]
    if source is None:
        return _START.encode()
    return (files("fastapi_offline") / "static" / source).read_bytes()


def _security_headers() -> dict[str, str]:
    return {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


async def _docs(_: Request) -> Response:
    return Response(_PAGE, media_type="text/html", headers=_security_headers())


async def _asset_file(request: Request) -> Response:
    name = request.path_params["file"]
    if name not in _ASSETS:
        raise HTTPException(404)
    headers = {"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"}
    return Response(_asset(name), headers=headers, media_type=_ASSETS[name][0])


async def _root(_: Request) -> Response:
    return RedirectResponse("docs", status_code=307)


async def _favicon(_: Request) -> Response:
    return RedirectResponse("docs/assets/favicon.png", status_code=308)


routes: Final[list[BaseRoute]] = [
    Route("/", _root),
    Route("/docs", _docs),
    Route("/docs/assets/{file}", _asset_file),
    Route("/favicon.ico", _favicon),
]
