"""The two frameworks train a network without routing alike, dropout included."""

import pytest
from whole_runs import AGREEMENT, run

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

SUITE = f"""\
{AGREEMENT}
networks: [cnn-tiny]
measure: [accuracy]
"""


def test_losses_agree(tmp_path):
    """Over 20 train steps in float32, augmentation and dropout included, losses agree to 1e-3 relative."""
    _, records = run(tmp_path, SUITE)
    losses = {record["case"]["backend"]: record["losses"] for record in records}
    assert len(losses["torch"]) == 20
    assert losses["torch"] == pytest.approx(losses["tensorflow"], rel=1e-3)
    assert len(set(losses["torch"])) > 10
