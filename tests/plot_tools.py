"""What a reader sees of a figure: its texts, and that nothing is cut off or overlaps."""

from __future__ import annotations

from itertools import combinations

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

needs_new_text = pytest.mark.skipif(
    tuple(map(int, matplotlib.__version__.split(".")[:2])) < (3, 11),
    reason="matplotlib 3.11: texts are as wide as the pictures are laid out for",
)


def shown(figure: Figure) -> list[Text]:
    """All texts that are drawn, in any axes or legend."""
    figure.draw_without_rendering()
    hidden: list[Text] = []  # of axes that are off, and of ticks beyond the limits
    for axis in [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not axis.axes.axison or not low <= tick.get_loc() <= high:
                hidden += tick.findobj(Text)
    found = [
        text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()
    ]
    return [text for text in found if text not in hidden]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in shown(figure)]


def check_canvas(figure: Figure) -> None:
    """Check that all texts lie inside the canvas, and that no texts or axes overlap each other."""
    page = figure.bbox
    boxes = {text: text.get_window_extent() for text in shown(figure)}
    for text, box in boxes.items():
        inside = box.x0 >= page.x0 and box.y0 >= page.y0 and box.x1 <= page.x1 and box.y1 <= page.y1
        assert inside, f"{text.get_text()!r} is cut off"
    for (one, first), (other, second) in combinations(boxes.items(), 2):
        assert not overlap(first, second), f"{one.get_text()!r} overlaps {other.get_text()!r}"
    areas = [ax.get_window_extent() for ax in figure.axes if ax.axison]
    assert not any(overlap(first, second) for first, second in combinations(areas, 2))
    assert all(
        min(box.x0, box.y0) >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1 for box in areas
    )


def overlap(first: Bbox, second: Bbox, slack: float = 4.0) -> bool:
    """Check if two boxes share more than ``slack`` pixels, the room that fonts leave at letters."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return bool(width > slack and height > slack)
