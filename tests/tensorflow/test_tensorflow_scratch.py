"""The last-level cache that convolutions fill, as far as the system tells."""

import pytest

from capsbench_tensorflow import scratch


@pytest.fixture
def processors(monkeypatch, tmp_path):
    """A function that makes processors of (socket, processors that share its cache)."""
    monkeypatch.setattr(scratch, "_PROCESSORS", tmp_path)
    scratch.last_level_cache_bytes.cache_clear()

    def make(*each, size="32768K"):
        for number, (socket, shared) in enumerate(each):
            for file, text in (
                ("topology/physical_package_id", socket),
                ("cache/index3/size", size),
                ("cache/index3/shared_cpu_list", shared),
            ):
                path = tmp_path / f"cpu{number}" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{text}\n", encoding="utf-8")

    yield make
    scratch.last_level_cache_bytes.cache_clear()


def test_one_cache_a_socket_is_known(processors):
    """Whether there is one socket or two."""
    processors((0, "0-1"), (0, "0-1"), (1, "2"))
    assert scratch.last_level_cache_bytes() == (32 << 20, 32 << 20)


def test_several_caches_a_socket_are_a_range(processors):
    """Eigen may see the cache of a group of cores, or of the whole socket."""
    processors((0, "0"), (0, "1"), (0, "2"), (1, "3"), size="16M")
    assert scratch.last_level_cache_bytes() == (16 << 20, 48 << 20)


@pytest.mark.parametrize("size", ["", "many", "12X"])
def test_what_the_system_hides_is_a_wide_range(processors, size):
    """No cache listed, or nothing that can be read."""
    if size:
        processors((0, "0"), size=size)
    low, high = scratch.last_level_cache_bytes()
    assert low < 1 << 20 < 1 << 28 < high
