"""Whether a figure can be read: for tests beside this file."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def assert_legible(figure):
    """Every text lies inside the figure, and no text lies over another."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    page = figure.bbox.padded(3)
    idle = tick_labels(figure) - shown_tick_labels(figure)
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text() and text not in idle]
    boxes = [(text, text.get_window_extent(renderer)) for text in texts]
    for text, box in boxes:
        assert page.x0 <= box.x0, text
        assert box.x1 <= page.x1, text
        assert page.y0 <= box.y0, text
        assert box.y1 <= page.y1, text
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.padded(-2).overlaps(second.padded(-2)), (one, other)


def tick_labels(figure):
    """The labels of all ticks that there are."""
    axes = [axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
    return {label for axis in axes for label in (*axis.get_majorticklabels(), *axis.get_minorticklabels())}


def shown_tick_labels(figure):
    """The labels of the ticks that are on their axis: the others are never drawn."""
    axes = [axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
    return {tick.label1 for axis in axes for tick in axis._update_ticks()}
