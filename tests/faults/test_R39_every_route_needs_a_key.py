"""R39: with keys set, every route but /livez and /readyz is 401 without one, with the same body; docs are off."""

import hmac

import pytest

from tests.fakes import script
from tests.serving import client, error_of, in_loop, make_app

pytestmark = pytest.mark.fault
KEY, OTHER = "correct-horse-battery", "staple-staple-staple"
OPEN = {"/livez", "/readyz"}
WRONG: dict[str, dict[str, str | bytes]] = {
    "none": {},
    "empty": {"authorization": ""},
    "no scheme": {"authorization": KEY},
    "basic": {"authorization": f"Basic {KEY}"},
    "wrong": {"authorization": "Bearer nothing-like-it"},
    "near miss": {"authorization": f"Bearer {KEY[:-1]}"},
    "longer": {"authorization": f"Bearer {KEY}x"},
    "case": {"authorization": f"Bearer {KEY.upper()}"},
    "not ASCII": {"authorization": "Bearer schlüssel-ключ".encode()},
    "other header": {"x-api-key": KEY},
    "both keys": {"authorization": f"Bearer {KEY},{OTHER}"},
    "Azure's, wrong": {"api-key": KEY[:-1]},
    "Azure's, not ASCII": {"api-key": "schlüssel-ключ".encode()},
    "two headers": {"authorization": "Bearer nothing-like-it", "api-key": KEY},
}


def routes(app) -> list[tuple[str, str]]:
    found = [
        (route.path_format.replace("{model}", "base"), method)
        for route in app.routes
        for method in getattr(route, "methods", None) or ()
    ]
    assert {"/v1/transcribe", "/v1/detect-language", "/v1/models", "/metrics", "/docs", "/openapi.json"} <= {
        path for path, _ in found
    }
    return found


@in_loop
@pytest.mark.parametrize("case", WRONG)
async def test_r39_without_the_key_every_route_says_the_same(case):
    app, audio, _ = make_app(api_keys=(KEY, OTHER), docs=True)
    bodies = set()
    async with client(app) as c:
        for path, method in [*routes(app), ("/nothing", "GET"), ("/livez/", "GET"), ("//livez", "GET")]:
            answer = await c.request(method, path, headers=WRONG[case])
            if path in OPEN:
                assert answer.status_code == 200
                continue
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                error = error_of(answer, 401)
                bodies.add(tuple(sorted(error.items(), key=str)))
    assert len(bodies) == 1
    assert not audio.uploads


@in_loop
async def test_r39_either_key_opens_every_route():
    app, _, _ = make_app(api_keys=(KEY, OTHER), docs=True)
    async with client(app) as c:
        for key in (KEY, OTHER):
            for path, method in routes(app):
                for headers in ({"authorization": f"Bearer {key}"}, {"api-key": key}):
                    answer = await c.request(method, path, headers=headers)
                    assert answer.status_code in (200, 400), path
            files = {"file": ("a.wav", script())}
            answer = await c.post("/v1/transcribe", files=files, headers={"authorization": f"bearer {key}"})
            assert answer.status_code == 200


@in_loop
async def test_r39_hashes_of_all_keys_are_compared(monkeypatch):
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    app, _, _ = make_app(api_keys=(KEY, OTHER, "third-key-of-three"))
    async with client(app) as c:
        assert (await c.get("/v1/models", headers={"authorization": f"Bearer {KEY}"})).status_code == 200
        assert len(compared) == 3
        assert (await c.get("/v1/models")).status_code == 401
        assert len(compared) == 6
    assert all(len(a) == len(b) == 32 for a, b in compared)


@in_loop
async def test_r39_docs_are_off_where_keys_are_set():
    app, _, _ = make_app(api_keys=(KEY,))
    assert not {"/docs", "/openapi.json", "/redoc"} & {getattr(route, "path", "") for route in app.routes}
