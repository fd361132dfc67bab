import pytest

from octavo.errors import PullError
from octavo.pull.files import HubFile, is_pickle, needed

SHARDS = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
COMMON = ["README.md", ".gitattributes", "config.json", "tokenizer.json", "vocab.json", "merges.txt", "LICENSE"]


def test_shards_come_with_their_index_and_the_config_comes_first():
    names = [*SHARDS, *COMMON, "model.safetensors.index.json", "generation_config.json", "pytorch_model.bin", "a.png"]
    assert needed(names, "o/n") == [
        "config.json", "LICENSE", "generation_config.json", "tokenizer.json", *SHARDS, "model.safetensors.index.json",
    ]  # fmt: skip


def test_weights_that_are_published_twice_come_once():
    names = [*SHARDS, *COMMON, "model.safetensors", "model.safetensors.index.json", "consolidated.safetensors"]
    assert needed(names, "o/n")[-1] == "model.safetensors"
    assert not set(SHARDS) & set(needed(names, "o/n"))


def test_files_in_folders_are_no_part_of_the_model():
    assert needed([*COMMON, "model.safetensors", "onnx/model.safetensors"], "o/n").count("model.safetensors") == 1
    with pytest.raises(PullError, match="no weights"):
        needed([*COMMON, "onnx/model.safetensors"], "o/n")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "x/y.pth", "last.ckpt", "a.pkl"])
def test_pickles(name):
    assert is_pickle(name)
    with pytest.raises(PullError, match="can run any code"):
        needed(["config.json", name], "o/n")


def test_a_large_file_is_named_by_sha256_a_small_one_by_git(tmp_path):
    path = tmp_path / "file"
    # `printf hello | sha256sum`, `printf hello | git hash-object --stdin`
    sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    for file in (
        HubFile("x/file", 5, sha256, None),
        HubFile("file", 5, None, "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"),
    ):
        path.write_bytes(b"hello")
        file.check(path, "it")
        assert file.local_name == "file"
        path.write_bytes(b"hallo")
        with pytest.raises(PullError, match="it states"):
            file.check(path, "it")
        assert not path.exists()
