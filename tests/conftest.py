"""Fixtures that load real weights once a run, and what the oracle's own sloppiness asks of pytest."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")  # no example fails for having taken long: a busy machine is no fault of ours
AUDIO = Path(__file__).parent / "audio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The reference leaves its vocabulary files open; that is no fault of ours."""
    for item in items:
        if item.get_closest_marker("oracle"):
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of real clips."""
    return AUDIO


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model as a file, for services that must be real and need not be right."""
    from tests import tiny

    return tiny.write_checkpoint(tmp_path_factory.mktemp("weights") / "tiny-random.pt")


@pytest.fixture(scope="session")
def base() -> object:
    """The real base model in float32 on the CPU."""
    from model import load

    return load("base", "cpu", "float32")


@pytest.fixture(scope="session")
def reference() -> object:
    """The reference implementation on the same weights."""
    from model.weights import load_weights
    from tests.oracle.reference import reference_model

    return reference_model(load_weights("base"))
