"""Models in shards: the index is checked against the shards, and nothing outside of the folder is opened."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from analyzer.checkpoints import Checkpoint, open_checkpoint
from analyzer.checkpoints.sources import FileSource
from analyzer.errors import CheckpointError

Tensors = Mapping[str, np.ndarray]
RNG = np.random.default_rng(3)
TENSORS: Tensors = {
    f"model.layers.{layer}.{name}.weight": RNG.standard_normal((4, 3 + layer)).astype(np.float16)
    for layer in range(3)
    for name in ("mlp.up_proj", "self_attn.q_proj")
}
SHARDS = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
KEYS = [list(TENSORS)[2 * n : 2 * n + 2] for n in range(3)]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in three shards, as transformers saves it."""
    model = tmp_path / "model"
    model.mkdir()
    for name, keys in zip(SHARDS, KEYS, strict=True):
        save_file({key: TENSORS[key] for key in keys}, model / name, {"format": "pt"})
    write_index(model, weight_map())
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").write_text("{}")
    return model


def weight_map() -> dict[str, object]:
    return {key: name for name, keys in zip(SHARDS, KEYS, strict=True) for key in keys}


def write_index(folder: Path, weights: object) -> None:
    document = {"metadata": {"total_size": 168}, "weight_map": weights}
    (folder / INDEX).write_text(json.dumps(document))


def values(checkpoint: Checkpoint) -> dict[str, bytes]:
    read = {}
    for key, info in checkpoint.infos.items():
        buffer = np.empty(info.nbytes, np.uint8)
        checkpoint.read_into(info, 0, buffer)
        read[key] = buffer.tobytes()
    return read


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path).close()
    sentence = str(caught.value)
    assert sentence.isprintable()
    return sentence


@pytest.mark.parametrize("name", ["", INDEX])
def test_shards_read_as_the_single_file(folder: Path, name: str) -> None:
    """Named by the folder or by the index, the model has the same keys and bytes as in one file."""
    single = folder.parent / "single.safetensors"
    save_file(dict(TENSORS), single)
    with open_checkpoint(folder / name) as sharded, open_checkpoint(single) as whole:
        assert values(whole) == values(sharded)
        assert folder / name == sharded.path
        assert "sharded" == sharded.format
        assert {"format": "pt"} == sharded.metadata
        assert sum((folder / shard).stat().st_size for shard in SHARDS) == sharded.bytes
        assert {folder / file for file in (INDEX, *SHARDS)} == set(sharded.files)
        assert () == sharded.notes


def test_torch_shards_are_opened_too(tmp_path: Path) -> None:
    """The older form: pickles with an index of their own."""
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    torch.save({"a": torch.arange(3.0)}, tmp_path / names[0])
    torch.save({"b": torch.arange(6.0).reshape(2, 3).T}, tmp_path / names[1])
    weights = {"a": names[0], "b": names[1]}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weights}))
    with open_checkpoint(tmp_path) as checkpoint:
        read = values(checkpoint)
    assert np.arange(3, dtype=np.float32).tobytes() == read["a"]
    assert np.array([[0, 3], [1, 4], [2, 5]], np.float32).tobytes() == read["b"]


def test_the_fingerprint_depends_on_content_and_not_on_place(folder: Path) -> None:
    """A copy elsewhere is the same model; one other byte in a header is not."""
    with open_checkpoint(folder) as checkpoint:
        before = checkpoint.fingerprint()
    moved = shutil.copytree(folder, folder.parent / "elsewhere")
    with open_checkpoint(moved) as checkpoint:
        assert before == checkpoint.fingerprint()
    save_file({key: TENSORS[key] for key in KEYS[2]}, moved / SHARDS[2], {"format": "tp"})
    with open_checkpoint(moved) as checkpoint:
        assert before != checkpoint.fingerprint()
        assert {} == checkpoint.metadata


def test_a_snapshot_of_links_is_opened(folder: Path) -> None:
    """A Hugging Face cache keeps the files under their hashes, and links to them."""
    repository = folder.parent / "models--owner--name"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    with open_checkpoint(snapshot) as checkpoint, open_checkpoint(folder) as original:
        assert values(original) == values(checkpoint)
        assert original.fingerprint() == checkpoint.fingerprint()
    assert "snapshots/0123abcd" in refusal(repository)


def test_a_link_that_leads_nowhere_is_a_missing_shard(folder: Path) -> None:
    """The blob of an interrupted download is not there."""
    (folder / SHARDS[1]).unlink()
    (folder / SHARDS[1]).symlink_to(folder / "gone")
    assert f"1 of 3 files are missing: {SHARDS[1]}; the download is incomplete" in refusal(folder)


def test_all_missing_shards_are_named(folder: Path) -> None:
    """One look says what to download."""
    for name in SHARDS[:2]:
        (folder / name).unlink()
    assert f"2 of 3 files are missing: {SHARDS[0]}, {SHARDS[1]}; the download is" in refusal(folder)


def test_a_truncated_shard_is_named(folder: Path) -> None:
    """The opener of the file says what is wrong with it."""
    content = (folder / SHARDS[2]).read_bytes()
    (folder / SHARDS[2]).write_bytes(content[:-1])
    assert refusal(folder).startswith(f"{folder / SHARDS[2]}: truncated")


def test_a_key_that_the_shard_lacks(folder: Path) -> None:
    """The index promises more than there is."""
    write_index(folder, {**weight_map(), "lm_head.weight": SHARDS[0]})
    assert f"the index names what the shard lacks: 'lm_head.weight' of {SHARDS[0]}" in refusal(folder)


def test_a_key_that_the_index_does_not_name(folder: Path) -> None:
    """A shard holds more than the index says."""
    weights = weight_map()
    del weights[KEYS[1][0]]
    write_index(folder, weights)
    expected = f"a shard holds what the index does not name there: '{KEYS[1][0]}' of {SHARDS[1]}"
    assert expected in refusal(folder)


def test_a_key_that_lies_elsewhere(folder: Path) -> None:
    """The index puts a key into the wrong shard; both sides of the contradiction are told."""
    write_index(folder, {**weight_map(), KEYS[0][0]: SHARDS[1]})
    sentence = refusal(folder)
    assert f"the index names what the shard lacks: '{KEYS[0][0]}' of {SHARDS[1]}" in sentence
    assert f"the index does not name there: '{KEYS[0][0]}' of {SHARDS[0]}" in sentence


def test_a_key_in_two_shards(folder: Path) -> None:
    """Neither of two tensors of one name is taken silently."""
    twice = {key: TENSORS[key] for key in (*KEYS[1], KEYS[0][0])}
    save_file(twice, folder / SHARDS[1])
    expected = f"the same key stands in two shards: '{KEYS[0][0]}' in {SHARDS[0]} and {SHARDS[1]}"
    assert expected in refusal(folder)


OUTSIDE = [
    "/etc/passwd",
    "../secret.safetensors",
    "sub/../../secret.safetensors",
    "..",
    ".",
    "",
    "./a",
    "sub//a",
    "C:/secret.safetensors",
    "C:secret",
    "\\\\host\\share\\secret",
    "..\\secret.safetensors",
    "a\0b",
    "a\nb",
    "\ud800",
    "x" * 300,
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_shards_outside_of_the_folder_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Absolute paths, drives and climbing names end the reading before any shard is opened."""
    (folder.parent / "secret.safetensors").touch()
    opened = watch_files(monkeypatch)
    write_index(folder, {**weight_map(), "x": name})
    assert "names shards that are not plain names of files below its own folder" in refusal(folder)
    assert [folder / INDEX] == opened


def test_shards_in_a_sub_folder_are_opened(folder: Path) -> None:
    """Below the folder is inside of it."""
    (folder / "weights").mkdir()
    (folder / SHARDS[0]).rename(folder / "weights" / SHARDS[0])
    moved = {key: f"weights/{name}" if name == SHARDS[0] else name for key, name in weight_map().items()}
    write_index(folder, moved)
    with open_checkpoint(folder) as checkpoint:
        assert {key: TENSORS[key].tobytes() for key in TENSORS} == values(checkpoint)


BROKEN: dict[str, tuple[str, str]] = {
    "empty": ("", "cannot be read"),
    "no JSON": ("{", "cannot be read"),
    "a list": ("[]", "is not a JSON object"),
    "no weight_map": ("{}", "holds no weight_map"),
    "a list as weight_map": ('{"weight_map": ["a"]}', "holds no weight_map"),
    "an empty weight_map": ('{"weight_map": {}}', "its weight_map is empty"),
    "a number as shard": ('{"weight_map": {"a": 1}}', "names no file for the key 'a'"),
    "a key twice": ('{"weight_map": {"a": "x", "a": "y"}}', "the name 'a' stands twice"),
    "two maps": ('{"weight_map": {"a": "x"}, "weight_map": {"a": "y"}}', "'weight_map' stands twice"),
    "NaN": ('{"metadata": NaN, "weight_map": {"a": "x"}}', "NaN is not JSON"),
    "deep": ("[" * 100_000, "is nested too deeply"),
    "half a character as key": ('{"weight_map": {"\\ud800": "x"}}', "is not valid Unicode"),
    "a folder as shard": ('{"weight_map": {"a": "sub"}}', "is not a regular file"),
    "too many objects": ("[" * 1_000_001, "holds more than 1000000 objects and lists"),
    "the index itself": (f'{{"weight_map": {{"a": "{INDEX}"}}}}', "is a text file and not a model"),
}


@pytest.mark.parametrize(("text", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_broken_index_is_a_sentence(tmp_path: Path, text: str, expected: str) -> None:
    """Whatever the index holds, the user reads what is wrong."""
    (tmp_path / "sub").mkdir()
    (tmp_path / INDEX).write_text(text)
    assert expected in refusal(tmp_path)


@pytest.mark.parametrize(
    ("limit", "expected"), [("MAX_INDEX_BYTES", "is the most that is read"), ("MAX_SHARDS", "names 3 shards")]
)
def test_an_index_has_limits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: str
) -> None:
    """Neither its size nor the number of files to open is up to the file."""
    monkeypatch.setattr(f"analyzer.checkpoints.sharded.{limit}", 2)
    assert expected in refusal(folder)


def watch_files(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    opened: list[Path] = []
    start: Callable[[FileSource, Path], None] = FileSource.__init__

    def watched(self: FileSource, path: Path) -> None:
        opened.append(path)
        start(self, path)

    monkeypatch.setattr(FileSource, "__init__", watched)
    return opened


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*SHARDS, *OUTSIDE, "config.json", "absent"]) | st.text(max_size=20)
MAPS = st.fixed_dictionaries(
    {"weight_map": st.dictionaries(st.sampled_from(list(TENSORS)) | st.text(), NAMES)}
)
INDEXES = st.binary(max_size=200) | (JSON | MAPS).map(lambda value: json.dumps(value).encode())


@given(content=INDEXES)
def test_any_index_gives_a_model_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Nothing but CheckpointError is raised, and no file outside of the folder is opened."""
    folder = tmp_path_factory.getbasetemp() / "any-index"
    if not folder.exists():
        folder.mkdir()
        for name, keys in zip(SHARDS, KEYS, strict=True):
            save_file({key: TENSORS[key] for key in keys}, folder / name)
        (folder / "config.json").write_text("{}")
    (folder / INDEX).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        opened = watch_files(patch)
        try:
            open_checkpoint(folder).close()
        except CheckpointError as error:
            assert str(error).isprintable()
    assert all(folder in path.parents and ".." not in path.parts for path in opened)


def test_errors_leave_no_file_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All shards are opened before the last turns out to be damaged; all are closed again."""
    closed: list[Path] = []
    close = FileSource.close

    def watched(self: FileSource) -> None:
        closed.append(self.path)
        close(self)

    monkeypatch.setattr(FileSource, "close", watched)
    (folder / SHARDS[2]).write_bytes(b"{}")
    refusal(folder)
    assert {folder / name for name in (INDEX, *SHARDS)} == set(closed)


def test_shards_without_an_index_are_opened_if_all_are_there(folder: Path) -> None:
    """The headers are the truth, and the names say how many there are."""
    (folder / INDEX).unlink()
    with open_checkpoint(folder) as checkpoint:
        assert {key: TENSORS[key].tobytes() for key in TENSORS} == values(checkpoint)
    (folder / SHARDS[1]).unlink()
    assert "there are 2, and no index; the download is incomplete: get number 2 and" in refusal(folder)


def test_a_shard_by_itself_is_opened_with_a_note(folder: Path) -> None:
    """One may look at a part, but should know that it is one."""
    with open_checkpoint(folder / SHARDS[0]) as checkpoint:
        assert KEYS[0] == list(checkpoint.infos)
        assert f"{SHARDS[0]}: is shard 1 of 3; name its folder to open the whole model" == checkpoint.notes[0]


def test_two_hundred_shards_are_opened(tmp_path: Path) -> None:
    """The largest models come in that many."""
    names = {f"layer.{n}.weight": f"model-{n + 1:05}-of-00200.safetensors" for n in range(200)}
    for key, name in names.items():
        save_file({key: np.zeros(1, np.float32)}, tmp_path / name)
    write_index(tmp_path, names)
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(names) == set(checkpoint.infos)


@pytest.mark.parametrize("hard", [None, 50], ids=["may be raised", "may not"])
def test_many_shards_and_few_descriptors(tmp_path: Path, hard: int | None) -> None:
    """A program has 256 files at first on macOS: it asks for more, and where it gets none says what helps."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    names = {f"layer.{n}.weight": f"model-{n + 1:05}-of-00080.safetensors" for n in range(80)}
    for key, name in names.items():
        save_file({key: np.zeros(1, np.float32)}, tmp_path / name)
    write_index(tmp_path, names)
    limits = (50, hard or resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    program = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, {limits}); "
        f"import analyzer.cli; sys.argv = ['mergescope', 'inspect', {str(tmp_path)!r}]; analyzer.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (hard is not None) == done.returncode, done.stderr
    assert (hard is not None) == ("allow more, with `ulimit -n 4096`" in done.stderr)


def test_a_model_beside_its_shards_has_to_be_named(folder: Path) -> None:
    """Nothing says which of the two is meant."""
    save_file(dict(TENSORS), folder / "model.safetensors")
    assert "holds both model.safetensors and model.safetensors.index.json" in refusal(folder)
    with open_checkpoint(folder / "model.safetensors") as checkpoint:
        assert set(TENSORS) == set(checkpoint.infos)


def test_an_index_of_one_file_is_no_second_model(tmp_path: Path) -> None:
    """Some tools write an index also where there is one file."""
    save_file(dict(TENSORS), tmp_path / "model.safetensors")
    write_index(tmp_path, dict.fromkeys(TENSORS, "model.safetensors"))
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(TENSORS) == set(checkpoint.infos)
