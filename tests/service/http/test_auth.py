import hmac

import pytest

from service.errors import Unauthorized
from service.http.auth import KEY_ID_LENGTH, Keys


def bearer(value: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"test"), (b"authorization", value)]


def azure(value: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"test"), (b"api-key", value)]


def test_without_keys_the_service_is_open():
    assert Keys([]).authenticate([]) is None


def test_a_known_key_gets_its_id():
    keys = Keys(["first-key", "second-key"])
    first, second = keys.authenticate(bearer(b"Bearer first-key")), keys.authenticate(bearer(b"bearer  second-key"))
    assert first is not None
    assert len(first) == KEY_ID_LENGTH
    assert first != second
    assert [keys.authenticate(azure(key)) for key in (b"first-key", b" second-key ")] == [first, second]
    assert keys.authenticate([*azure(b"another"), *bearer(b"Bearer first-key")]) == first


@pytest.mark.parametrize(
    "headers",
    [
        [],
        bearer(b""),
        bearer(b"Bearer"),
        bearer(b"Bearer "),
        bearer(b"Bearer first-ke"),
        bearer(b"Bearer first-key1"),
        bearer(b"Bearer First-key"),
        bearer(b"Basic first-key"),
        bearer(b"Digest first-key"),
        bearer(b"Bearer:first-key"),
        bearer(b"first-key"),
        bearer("Bearer schlüssel".encode("latin-1")),
        bearer(b"Bearer \xff\xfe"),
        [*bearer(b"Bearer first-key"), *bearer(b"Bearer first-key")],
        azure(b""),
        azure(b"Bearer first-key"),
        azure(b"first-ke"),
        azure(b"\xff\xfe"),
        [*azure(b"first-key"), *azure(b"first-key")],
        [*azure(b"first-key"), *bearer(b"Bearer first-ke")],
        [*azure(b"first-key"), *bearer(b"Basic first-key")],
    ],
)
def test_anything_else_is_refused_with_the_same_words(headers):
    with pytest.raises(Unauthorized) as caught:
        Keys(["first-key", "second-key"]).authenticate(headers)
    assert str(caught.value) == "A valid API key is required: Authorization: Bearer KEY, or api-key: KEY."


def test_every_key_is_compared_whatever_matches(monkeypatch):
    seen: list[bytes] = []

    def compare(left: bytes, right: bytes) -> bool:
        seen.append(right)
        return left == right

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = Keys(["first-key", "second-key", "third-key"])
    keys.authenticate(bearer(b"Bearer first-key"))
    assert len(seen) == 3
    keys.authenticate(azure(b"first-key"))
    assert len(seen) == 6
    assert all(len(digest) == 32 for digest in seen)
