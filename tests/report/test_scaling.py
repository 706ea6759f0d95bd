"""The figure of what grows with the batch and with routing iterations: the numbers, the axes, what stands still."""

from dataclasses import replace

import pytest
from run_folder import key, record

pytest.importorskip("matplotlib")

from legible import assert_legible

from capsbench.record.schema import Metric
from capsbench.report.figures.scaling import draw_scaling
from capsbench.report.figures.style import style


@pytest.fixture(autouse=True)
def styled():
    """Figures are made inside the style."""
    with style():
        yield


def measured(mode, batch, iterations, *, seconds=None, peak=1000.0):
    """A case whose step takes a millisecond an image and iteration, or as long as is said."""
    value = 1e-3 * batch * iterations if seconds is None else seconds
    metrics = {
        "train_step_seconds": Metric(
            value=value, unit="s", direction="lower", kind="sampled", interval=(0.9 * value, 1.2 * value)
        ),
        "peak_bytes": Metric(value=peak * batch, unit="B", direction="lower", kind="exact"),
    }
    return replace(record(key(mode=mode, batch=batch, routing_iterations=iterations)), metrics=metrics)


def grid(modes=("eager", "fused")):
    """Three batches at three iterations, and one iteration more at the largest batch."""
    points = [(4, 3), (8, 3), (16, 3), (16, 1), (16, 2)]
    return [measured(mode, *point) for mode in modes for point in points]


def lines(panel):
    """The points of each line."""
    return [(list(bars[0].get_xdata()), list(bars[0].get_ydata())) for bars in panel.containers]


def test_lines_tell_the_numbers():
    """Each axis has the cases that differ in it alone; what stands still is written above."""
    figure = draw_scaling(grid(), "em-seed")
    assert_legible(figure)
    by_batch, by_iterations, peak_by_batch, _ = figure.axes
    assert lines(by_batch) == [([4, 8, 16], pytest.approx([0.012, 0.024, 0.048]))] * 2
    assert lines(by_iterations) == [([1, 2, 3], pytest.approx([0.016, 0.032, 0.048]))] * 2
    assert lines(peak_by_batch)[0] == ([4, 8, 16], [4000.0, 8000.0, 16000.0])
    assert (by_batch.get_title(), by_iterations.get_title()) == ("3 routing iterations", "batch 16")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["torch:eager", "torch:fused"]


def test_bars_are_the_intervals():
    """A time stands between the ends of its median's interval."""
    figure = draw_scaling(grid(("eager",)), "em-seed")
    [segments] = [bars[2][0].get_segments() for bars in figure.axes[0].containers]
    assert [tuple(segment[:, 1]) for segment in segments] == [
        pytest.approx((0.9 * value, 1.2 * value)) for value in (0.012, 0.024, 0.048)
    ]


def test_an_axis_with_one_value_is_left_out():
    """Without several batches there is no panel for them; without anything that varies there is no figure."""
    figure = draw_scaling([measured("eager", 8, t) for t in (1, 2, 3)], "em-seed")
    assert_legible(figure)
    assert [panel.get_xlabel() for panel in figure.axes] == ["", "Routing iterations"]
    assert draw_scaling([measured("eager", 8, 3), measured("fused", 8, 3)], "em-seed") is None
    assert draw_scaling([], "em-seed") is None
    assert draw_scaling([replace(each, metrics={}) for each in grid()], "em-seed") is None


def test_a_case_that_failed_is_no_point():
    """A realization that ran out of memory has a line as far as it came."""
    records = [*grid(("eager",)), *[replace(each, metrics={}) for each in grid(("tiled",))]]
    figure = draw_scaling(records, "em-seed")
    assert len(lines(figure.axes[0])) == 1


def test_networks_without_routing_grow_with_the_batch():
    """A CNN has no routing iterations to write above its panels."""
    records = [
        replace(record(key("cnn-seed", batch=batch, routing_iterations=None)), metrics=measured("eager", 8, 1).metrics)
        for batch in (8, 16)
    ]
    figure = draw_scaling(records, "cnn-seed")
    assert figure.axes[0].get_title() == ""
    assert_legible(figure)
