"""The list of published files, and the addresses that are taken for mirrors."""

import gzip
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from capsbench.dataset.catalog import DATASETS
from capsbench.dataset.sources import Name, SourceFile, check_mirror, find_published, read_sources, shown
from capsbench.errors import BadInput


def sha256(content):
    """The hash of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://example.org/a/b", "https://example.org/a/b/"),
        ("https://example.org", "https://example.org/"),
        ("http://localhost:8000/x/", "http://localhost:8000/x/"),
        ("http://[::1]:8000", "http://[::1]:8000/"),
    ],
)
def test_a_mirror_is_a_folder_behind_tls(url, address):
    """TLS anywhere and http on this machine are taken, with one slash at the end."""
    assert check_mirror(url, "--from") == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mirror",
        "http://example.org/",
        "ftp://example.org/",
        "file:///tmp",
        "https://",
        "https://a/?b=",
        "https://[/",
    ],
)
def test_other_mirrors_are_refused(url):
    """Anything else is bad input."""
    with pytest.raises(BadInput, match=r"--from: .* is no mirror"):
        check_mirror(url, "--from")


def test_a_password_is_not_shown():
    """What stands before the host of an address is for the server alone."""
    assert shown("https://me:secret@example.org/a@b/") == "https://example.org/a@b/"


def test_the_list_is_what_the_catalogue_reads():
    """Each listed data set has the files that are read, complete, compressed, and behind TLS."""
    sources = read_sources()
    assert set(sources) == {"smallnorb", "mnist", "fashion-mnist", "kmnist"}
    idx = {f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")}
    norb = {
        f"smallnorb-{split}-{kind}.mat.gz"
        for split in ("5x46789x9x18x6x2x96x96-training", "5x01235x9x18x6x2x96x96-testing")
        for kind in ("dat", "cat", "info")
    }
    for name, source in sources.items():
        assert {file.name for file in source.files} == (norb if name == "smallnorb" else idx)
        assert all(check_mirror(mirror, name) == mirror for mirror in source.mirrors)
        assert name not in DATASETS or not DATASETS[name].synthetic
    files = [file for source in sources.values() for file in source.files]
    hashes = [each for file in files for each in (file.sha256, file.content_sha256) if each]
    assert len(set(hashes)) == len(hashes)


def test_the_content_decides(tmp_path):
    """Published content is found plain, as published and packed otherwise; other content and damage are not."""
    published, other = gzip.compress(b"images", 9), gzip.compress(b"images", 1)
    known = SourceFile(name="a.gz", bytes=1, sha256=sha256(published), content_sha256=sha256(b"images"))
    unknown = SourceFile(name="a.gz", bytes=1, sha256=sha256(published))
    packed, plain = tmp_path / "a.gz", tmp_path / "a"
    for content, finds in (
        (published, [packed] * 2),
        (other, [packed, None]),
        (other[:-9], [None] * 2),
        (b"", [None] * 2),
    ):
        packed.write_bytes(content)
        assert [find_published(file, tmp_path) for file in (known, unknown)] == finds
    plain.write_bytes(b"images")
    assert [find_published(file, tmp_path) for file in (known, unknown)] == [plain, None]


ENTRY = "datasets:\n  {name}:\n    mirrors: [{mirror}]\n    files: [{{name: {file}, bytes: 3, sha256: {sha256}}}]\n"
FINE = {"name": "set", "mirror": "https://example.org/", "file": "a.gz", "sha256": "a" * 64}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ".."},
        {"name": "a/b"},
        {"file": "../a.gz"},
        {"file": "/etc/passwd"},
        {"file": ".hidden"},
        {"file": '"a\\nb"'},
        {"sha256": "abc"},
        {"mirror": "http://example.org/"},
        {"mirror": "https://example.org"},
        {"mirror": "https://me@example.org/"},
    ],
)
def test_a_list_that_leads_astray_is_refused(tmp_path, wrong):
    """Names that could leave their folder, unknown checksums and mirrors without TLS are refused with their place."""
    path = tmp_path / "sources.yaml"
    path.write_text(ENTRY.format(**FINE))
    assert list(read_sources(path)) == ["set"]
    path.write_text(ENTRY.format(**FINE | wrong))
    with pytest.raises(BadInput, match=r"sources\.yaml:"):
        read_sources(path)


def test_a_file_listed_twice_is_refused(tmp_path):
    """Two entries of one name cannot both be right."""
    path = tmp_path / "sources.yaml"
    entry = "{name: a.gz, bytes: 3, sha256: " + "a" * 64 + "}"
    path.write_text(f"datasets: {{set: {{mirrors: ['https://example.org/'], files: [{entry}, {entry}]}}}}")
    with pytest.raises(BadInput, match="comes twice"):
        read_sources(path)


@given(st.text("aZ09._-/\\\n\0 ~é", max_size=8))
def test_no_listed_name_leaves_its_folder(text):
    """Whatever passes for a name lies directly in its folder, and is not hidden."""
    try:
        name = TypeAdapter(Name).validate_python(text)
    except ValidationError:
        return
    assert os.path.normpath(f"/folder/{name}") == f"/folder/{text}"
    assert len(Path("/folder", name).parts) == 3
    assert not name.startswith(".")
