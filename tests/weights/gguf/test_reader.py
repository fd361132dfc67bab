"""Against the gguf package's own writer, and against files that are not what they say."""

import struct

import numpy as np
import pytest
from gguf import GGUFReader

from octavo.errors import CheckpointError
from octavo.weights.gguf.reader import read_gguf

METADATA = {
    "llama.block_count": 3,
    "llama.rope.freq_base": 10000.5,
    "llama.flag": True,
    "general.name": "Größe 数",
    "tokenizer.ggml.tokens": ["a", "b c", "ü"],
    "tokenizer.ggml.token_type": [1, 3, -2],
    "tokenizer.ggml.scores": [0.5, -1.25, 3.0],
    "flags": [True, False],
}
TENSORS = {
    "first.weight": (np.arange(12.0).reshape(3, 4), "F32"),
    "second.weight": (np.linspace(-2, 2, 128).reshape(2, 64), "Q8_0"),
    "third": (np.arange(5.0), "F16"),
}


@pytest.mark.parametrize("alignment", [None, 8, 256])
def test_what_the_package_writes_is_read(written, alignment):
    path = written(METADATA, TENSORS, alignment=alignment)
    file = read_gguf(path)
    aligned = {"general.alignment": alignment} if alignment else {}
    assert dict(file.metadata) == {"general.architecture": "llama"} | aligned | METADATA
    assert {name: info.shape for name, info in file.tensors.items()} == {
        "first.weight": (3, 4),
        "second.weight": (2, 64),
        "third": (5,),
    }
    for theirs in GGUFReader(path).tensors:
        info = file.tensors[theirs.name]
        assert (info.start, info.size, info.kind) == (theirs.data_offset, theirs.n_bytes, theirs.tensor_type)
        assert file.raw(theirs.name).tobytes() == theirs.data.tobytes()
    file.close()


def test_runs_of_a_tensor(written):
    file = read_gguf(written(tensors={"stack": (np.arange(24.0).reshape(3, 2, 4), "F32")}))
    assert file.raw("stack", 1, 3).view(np.float32).tolist() == [8.0, 9, 10, 11, 12, 13, 14, 15]
    file.close()


def test_every_kind_of_number(tmp_path):
    """By hand: the writer of the package has no short way to some of them."""
    values = [(0, "B", 200), (1, "b", -5), (2, "H", 60000), (3, "h", -300), (10, "Q", 2**40), (11, "q", -(2**40))]
    values += [(12, "d", 0.1)]
    keys = [(f"k{kind}", kind, struct.pack("<" + code, value)) for kind, code, value in values]
    path = tmp_path / "model.gguf"
    path.write_bytes(header(keys=keys))
    assert list(read_gguf(path).metadata.values()) == [value for _, _, value in values]


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def header(keys=(), tensors=(), *, magic=b"GGUF", version=3, tensor_count=None, key_count=None, data=b"") -> bytes:
    """A file from its parts: keys are (name, type, bytes), tensors (name, dimensions, type, offset)."""
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    content = magic + struct.pack("<IQQ", version, *counts)
    for name, kind, value in keys:
        content += string(name) + struct.pack("<I", kind) + value
    for name, dimensions, kind, offset in tensors:
        content += string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)
    return content + bytes(-len(content) % 32) + data


def array(kind: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + data


def uint32(value: int) -> bytes:
    return struct.pack("<I", value)


F32, Q8_0 = 0, 8
U32, TEXT, LIST = 4, 8, 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a GGUF file, got 0 bytes"),
        (b"GG", "expected a GGUF file, got 2 bytes"),
        (b"GGUF", "truncated or damaged: the version needs 4 bytes from byte 4, and the file ends at 4"),
        (b"\x80\x04\x95" + bytes(99), "expected a GGUF file, which begins with b'GGUF', got b'.x80.x04.x95.x00'"),
        (b"<!DOCTYPE html>" + bytes(99), "expected a GGUF file, which begins with b'GGUF', got b'<!DO'"),
        (header(version=1), "GGUF version 1 is not supported"),
        (header(version=4), "GGUF version 4 is not supported"),
        (header(version=3 << 24), "a big-endian GGUF file"),
        (header(tensor_count=3 * 10**9), "it names 3,000,000,000 tensors and 0 keys"),
        (header(key_count=2**64 - 1), "it names 0 tensors and 18,446,744,073,709,551,615 keys"),
        (header([("a", U32, uint32(7))])[:38], "a needs 4 bytes from byte 37, and the file ends at 38"),
        (header([("x", 99, uint32(1))]), "x has value type 99, which is not known"),
        (header([("x", U32, uint32(1))] * 2), "key x occurs twice"),
        (header([("x", TEXT, struct.pack("<Q", 10**15))]), "x needs 1,000,000,000,000,000 bytes"),
        (header([("x", TEXT, string(b"\xff\xfe"))]), "x at byte .* is not UTF-8"),
        (header([(b"\xff", U32, uint32(1))]), "the name of key 0 at byte .* is not UTF-8"),
        (header([("x", 7, b"\x02")]), "x should be true or false, got 2"),
        (header([("x", LIST, array(LIST, 1, array(LIST, 1)))]), "x is a list of lists"),
        (header([("x", LIST, array(6, 2**62))]), "x brings the metadata to 4,611,686,018,427,387,904 values"),
        (header([("x", LIST, array(TEXT, 10**6))]), "x needs 8 bytes from byte"),
        (header([("x", LIST, array(6, 10**6))]), "x needs 4,000,000 bytes"),
        (header([("x", LIST, array(77, 1, bytes(64)))]), "x has value type 77"),
        (header([("general.alignment", U32, uint32(0))]), "general.alignment should be a power of two, got 0"),
        (header([("general.alignment", U32, uint32(48))]), "general.alignment should be a power of two, got 48"),
        (header([("general.alignment", TEXT, string("32"))]), "general.alignment should be a power of two, got 32"),
        (header([("general.alignment", 7, b"\x01")]), "general.alignment should be a power of two, got True"),
        (header(tensors=[("t", (4,), F32, 0)] * 2, data=bytes(64)), "tensor t occurs twice"),
        (header(tensors=[("t", (), F32, 0)], data=bytes(64)), "tensor t has 0 dimensions, expected 1 to 4"),
        (header(tensors=[("t", (1,) * 5, F32, 0)], data=bytes(64)), "tensor t has 5 dimensions"),
        (
            header(tensors=[("t", (4, 0), F32, 0)], data=bytes(64)),
            r"tensor t has shape \(0, 4\), expected rows of whole",
        ),
        (header(tensors=[("t", (33,), Q8_0, 0)], data=bytes(64)), "expected rows of whole Q8_0 blocks of 32"),
        (header(tensors=[("t", (4,), 4, 0)], data=bytes(64)), "tensor t has type 4, which is not known"),
        (header(tensors=[("t", (4,), 1000, 0)], data=bytes(64)), "tensor t has type 1000, which is not known"),
        (
            header(tensors=[("t", (4,), F32, 8)], data=bytes(64)),
            "tensor t has offset 8, no multiple of the alignment 32",
        ),
        (header(tensors=[("t", (4,), F32, 64)], data=bytes(64)), "tensor t reaches to byte .*truncated or damaged"),
        (
            header(tensors=[("t", (2**60,), F32, 0)], data=bytes(64)),
            "tensor t reaches to byte 4,611,686,018,427,387,968",
        ),
        (header(tensors=[("t", (2**63, 2**63), F32, 0)], data=bytes(64)), "tensor t reaches to byte"),
        (header(tensors=[("t", (4,), F32, 2**64 - 32)], data=bytes(64)), "tensor t reaches to byte"),
        (header(tensors=[("a", (16,), F32, 0), ("b", (4,), F32, 32)], data=bytes(96)), "tensor b overlaps a"),
        (header(tensors=[("a\n\x1b", (5,) * 5, F32, 0)], data=bytes(96)), r"tensor a\\n\\x1b has 5 dimensions"),
    ],
)
def test_files_that_are_not_what_they_say(tmp_path, content, message):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"model.gguf: .*{message}") as caught:
        read_gguf(path)
    assert "\n" not in str(caught.value)


def test_nothing_to_read(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere.gguf: cannot be read: No such file"):
        read_gguf(tmp_path / "nowhere.gguf")
    with pytest.raises(CheckpointError, match=r"cannot be read: Is a directory"):
        read_gguf(tmp_path)
    with pytest.raises(CheckpointError, match=r"something that is no regular file"):
        read_gguf("/dev/null")


def test_truncated_anywhere(written, tmp_path):
    """Each cut is found, in the header and in the data; what follows the last tensor may be missing."""
    content = written(METADATA, TENSORS).read_bytes()
    end = max(info.start + info.size for info in read_gguf(tmp_path / "model.gguf").tensors.values())
    cut = tmp_path / "cut.gguf"
    for length in range(end):
        cut.write_bytes(content[:length])
        with pytest.raises(
            CheckpointError, match=r"cut.gguf: (truncated or damaged|expected a GGUF|tensor .* reaches)"
        ):
            read_gguf(cut)
    cut.write_bytes(content[:end])
    read_gguf(cut)


def test_a_file_with_holes_brings_no_flood(tmp_path):
    """A terabyte that takes no room on disk: its metadata is refused before it is in memory."""
    path = tmp_path / "model.gguf"
    for keys, message in [
        ([("x", LIST, array(0, 1 << 22))], "key  occurs twice"),  # fits, and zeros follow
        (
            [("x", LIST, array(0, 1 << 24))],
            "x brings the metadata to 16,777,216 values; no model has more than 8,388,608",
        ),
        ([("x", TEXT, struct.pack("<Q", 1 << 40))], "no header is known to go beyond byte 67,108,864"),
    ]:
        with open(path, "wb") as file:
            file.write(header(keys, key_count=10**9))
            file.truncate(1 << 40)
        with pytest.raises(CheckpointError, match=message):
            read_gguf(path)
    with open(path, "wb") as file:
        file.write(header(tensor_count=10**9))
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="it names 1,000,000,000 tensors"):
        read_gguf(path)
