"""The picture of a fabric: well-formed, complete for a small fabric, and legible for a large one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from fabrics import fabric, lab

from l3hv.model.plan import HostPlan
from l3hv.render.picture import MACHINES_DRAWN, Marks, draw, names_of, topology_of

SVG = "{http://www.w3.org/2000/svg}"
FABRIC_SVG = Path(__file__).parents[2] / "docs" / "fabric.svg"


def picture(plans: dict[str, HostPlan], marks: Marks | None = None) -> ElementTree.Element:
    return ElementTree.fromstring(draw(topology_of(plans.values()), names_of(plans.values()), marks))


def texts(drawn: ElementTree.Element) -> str:
    return "\n".join("".join(text.itertext()) for text in drawn.iter(f"{SVG}text"))


def test_the_lab_is_drawn_completely() -> None:
    shown = texts(picture(lab()))
    for word in (
        "hv1",
        "hv3",
        "rr1",
        "rr2",
        "internet",
        "path a",
        "path b",
        "198.51.100.128/25",
        "172.22.2.3",
    ):
        assert word in shown
    for word in ("vm1", "vm4", "203.0.113.2", "2001:db8:cb00:7103::/64", "+ 203.0.113.10", "⇢ 203.0.113.11"):
        assert word in shown
    assert "more" not in shown


def test_the_picture_in_the_documentation_is_that_of_the_lab(
    expect_file: Callable[[Path, str], None],
) -> None:
    plans = lab()
    expect_file(FABRIC_SVG, draw(topology_of(plans.values()), names_of(plans.values())))


def test_failures_are_marked_with_their_reason() -> None:
    marks = Marks({"rr1": "no BFD"}, {("hv2", "b"): "Idle"}, {"vm3": "no lease"}, {"vm4": "absent"})
    drawn = picture(lab(), marks)
    assert sorted({str(title.text) for title in drawn.iter(f"{SVG}title")}) == [
        "Idle",
        "absent",
        "no BFD",
        "no lease",
    ]
    broken = [element.get("class") for element in drawn.iter() if "broken" in (element.get("class") or "")]
    assert {"box broken", "riser broken", "chip broken"} <= set(broken)
    assert not any("broken" in (element.get("class") or "") for element in picture(lab()).iter())


def test_a_large_fabric_is_summarised_except_for_failures() -> None:
    many = fabric(60, 30)
    drawn = picture(many, Marks({"hv47": "down"}, {}, {"vm29": "no lease"}))
    shown = texts(drawn)
    boxes = [box for box in drawn.iter(f"{SVG}rect") if (box.get("class") or "").startswith("box")]
    assert len(boxes) <= MACHINES_DRAWN + 1
    assert "hv47" in shown
    assert "vm29" in shown
    assert re.search(r"and \d+ more hypervisors", shown)
    assert re.search(r"and \d+ more guests", shown)


def test_all_elements_are_inside_the_picture() -> None:
    for plans in (lab(), fabric(1, 1), fabric(40, 3)):
        drawn = picture(plans)
        width, height = (float(number) for number in drawn.get("viewBox", "").split()[2:])
        for box in drawn.iter(f"{SVG}rect"):
            assert float(box.get("x", 0)) >= 0
            assert float(box.get("x", 0)) + float(box.get("width", 0)) <= width
            assert float(box.get("y", 0)) + float(box.get("height", 0)) <= height


def test_boxes_do_not_overlap() -> None:
    for plans in (lab(), fabric(12, 6)):
        boxes = [
            tuple(float(box.get(key, 0)) for key in ("x", "y", "width", "height"))
            for box in picture(plans).iter(f"{SVG}rect")
            if (box.get("class") or "").startswith("box")
        ]
        for number, (x, y, width, height) in enumerate(boxes):
            for x2, y2, width2, height2 in boxes[number + 1 :]:
                apart = x + width <= x2 or x2 + width2 <= x or y + height <= y2 or y2 + height2 <= y
                assert apart


def test_names_are_escaped() -> None:
    plans = lab()
    topology = topology_of(plans.values())
    marks = Marks({"hv1": '"><script>'}, {}, {}, {})
    assert "<script>" not in draw(topology, names_of(plans.values()), marks)
