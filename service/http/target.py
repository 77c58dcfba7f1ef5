"""The target of a request as the routes know it: a path, also where the client named the whole address.

A client that takes us for a proxy sends `GET http://host/path`, which every server must accept (RFC 9112, section
3.2.2). Which host it names changes nothing: we serve one.
"""

import re
from urllib.parse import unquote

from starlette.types import Scope

_ORIGIN = re.compile(rb"https?://[^/]+", re.IGNORECASE)


def in_origin_form(scope: Scope) -> Scope:
    """The request's `scope`, with the path alone in `path` and `raw_path`."""
    origin = _ORIGIN.match(scope.get("raw_path") or b"")
    if origin is None:
        return scope
    raw_path = scope["raw_path"][origin.end() :] or b"/"
    return {**scope, "path": unquote(raw_path.decode("ascii")), "raw_path": raw_path}
