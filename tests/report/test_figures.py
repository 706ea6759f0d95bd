"""The figures: that they tell the numbers, fit their width, are legible, and come out the same every time."""

import struct
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
import run_folder
from run_folder import LAYERS, MB, key, record

mpl = pytest.importorskip("matplotlib")

from legible import assert_legible, shown_tick_labels  # noqa: E402 - only where matplotlib is installed
from matplotlib.text import Text  # noqa: E402 - only where it is installed

from capsbench.errors import BadInput  # noqa: E402
from capsbench.measure.histogram import Counter, read_histograms  # noqa: E402
from capsbench.report.figures import draw_run  # noqa: E402
from capsbench.report.figures.bars import TOP_OPS, draw_layers, draw_ops  # noqa: E402
from capsbench.report.figures.curves import Training, draw_learning, draw_routing  # noqa: E402
from capsbench.report.figures.style import look, short, style  # noqa: E402
from capsbench.report.figures.values import Values, draw_values  # noqa: E402
from capsbench.report.groups import groups  # noqa: E402
from capsbench.report.history import read_history  # noqa: E402
from capsbench.store.runs import create  # noqa: E402

LONG = "a_network_whose_name_is_as_long_as_a_name_may_be_in_capsbench"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A whole run, drawn: its store and the files."""
    store = run_folder.run(tmp_path_factory.mktemp("figures"))
    return store, draw_run(store, store.latest_records(), ("png",))


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A run of one case, drawn: its store and the files."""
    return draw_single(tmp_path_factory.mktemp("single"))


@pytest.fixture(autouse=True)
def styled():
    """Figures are made inside the style."""
    with style():
        yield


def texts(figure):
    """Everything written in a figure."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def lengths(panel):
    """The sum of the lengths of the bars at each row of a panel, by the row's name."""
    names = [label.get_text() for label in panel.get_yticklabels()]
    totals = dict.fromkeys(names, 0.0)
    for bar in panel.patches:
        totals[names[round(bar.get_y() + bar.get_height() / 2)]] += bar.get_width()
    return totals


def draw_single(folder):
    """Make and draw a run of one case."""
    store = create(folder, {})
    store.append(record(key()))
    run_folder.write_history(store.artifacts(key().id))
    run_folder.write_values(store.artifacts(key().id))
    return store, draw_run(store, store.latest_records())


def group_of(*records):
    """Records that stand side by side."""
    (group,) = groups(records)
    return group


@pytest.mark.exhaustive
def test_a_run_is_drawn_case_by_case_and_side_by_side(drawn):
    """Each case has the figures that it has data for, and the run those for which there is something to compare."""
    store, paths = drawn
    assert all(path.is_file() for path in paths)
    by_case = {}
    for path in paths:
        if "artifacts" in path.parts:
            by_case.setdefault(path.parts[-3], set()).add(path.stem)
    capsules = {"ops", "layers", "activations", "poses", "learning", "routing"}
    assert by_case == {
        "em-seed.mnist.torch-eager.b50.i2.s0": capsules,
        "em-seed.mnist.torch-eager.b50.i2.s1": capsules,
        "em-seed.mnist.tensorflow-graph.b50.i2.s0": capsules,
        "em-seed.toys.torch-eager.b50.i2.s0": capsules,
        "cnn-seed.mnist.torch-eager.b50.iNone.s0": {"ops", "layers", "learning"},
        "em-seed.mnist.torch-compile.b50.i2.s0": {"learning"},
    }
    assert {path.name.removesuffix(".png") for path in (store.folder / "figures").glob("*.png")} == {
        "ops.em-seed.mnist.b50.i2",
        "layers.em-seed.mnist.b50.i2",
        "routing.em-seed.mnist.b50.i2",
        "activations.em-seed.torch-eager.b50.i2",
        "poses.em-seed.torch-eager.b50.i2",
        "learning.mnist",
    }


@pytest.mark.parametrize("which", ["single", pytest.param("drawn", marks=pytest.mark.exhaustive)])
def test_pictures_are_as_wide_as_a_column_or_a_page(request, which):
    """3.4 inches for a case at 300 dpi, 7 where several stand side by side; SVGs as wide, with text as text."""
    for path in request.getfixturevalue(which)[1]:
        content = path.read_bytes()
        if path.suffix == ".png":
            width, _ = struct.unpack(">II", content[16:24])
            assert width == 1020 if "artifacts" in path.parts else width in {1020, 2100}
        else:
            root = ET.fromstring(content)  # noqa: S314 - our own file
            assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(244.8)
            assert root.findall(".//{http://www.w3.org/2000/svg}text")


def test_drawing_twice_gives_the_same_bytes(tmp_path, single):
    """No times, no random identifiers, no trace of the folder; what was drawn before is replaced, nothing left over."""
    store, before = draw_single(tmp_path)
    assert [path.name for path in before] == [path.name for path in single[1]]
    assert [path.read_bytes() for path in before] == [path.read_bytes() for path in single[1]]
    held = sorted(store.folder.rglob("*"))
    after = draw_run(store, store.latest_records(), ("svg",))
    assert after == tuple(path for path in before if path.suffix == ".svg")
    assert sorted(store.folder.rglob("*")) == held


def test_settings_of_matplotlib_are_left_alone():
    """Whoever draws their own figures in the same process finds their settings as they were, and ours as they are."""
    with mpl.rc_context({"font.size": 13, "axes.grid": True}):
        before = dict(mpl.rcParams)
        with style():
            assert (mpl.rcParams["font.size"], mpl.rcParams["axes.grid"]) == (8, False)
        assert dict(mpl.rcParams) == before


def test_op_bars_add_up_to_the_step():
    """The bars of each realization, other ops and the unattributed rest among them, sum to bytes and seconds."""
    one, other = record(), record(key(backend="tensorflow", mode="graph"), scale=1.5)
    figure = draw_ops(group_of(one, other), "two")
    by_bytes, by_time = figure.axes
    assert by_bytes.get_xlim()[0] == by_time.get_xlim()[0] == 0
    assert (by_bytes.get_xlabel(), by_time.get_xlabel()) == ("Allocated (MB)", "Self time (ms)")
    total = (one.step_profile_bytes + other.step_profile_bytes) / MB
    assert sum(lengths(by_bytes).values()) == pytest.approx(total)
    total = (one.step_profile_seconds + other.step_profile_seconds) * 1e3
    assert sum(lengths(by_time).values()) == pytest.approx(total)
    rows = list(lengths(by_bytes))
    assert rows[:3] == ["Mul", "Tile", "BatchMatMul"]
    assert rows[TOP_OPS:] == ["2 other ops", "(unattributed)"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["torch:eager", "tensorflow:graph"]
    assert_legible(figure)


def test_layer_bars_stand_in_the_order_of_the_network():
    """Phases stacked: forward at the axis, backward after it; rows by the equations, what has no layer last."""
    one = record()
    figure = draw_layers(group_of(one), "one")
    allocated, alive, seconds = figure.axes
    assert list(lengths(allocated)) == [*LAYERS, "(no layer)", "(before the step)", "(unattributed)"]
    for layer, length in lengths(allocated).items():
        if layer in LAYERS:
            assert length == pytest.approx(sum(e.allocated_bytes for e in one.ops if e.layer == layer) / MB)
    assert sum(lengths(alive).values()) == pytest.approx(sum(tensor.bytes for tensor in one.alive_at_peak) / MB)
    assert lengths(alive)["(before the step)"] == pytest.approx(4)
    assert sum(lengths(seconds).values()) == pytest.approx(one.step_profile_seconds * 1e3)
    forward, backward = (bar for bar in allocated.patches if round(bar.get_y() + bar.get_height() / 2) == 2)
    assert forward.get_width() == pytest.approx(backward.get_x())
    assert backward.get_width() == pytest.approx(2 * forward.get_width(), rel=1e-3)
    assert forward.get_hatch() != backward.get_hatch()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["forward", "backward", "optimizer"]
    assert_legible(figure)


def test_a_record_of_old_is_drawn_without_what_it_lacks():
    """Without the network's equations layers go by name; without a peak there is no panel of it."""
    ops = tuple(replace(event, live_bytes_at_peak=0) for event in record().ops if event.layer)
    figure = draw_layers(group_of(record(equations=(), alive_at_peak=(), ops=ops)), "old")
    assert [panel.get_xlabel() for panel in figure.axes] == ["Allocated (MB)", "Self time (ms)"]
    assert list(lengths(figure.axes[0]))[: len(LAYERS)] == sorted(LAYERS)


def test_nothing_is_drawn_of_a_case_without_a_profile():
    """A failed case has no bars, and a group of such cases no figure."""
    failed = run_folder.failed(key(batch=1000))
    assert draw_ops(group_of(failed), "") is None
    assert draw_layers(group_of(failed), "") is None
    assert draw_routing({"": failed.routing}, "") is None
    assert draw_values([Values("", {})], "poses", "") is None
    assert draw_learning([Training("", ((),))], "") is None
    one_left = draw_ops(group_of(record(), run_folder.failed(key(mode="compile"))), "")
    assert not one_left.legends


def histogram(values):
    """The histogram of an array."""
    counter = Counter()
    counter.add(np.atleast_2d(values))
    return counter.histogram()


def outline(panel, number=-1):
    """Values and edges of a stepped line; outlines stand behind their fills."""
    data = panel.patches[number].get_data()
    return data.values, data.edges


def test_densities_are_shares_of_all_values(tmp_path):
    """Activations of capsules span 0 to 1 and their area is one; poses leave a thousandth out at either end."""
    run_folder.write_values(tmp_path)
    found = Values("", read_histograms(tmp_path / "histograms.npz"))
    figure = draw_values([found], "activations", "one")
    assert [panel.get_title() for panel in figure.axes] == list(LAYERS[1:])
    for panel in figure.axes:
        values, edges = outline(panel)
        assert (edges[0], edges[-1]) == (0, 1)
        assert float((values * np.diff(edges)).sum()) == pytest.approx(1, abs=0.01)
        assert panel.get_yscale() == "log"
    assert_legible(figure)
    figure = draw_values([found], "poses", "one")
    for panel in figure.axes:
        values, edges = outline(panel)
        assert float((values * np.diff(edges)).sum()) == pytest.approx(0.998, abs=1e-3)
        assert panel.get_yscale() == "linear"
    assert_legible(figure)


def test_data_sets_share_their_axes(tmp_path):
    """Poses of two data sets are counted over the same bins, so that the wider ones look wider."""
    narrow, wide = (np.random.default_rng(0).normal(0, width, 4000) for width in (1, 3))
    sides = [
        Values("mnist", {("caps", "poses"): histogram(narrow)}),
        Values("toys", {("caps", "poses"): histogram(wide)}),
    ]
    figure = draw_values(sides, "poses", "two")
    (panel,) = figure.axes
    first, second = (outline(panel, number) for number in (1, 3))
    assert (first[1] == second[1]).all()
    assert first[1][-1] > 8
    assert first[0].max() > 2 * second[0].max()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mnist", "toys"]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.25, 1e30])
def test_one_value_again_and_again_is_drawn(value):
    """A layer that is dead, or saturated, is a single bar."""
    figure = draw_values([Values("", {("caps", "activations"): histogram(np.full(100, value))})], "activations", "x")
    values, _ = outline(figure.axes[0])
    assert (values > values.min()).sum() == 1
    assert_legible(figure)


def test_layers_without_capsules_are_drawn_where_there_are_no_others():
    """Capsules are what is asked for; of a CNN all layers are shown."""
    ones = histogram(np.ones(5))
    cnn = {("conv", "activations"): ones, ("logits", "activations"): ones}
    assert [p.get_title() for p in draw_values([Values("", cnn)], "activations", "").axes] == ["conv", "logits"]
    mixed = cnn | {("caps", "activations"): ones, ("caps", "poses"): ones}
    assert [p.get_title() for p in draw_values([Values("", mixed)], "activations", "").axes] == ["caps"]


def histories(folder, *accuracies, epochs=5):
    """Histories that reach these accuracies, as read from disk."""
    found = []
    for accuracy in accuracies:
        run_folder.write_history(folder, epochs=epochs, accuracy=accuracy)
        found.append(read_history(folder))
    return tuple(found)


def test_learning_curves_show_mean_and_range_over_seeds(tmp_path):
    """Accuracy in percent by epoch, one line for all seeds, and the loss below."""
    trained = histories(tmp_path, 0.9, 0.96)
    figure = draw_learning([Training("em-seed", trained), Training("cnn", histories(tmp_path, 0.99))], "two")
    above, below = figure.axes
    line = above.lines[0]
    assert list(line.get_xdata()) == [1, 2, 3, 4, 5]
    expected = [50 * (one.test_accuracy + other.test_accuracy) for one, other in zip(*trained, strict=True)]
    assert list(line.get_ydata()) == pytest.approx(expected)
    (band,) = above.collections
    top = 100 * max(history[-1].test_accuracy for history in trained)
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(top)
    assert (above.get_ylabel(), below.get_ylabel(), below.get_xlabel()) == ("Test accuracy (%)", "Train loss", "Epoch")
    assert list(below.lines[0].get_ydata()) == pytest.approx([epoch.train_loss for epoch in trained[0]])
    assert_legible(figure)


def test_eight_trainings_fit_their_legend(tmp_path):
    """Eight long names, some of which diverged, and forty epochs: all in the figure, nothing over another."""
    trained = histories(tmp_path, *(0.9 + i / 100 for i in range(8)), epochs=40)
    names = [f"{LONG}, tensorflow:graph, batch {i}" for i in range(8)]
    figure = draw_learning([Training(n, (t,)) for n, t in zip(names, trained, strict=True)], ", ".join(names[:2]))
    assert len({line.get_color() for line in figure.axes[0].lines}) == 8
    assert len({(line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines}) == 8
    assert len({text.get_text() for text in figure.legends[0].get_texts()}) == 8
    assert_legible(figure)


def test_a_single_epoch_is_a_point_at_a_whole_number(tmp_path):
    """Epoch 1 is labelled 1, not 0.945 to 1.05."""
    figure = draw_learning([Training("", histories(tmp_path, 0.9, epochs=1))], "short")
    figure.draw_without_rendering()
    shown = shown_tick_labels(figure) & set(figure.axes[1].get_xticklabels())
    assert [label.get_text() for label in shown] == ["1"]


def test_routing_is_drawn_by_layer_or_by_case():
    """One case has its layers as lines; several a row a layer; iterations count from 1; shares are percent."""
    metrics = record().routing
    figure = draw_routing({"": metrics}, "one")
    entropy, gain, starved = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(run_folder.ROUTED)
    assert list(entropy.lines[0].get_xdata()) == [1, 2, 3]
    assert list(entropy.lines[0].get_ydata()) == [m.coupling_entropy for m in metrics if m.layer == "conv_caps1"]
    assert list(gain.lines[2].get_ydata()) == [m.agreement_gain for m in metrics if m.layer == "class_caps"]
    assert max(starved.lines[2].get_ydata()) == pytest.approx(12)
    assert starved.get_ylabel() == "Starved share (%)"
    assert entropy.get_ylim() == gain.get_ylim() == pytest.approx((-0.05, 1.05))
    assert_legible(figure)
    figure = draw_routing({"torch:eager": metrics, "tensorflow:graph": run_folder.routing(2)}, "two")
    assert len(figure.axes) == 9
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["torch:eager", "tensorflow:graph"]
    assert_legible(figure)


def test_long_and_hostile_names_are_legible(tmp_path):
    """Layers of 40 characters, dollars that are no formula, letters that the font lacks: all of it is drawn as text."""
    layers = tuple(f"a_layer_with_a_name_of_forty_letters_{i:03d}" for i in range(11))
    hostile = key(network=LONG, backend="$\\frac{1}{$ 漢字\n\x1b[31m", mode="m" * 60, id="hostile")
    one, other = (
        record(case, ops=run_folder.events(layers=layers), equations=run_folder.equations(layers))
        for case in (hostile, key(network=LONG))
    )
    for figure in (draw_ops(group_of(one, other), LONG), draw_layers(group_of(one, other), f"{LONG}, $x_1$")):
        assert_legible(figure)
        assert not any("\n\x1b" in text for text in texts(figure))
    run_folder.write_values(tmp_path, layers=layers)
    assert_legible(draw_values([Values("", read_histograms(tmp_path / "histograms.npz"))], "poses", LONG))
    store = create(tmp_path, {})
    store.append(record(hostile, ops=one.ops))
    assert draw_run(store, store.latest_records(), ("png",))


def test_figures_of_a_run_have_sound_names_of_their_own(tmp_path):
    """Names that differ only in what no disk can hold do not overwrite one another."""
    store = create(tmp_path, {})
    for number, network in enumerate(("a/b", "A:b")):
        for mode in ("eager", "compile"):
            store.append(record(key(network=network, mode=mode, id=f"{number}{mode}"), routing=()))
    paths = [path for path in draw_run(store, store.latest_records(), ("svg",)) if "artifacts" not in path.parts]
    assert len({path.name.lower() for path in paths}) == len(paths) == 4
    assert all(path.parent == store.folder / "figures" for path in paths)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"epochs": [{"epoch": "x"}]}', b"\xff"])
def test_a_damaged_history_is_bad_input(tmp_path, content):
    """One sentence that names the file."""
    (tmp_path / "history.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"history\.json"):
        read_history(tmp_path)


def test_looks_and_short_names():
    """Sixteen series look different; a name that is cut keeps both its ends."""
    assert len({look(number) for number in range(16)}) == 16
    assert short("x" * 44) == "x" * 44
    assert short("begin" + "x" * 60 + "end", 11) == "begin…xxend"
    assert short("a\nb") == "a\\nb"
