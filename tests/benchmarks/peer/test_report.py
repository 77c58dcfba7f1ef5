import xml.etree.ElementTree as ET
from dataclasses import replace

from benchmarks.peer.process import peak_bytes
from benchmarks.peer.report import Record, draw, merge, table

OURS = Record("one request of 10.0 s", "ours int8", "", 10.0, ((1.0, 1.0), (2.0, 2.0)), 2**20 * 300, 1, 20, {})
PEER = replace(OURS, system="peer <b>", rounds=((1.0, 3.0), (2.0, 5.0), (1.0, 2.0)), setup="2 at a time", edits=3)


def test_ratios_are_of_one_round() -> None:
    (row,) = (line for line in table([OURS, PEER]).splitlines() if line.startswith("| peer"))
    # The medians alone would give 3 s / 1 s = 3.
    assert row == "| peer <b> | 3.00 | 3.3 | 2.50 [2.00, 3.00] | 300 MB | 15.0 % of 20 | 2 at a time |"


def test_a_newer_record_takes_the_place_of_an_older() -> None:
    newer = replace(PEER, peak_bytes=1)
    other = replace(PEER, scenario="another")
    assert merge([OURS, PEER], [newer, other]) == [OURS, newer, other]


def test_bars_are_as_long_as_the_speed() -> None:
    drawing = ET.fromstring(draw([PEER, OURS], "a & b"))
    bars = [node for node in drawing.iter("{http://www.w3.org/2000/svg}rect") if node.get("fill") != "#fff"]
    ours, peer = (float(bar.get("width", "")) for bar in bars)  # the fastest first
    assert abs(peer / ours - 0.5) < 0.001


def test_peak_memory_is_read_from_the_status() -> None:
    assert peak_bytes("Name:\tpython\nVmPeak:\t   900 kB\nVmHWM:\t   512 kB\nVmRSS:\t   400 kB\n") == 512 * 1024
