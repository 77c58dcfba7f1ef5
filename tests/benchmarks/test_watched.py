from xml.etree import ElementTree

from benchmarks.watched import draw
from deploy.panels import Panel


def test_the_drawing_shows_every_line_inside_its_graph() -> None:
    panels = [
        (
            Panel(f"Panel <{number}>", "", "s", {}),
            [(f"line {line}", [(0.0, 0.0), (5.0, 2.0), (10.0, 1.0)]) for line in range(3)],
        )
        for number in range(4)
    ]
    tree = ElementTree.fromstring(draw("a & b", [*panels, (Panel("empty", "", "none", {}), [])], 10.0))
    lines = [element for element in tree.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 12
    for line in lines:
        points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert points[0][1] > points[2][1] > points[1][1] >= 18
    assert "Panel <3> (s)" in [element.text for element in tree.iter()]
