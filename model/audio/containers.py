"""Which kind of file is this? Answered from its own bytes, before any decoder sees it.

Gets the file from `model.audio`, gives the container to the readers. A file's name and its declared type are never
looked at: they are the sender's claim. What no signature here matches is refused, which is also how playlists,
`concat` scripts, SDP descriptions and other files that only point elsewhere are kept from the demuxers that would
follow them. Headerless audio has no signature and is refused too: its rate and width could only be guessed.

Sources: RFC 2361 and 9639 (FLAC), RFC 3533 (Ogg), RFC 4867 (AMR), ISO/IEC 11172-3 2.4.1.3 (MPEG audio frame header),
ISO/IEC 13818-7 6.2 (ADTS), ISO/IEC 14496-12 (MP4 boxes), RFC 8794 (EBML), id3.org ID3v2.4 section 3.1,
SMPTE ST 377-1 (MXF header partition), ETSI TS 102 114 (DTS sync word), ISO/IEC 14496-3 1.7.2 (LOAS).
"""

from dataclasses import dataclass
from typing import BinaryIO

_HEAD_BYTES = 65_536
_MAX_TAGS = 8
_TS_PACKETS = 8
_LOAS_FRAMES = 3
_JUNK_BYTES = 60_000
"""How far into an MP3 or AAC file its first frame may lie: FFmpeg's demuxer looks no further than the head."""


@dataclass(frozen=True, slots=True)
class Container:
    """A file format that is accepted."""

    name: str
    """As a person calls it; goes into messages."""
    demuxer: str
    """FFmpeg's name for it: the one demuxer that is allowed to open the file."""
    libsndfile: bool = False
    """Whether libsndfile is asked first: not where it stops early (MP3 that is joined) or misreads."""
    has_duration: bool = False
    """Whether a header states the duration, as against an estimate from the bit rate."""


WAV = Container("WAV", "wav", libsndfile=True)
W64 = Container("Wave64", "w64")
FLAC = Container("FLAC", "flac", libsndfile=True)
OGG = Container("Ogg", "ogg", libsndfile=True)
MP3 = Container("MP3", "mp3")
AIFF = Container("AIFF", "aiff", libsndfile=True)
AU = Container("AU", "au", libsndfile=True)
CAF = Container("CAF", "caf", libsndfile=True)
SPHERE = Container("NIST SPHERE", "nistsphere", libsndfile=True)
VOC = Container("VOC", "voc")
MP4 = Container("MP4", "mov", has_duration=True)
MATROSKA = Container("Matroska or WebM", "matroska", has_duration=True)
ASF = Container("WMA", "asf", has_duration=True)
AVI = Container("AVI", "avi", has_duration=True)
FLV = Container("FLV", "flv", has_duration=True)
AMR = Container("AMR", "amr")
AAC = Container("AAC", "aac")
AC3 = Container("AC-3", "ac3")
WAVPACK = Container("WavPack", "wv")
MPEG_TS = Container("MPEG transport stream", "mpegts")
MPEG_PS = Container("MPEG program stream", "mpeg")
MXF = Container("MXF", "mxf")
TTA = Container("TTA", "tta")
DTS = Container("DTS", "dts")
LOAS = Container("AAC in LOAS", "loas")
NUT = Container("NUT", "nut")
REALMEDIA = Container("RealMedia", "rm")
WTV = Container("WTV", "wtv")

_SIGNATURES: tuple[tuple[int, bytes, Container], ...] = (
    (0, b"RF64", WAV),
    (0, b"RIFX", WAV),
    (0, b"BW64", WAV),
    (0, b"riff\x2e\x91\xcf\x11", W64),
    (0, b"fLaC", FLAC),
    (0, b"OggS", OGG),
    (0, b".snd", AU),
    (0, b"caff", CAF),
    (0, b"NIST_1A\n", SPHERE),
    (0, b"Creative Voice File\x1a", VOC),
    (0, b"\x1a\x45\xdf\xa3", MATROSKA),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", ASF),
    (0, b"FLV\x01", FLV),
    (0, b"#!AMR", AMR),
    (0, b"\x0b\x77", AC3),
    (0, b"wvpk", WAVPACK),
    (0, b"\x00\x00\x01\xba", MPEG_PS),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02", MXF),
    (0, b"TTA1", TTA),
    (0, b"\x7f\xfe\x80\x01", DTS),
    (0, b"nut/multimedia container\0", NUT),
    (0, b".RMF\0\0\0", REALMEDIA),
    (0, b"\xb7\xd8\x00\x20\x37\x49\xda\x11\xa6\x4e\x00\x07\xe9\x5e\xad\x8d", WTV),
    *((4, box, MP4) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
)
"""Offset, bytes, container; the first match wins. RIFF and FORM need a second look (`_of_chunked`)."""


def identify(file: BinaryIO) -> Container | None:
    """The container of a seekable file, or None for one that is not accepted; the position is left anywhere."""
    offset = after_id3_tags(file)
    file.seek(offset)
    head = file.read(_HEAD_BYTES)
    return _of_chunked(head) or _of_signature(head) or _of_frames(head) or (MP3 if offset and head else None)


def after_id3_tags(file: BinaryIO) -> int:
    """The offset behind the ID3v2 tags that a file may start with (id3.org ID3v2.4, 3.1); moves the position."""
    offset = 0
    for _ in range(_MAX_TAGS):
        file.seek(offset)
        tag = file.read(10)
        if len(tag) < 10 or tag[:3] != b"ID3" or any(byte & 0x80 for byte in tag[6:]):
            break
        size = tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]
        offset += 10 + size + (10 if tag[5] & 0x10 else 0)
    return offset


def _of_chunked(head: bytes) -> Container | None:
    """RIFF and IFF files, which say at byte 8 what they hold."""
    kind = head[8:12]
    if head[:4] == b"RIFF":
        return WAV if kind == b"WAVE" else AVI if kind == b"AVI " else None
    if head[:4] == b"FORM":
        return AIFF if kind in (b"AIFF", b"AIFC") else None
    return None


def _of_signature(head: bytes) -> Container | None:
    for offset, magic, container in _SIGNATURES:
        if head.startswith(magic, offset):
            return container
    if _is_loas(head):
        return LOAS
    return MPEG_TS if _is_transport_stream(head) else None


def _is_loas(head: bytes) -> bool:
    """Whether frames follow each other that begin with the sync word of LOAS, 0x2b7 in 11 bits, and 13 of length."""
    at = 0
    for _ in range(_LOAS_FRAMES):
        if len(head) < at + 3 or head[at] != 0x56 or head[at + 1] & 0xE0 != 0xE0:
            return False
        at += 3 + ((head[at + 1] & 0x1F) << 8 | head[at + 2])
    return True


def _is_transport_stream(head: bytes) -> bool:
    """Whether a sync byte stands at the head of every packet, wherever the file begins (ISO/IEC 13818-1, 2.4.3.2)."""
    for size in (188, 192):  # as broadcast, and with a time before each packet, as cameras and discs have it
        for start in range(min(size, max(0, len(head) - _TS_PACKETS * size))):
            if all(head[start + i * size] == 0x47 for i in range(_TS_PACKETS)):
                return True
    return False


def _of_frames(head: bytes) -> Container | None:
    """MP3 and AAC, which have no file header: two frames in a row, or three where other bytes come first.

    Behind other bytes layer I does not count: any `ff ff` may begin one, and the jumps of a program for x86 do.
    """
    start = head.find(b"\xff")
    while 0 <= start < _JUNK_BYTES:
        for size_of, container in ((_mpeg_frame_bytes, MP3), (_adts_frame_bytes, AAC)):
            at, count = start, 0
            while count < 3 and (size := size_of(head[at : at + 7])):
                at, count = at + size, count + 1
            if count >= (3 if start else 2) and not (start and _is_layer_1(head[start + 1])):
                return container
        start = head.find(b"\xff", start + 1)
    return None


def _is_layer_1(byte: int) -> bool:
    """Of the second byte of a frame header."""
    return byte & 6 == 6


_BIT_RATES: dict[tuple[bool, int], tuple[int, ...]] = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s by MPEG-1 or not, layer, index - 1 (ISO/IEC 11172-3 and 13818-3, table of bitrate_index)."""


def _mpeg_frame_bytes(header: bytes) -> int:
    """The length of the MPEG audio frame with this header; 0 if it is none (free format is not accepted)."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate_index, frequency_index = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or rate_index in (0, 15) or frequency_index == 3:
        return 0
    mpeg1 = version == 3
    frequency = (44_100, 48_000, 32_000)[frequency_index] >> (0 if mpeg1 else 1 if version == 2 else 2)
    bits = _BIT_RATES[mpeg1, layer][rate_index - 1] * 1000
    padding = header[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // frequency + padding) * 4
    return (144 if mpeg1 or layer == 2 else 72) * bits // frequency + padding


def _adts_frame_bytes(header: bytes) -> int:
    """The length of the ADTS frame with this header; 0 if it is none."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return size if size >= 7 else 0
