"""What callers can read of errors: every code is in the README, and in the table of the module."""

import re
from pathlib import Path

import pytest

from service import errors

ROOT = Path(__file__).resolve().parents[2]


def _codes() -> set[str]:
    own = {value.code for value in vars(errors).values() if hasattr(value, "code")}
    text = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    return own | set(re.findall(r'\bcode="([a-z_]+)"', text))


def test_every_code_is_found() -> None:
    assert {"invalid_audio", "unknown_field", "draining", "deadline_exceeded", "not_alive"} <= _codes()


@pytest.mark.parametrize("code", sorted(_codes()))
def test_every_code_stands_where_callers_and_developers_look(code: str) -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("## Errors and limits") : readme.index("## Models")]
    assert f"`{code}`" in section
    assert re.search(rf"\b{code}\b", errors.__doc__ or "")
