"""The documentation page: Swagger UI, from this service itself and from nowhere else.

What the page needs is asked for by relative addresses, so that it works in a closed network and under the path that a
proxy gives the service. The files are those of Swagger UI as the package `fastapi-offline` carries them.
"""

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, Response

_CACHE_SECONDS = 86_400
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon.png": "image/png",
}


def add_documentation(app: FastAPI) -> None:
    """Serve `/docs` and what it loads; `/openapi.json` is the framework's."""
    folder = Path(str(files("fastapi_offline"))) / "static"
    app.add_route("/docs", lambda _: _page(app.title), include_in_schema=False)
    for name, media_type in _ASSETS.items():
        _add_asset(app, folder / name, media_type)


def _add_asset(app: FastAPI, file: Path, media_type: str) -> None:
    headers = {"cache-control": f"max-age={_CACHE_SECONDS}"}

    def answer(_: object) -> Response:
        return FileResponse(file, media_type=media_type, headers=headers)

    app.add_route(f"/docs/{file.name}", answer, include_in_schema=False)


def _page(title: str) -> Response:
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title=title,
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
    )
