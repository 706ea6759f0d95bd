"""A short look, in every test run, at what tests/fuzz/campaign.py does at length."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutation import mutate
from targets import MAX_BYTES, targets

TARGETS = targets()
SEEDS = {name: target.seeds() for name, target in TARGETS.items()}


@pytest.mark.parametrize("name", TARGETS)
def test_sound_inputs_are_read(name, tmp_path):
    """What the campaign starts from is read without a complaint that is no sentence."""
    assert SEEDS[name]
    for seed in SEEDS[name]:
        TARGETS[name].read(seed, tmp_path)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=25)
@given(number=st.integers(0, 2**32))
def test_changed_inputs_are_read_or_refused(name, number, tmp_path):
    """Sound inputs with changes are read, or refused in a sentence; nothing else is raised."""
    target = TARGETS[name]
    chance = random.Random(number)  # noqa: S311 - it guards no secret
    target.read(mutate(chance, SEEDS[name], target.words, MAX_BYTES), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=25)
@given(data=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_read_or_refused(name, data, tmp_path):
    """So are bytes and texts that have nothing to do with the format."""
    TARGETS[name].read(data, tmp_path)


def test_mutations_repeat_and_stay_small():
    """The same seed gives the same inputs, so that a campaign can be repeated; none is larger than asked."""
    draws = [[mutate(random.Random(seed), [b"abc" * 40], (b"word",), 64) for seed in range(200)] for _ in range(2)]  # noqa: S311
    assert draws[0] == draws[1]
    assert len(set(draws[0])) > 100
    assert max(map(len, draws[0])) <= 64
