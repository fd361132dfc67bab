"""Where kernels cannot be made, one line says why; what is made is made once and lies whole in the cache."""

import ctypes
import sys

import pytest

from octavo.native import build as rooms
from octavo.native import library
from octavo.native.build import NoKernelsError, build


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTAVO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """body of a Python script -> it is the C compiler, and notes each call."""

    def install(body):
        script = tmp_path / "mycc"
        script.write_text(
            f"#!{sys.executable}\nimport sys\n"
            f"if '--version' in sys.argv: print('mycc 1'); sys.exit()\n"
            f"open({str(tmp_path / 'calls')!r}, 'a').write(' '.join(sys.argv) + '\\n')\n{body}"
        )
        script.chmod(0o755)
        monkeypatch.setenv("CC", str(script))
        return lambda: (tmp_path / "calls").read_text().splitlines()

    return install


def test_no_compiler(cache, tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoKernelsError, match="no C compiler"):
        build()


def test_a_compiler_that_fails(cache, compiler):
    compiler("sys.exit('extend.h:1: error: what is this?')")
    with pytest.raises(NoKernelsError, match=r"mycc failed: extend.h:1: error: what is this\?"):
        build()
    assert list(cache.iterdir()) == []


def test_a_folder_that_cannot_be_written(compiler, tmp_path, monkeypatch):
    compiler("")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OCTAVO_CACHE", str(tmp_path / "file"))
    with pytest.raises(NoKernelsError, match=r"cannot write .*/file/kernels/"):
        build()


def test_compiled_once_and_again_when_damaged(cache, compiler, monkeypatch):
    """The compiler here writes 'library' as its output; what is loaded must be that, whole."""
    calls = compiler("open(sys.argv[sys.argv.index('-o') + 1], 'w').write('library')")

    def load(path):
        if path.read_text() != "library":
            raise OSError("file too short")
        return ctypes.CDLL(None)

    monkeypatch.setattr(rooms, "_load", load)
    _, made_with = build()
    assert made_with.startswith("mycc 1")
    (made,) = cache.iterdir()
    assert made.read_text() == "library"
    assert len(calls()) == 2  # to an object, to a library
    build()
    assert len(calls()) == 2
    made.write_text("libr")
    build()
    assert made.read_text() == "library"
    assert len(calls()) == 4


def test_other_sources_are_another_library(cache, compiler, monkeypatch, tmp_path):
    compiler("open(sys.argv[sys.argv.index('-o') + 1], 'w').write('library')")
    monkeypatch.setattr(rooms, "_load", lambda path: ctypes.CDLL(None))
    build()
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "octavo.c").write_text("int one;")
    monkeypatch.setattr(rooms, "_SOURCES", sources)
    build()
    assert len(list(cache.iterdir())) == 2


def test_a_library_that_computes_wrongly_is_not_used(monkeypatch):
    """Found by the check at loading: the rows of a product are all zeros here."""
    real, _ = build() if library.available() else pytest.skip(library.status().why)

    class Wrong:
        def __getattr__(self, name):
            return (lambda *_: None) if name == "octavo_multiply" else getattr(real, name)

    with pytest.raises(NoKernelsError, match="wrong results"):
        library._check(Wrong())
    monkeypatch.setattr(library, "build", lambda: (_ for _ in ()).throw(NoKernelsError("no C compiler")))
    library._load.cache_clear()
    try:
        assert library.status() == library.Status(False, "no C compiler")
        assert not library.available()
    finally:
        library._load.cache_clear()
