"""What names a person, a host or a secret goes; everything else stays as it is."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from capsbench.measure.environment import Commit, describe_environment, machine_class, without_identity
from capsbench.measure.privacy import Identity, identity_of, scrub, scrubbed, tilde

VARIABLES = {
    "HOME": "/data/people/ann",
    "USER": "ann",
    "LOGNAME": "ann-smith",
    "HOSTNAME": "curie.lab.example.org",
    "HF_TOKEN": "hf_abcdef123456",
    "AWS_SECRET_ACCESS_KEY": "wJalr/XUtn+FEMI",
    "EDITOR": "vi",
    "EMPTY_SECRET": "",
}
WHO = identity_of(VARIABLES, "ann", "curie")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot read /data/people/ann/kernels/a.py:12", "cannot read ~/kernels/a.py:12"),
        ("/data/people/ann: no space left", "~: no space left"),
        ("/data/people/anna/x and /mnt/data/people/ann/x", "/data/people/anna/x and /mnt/data/people/<user>/x"),
        ("in /home/bob/x.py, /Users/eve/y.py and C:\\Users\\Max\\z.py", "in ~/x.py, ~/y.py and ~\\z.py"),
        ("ann-smith@curie.lab.example.org", "<user>@<host>"),
        ("on curie, by ann: annotated, Curies", "on <host>, by <user>: annotated, Curies"),
        ("token hf_abcdef123456!", "token <HF_TOKEN>!"),
        ("key=wJalr/XUtn+FEMI", "key=<AWS_SECRET_ACCESS_KEY>"),
        ("https://bob:pw@example.org/r.git, ssh://git@example.org", "https://example.org/r.git, ssh://example.org"),
        ("ran out of memory: 12.0 GiB", "ran out of memory: 12.0 GiB"),
    ],
)
def test_what_names_somebody_goes(text, expected):
    """Home folders become ~, whoever's they are, names and secrets what they are; words that hold a name stay."""
    assert scrub(text, WHO) == expected


@given(st.text())
@example("/home//x")
@example("~/home/ann")
def test_scrubbing_twice_changes_nothing_more(text):
    """And none of what goes is left."""
    once = scrub(text, WHO)
    assert scrub(once, WHO) == once
    for part in ("/data/people/ann/x", "curie", "hf_abcdef123456"):
        assert part not in scrub(f"{text} {part} {text}", WHO)


@pytest.mark.parametrize("name", ["root", "torch", "tensorflow", "mnist", "x", ""])
def test_words_of_ours_are_nobodys_names(name):
    """An image whose user is called tensorflow loses no backend, and / is nobody's home."""
    who = identity_of({"USER": name, "HOME": "/", "HOSTNAME": name}, name, name)
    assert who == Identity((), (), ())
    assert scrub("torch and tensorflow on mnist /x", who) == "torch and tensorflow on mnist /x"


def test_plain_data_is_scrubbed_whole(monkeypatch):
    """Texts at any depth, nothing else."""
    monkeypatch.setattr("capsbench.measure.privacy._this_process", lambda: WHO)
    data = {"a": ["/data/people/ann/x", 1, None, {"b": (True, 2.5, "on curie")}]}
    assert scrubbed(data) == {"a": ["~/x", 1, None, {"b": [True, 2.5, "on <host>"]}]}
    assert tilde("/data/people/ann/x of ann", WHO) == "~/x of ann"


def test_an_environment_without_identity_tells_the_kind_of_machine():
    """Processor, cores and versions stay; commit, kernel release and memory to the byte go; twice is once."""
    here = describe_environment()
    told = without_identity(here)
    assert (told.machine.processor, told.machine.cores, told.packages) == (
        here.machine.processor,
        here.machine.cores,
        here.packages,
    )
    assert told.commit is None or isinstance(here.commit, Commit)
    assert told.commit is None
    assert " " not in told.machine.system
    assert told.machine.memory_bytes.bit_count() == 1
    assert 0.7 < told.machine.memory_bytes / here.machine.memory_bytes < 1.42
    assert machine_class(told.machine) == told.machine
