"""Opening models: files that are none, folders, reading from many threads, and the fingerprint."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from analyzer.checkpoints import open_checkpoint
from analyzer.errors import CheckpointError

KIB = 1024
# Tensors below, at and above the size from which the fingerprint takes samples.
TENSORS = {
    f"t{size}": np.random.default_rng(size).integers(0, 256, size, np.uint8)
    for size in (0, 1, 4096, 12 * KIB, 12 * KIB + 1, 100_001)
}


def refusal(path: Path) -> str:
    """What is said about the path, after its name."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path).close()
    name, _, sentence = str(caught.value).partition(": ")
    assert str(path) == name
    assert sentence.isprintable()
    return sentence


def fingerprint(path: Path) -> str:
    with open_checkpoint(path) as checkpoint:
        return checkpoint.fingerprint()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, {"format": "pt"})
    return path


FOREIGN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty; download it again"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "Git LFS pointer"),
    "web page": (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "is a web page and not a model"),
    "text": ("Erklärung: zu groß".encode(), "is a text file and not a model"),
    "text, cut within a letter": (b"x" * 4095 + "é".encode(), "is a text file and not a model"),
    "JSON": (b'{"error": "not found"}', "is a text file and not a model"),
    "GGUF, cut off": (b"GGUF\3\0\0\0\0\0\0\0", "truncated: the header goes on after the end of the file"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    "NumPy": (b"\x93NUMPY\1\0", "is a NumPy array"),
    "gzip": (b"\x1f\x8b\x08\0", "is a gzip archive; unpack it first"),
    "empty zip": (b"PK\5\6" + bytes(18), "is an empty zip archive"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".model"])
@pytest.mark.parametrize(("content", "expected"), FOREIGN.values(), ids=FOREIGN)
def test_files_that_are_no_models_are_recognised(
    tmp_path: Path, content: bytes, expected: str, suffix: str
) -> None:
    """What was saved instead of a model is said, whatever its name."""
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    assert expected in refusal(path)


def test_other_bytes_are_of_no_known_format(tmp_path: Path) -> None:
    """Without a sign in content or name there is nothing more to say than what can be opened."""
    path = tmp_path / "m.dat"
    path.write_bytes(np.random.default_rng(2).bytes(100))
    assert "is of no known format; name a .safetensors or .gguf file, or a torch checkpoint" in refusal(path)


def test_a_zip_of_models_is_told_to_be_unpacked(tmp_path: Path) -> None:
    """A zip archive that torch did not write is no checkpoint."""
    path = tmp_path / "m.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner/model.safetensors", save(TENSORS))
    assert "is a zip archive without data.pkl" in refusal(path)


@pytest.mark.parametrize("name", ["model.ckpt", "model.bin", "model", "model.SAFETENSORS"])
def test_the_content_decides_not_the_name(model: Path, name: str) -> None:
    """A safetensors file opens under any name."""
    renamed = model.rename(model.with_name(name))
    with open_checkpoint(renamed) as checkpoint:
        assert ("safetensors", set(TENSORS)) == (checkpoint.format, set(checkpoint.infos))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The commonest mistake: a misspelt name."""
    assert "no such file; check the spelling of its name" == refusal(tmp_path / "nope.safetensors")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(13, "Permission denied"), "permission denied; allow reading it"),
        (OSError(5, "Input/output error"), "input/output error"),
    ],
)
def test_a_file_that_cannot_be_opened_says_why(
    model: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, expected: str
) -> None:
    """The system's reason, in the sentence."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", fail)
    assert expected in refusal(model)


def test_a_name_that_no_file_can_have_says_why(tmp_path: Path) -> None:
    """The system refuses to look; so do we, with its reason."""
    assert "file name too long" in refusal(tmp_path / ("x" * 300))
    with pytest.raises(CheckpointError, match="embedded null byte"):
        open_checkpoint(tmp_path / "x\0y")


def test_a_link_to_itself_says_why(tmp_path: Path) -> None:
    """Whatever the system says of a path comes as a sentence."""
    path = tmp_path / "loop"
    path.symlink_to(path)
    assert "too many levels of symbolic links" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    """Reading by position needs a regular file; opening a pipe would hang."""
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in refusal(tmp_path / "pipe")


def test_a_folder_of_many_models_lists_some(tmp_path: Path) -> None:
    """Nothing says which one is meant; the list of them has an end."""
    for number in range(12):
        (tmp_path / f"{number:02}.pt").touch()
    assert refusal(tmp_path).startswith("holds several models, and nothing says which is meant; name one")
    assert refusal(tmp_path).endswith("08.pt, 09.pt and 2 more")


def test_a_folder_that_cannot_be_listed_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permission to look into a folder may be missing."""

    def fail(_path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", fail)
    assert "is a folder that cannot be listed (Permission denied)" in refusal(model.parent)


def test_a_folder_without_models_says_what_was_looked_for(tmp_path: Path) -> None:
    """A folder of other things is a mistake of another kind."""
    assert "is a folder without a model; looked for model.safetensors, pytorch_model" in refusal(tmp_path)


@pytest.mark.parametrize("positional", [True, False], ids=["preadv", "seek and read"])
def test_threads_read_the_same_bytes(model: Path, monkeypatch: pytest.MonkeyPatch, positional: bool) -> None:
    """Four threads on one open model get what one gets, also where the system has no positional reads."""
    if not positional:
        monkeypatch.delattr(os, "preadv", raising=False)
    with open_checkpoint(model) as checkpoint:

        def read(seed: int) -> bool:
            rng = np.random.default_rng(seed)
            for _ in range(200):
                key = str(rng.choice(list(TENSORS)))
                start, end = sorted(rng.integers(0, len(TENSORS[key]) + 1, 2).tolist())
                part = np.empty(end - start, np.uint8)
                checkpoint.read_into(checkpoint.infos[key], start, part)
                if not np.array_equal(TENSORS[key][start:end], part):
                    return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert [True] * 4 == list(pool.map(read, range(4)))


def test_partial_reads_are_completed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may deliver less than asked, as Linux does beyond 2 GiB."""
    if not hasattr(os, "preadv"):
        pytest.skip("no positional reads on this system")
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: preadv(fd, [buffers[0][:1000]], at))
    with open_checkpoint(model) as checkpoint:
        part = np.empty(100_001, np.uint8)
        checkpoint.read_into(checkpoint.infos["t100001"], 0, part)
    np.testing.assert_array_equal(TENSORS["t100001"], part)


@pytest.mark.parametrize("positional", [True, False], ids=["preadv", "seek and read"])
def test_a_file_that_shrinks_while_it_is_read_is_noticed(
    model: Path, monkeypatch: pytest.MonkeyPatch, positional: bool
) -> None:
    """Never are bytes made up for those that are gone."""
    if not positional:
        monkeypatch.delattr(os, "preadv", raising=False)
    with open_checkpoint(model) as checkpoint:
        os.truncate(model, checkpoint.bytes - 1)
        last = max(checkpoint.infos.values(), key=lambda info: info.offset + info.nbytes)
        with pytest.raises(CheckpointError, match=f"ended early, at byte {checkpoint.bytes - 1}"):
            checkpoint.read_into(last, 0, np.empty(last.nbytes, np.uint8))


def test_a_failing_disk_is_reported(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read error names the file and the place."""

    def fail(*_arguments: object) -> int:
        raise OSError(5, "Input/output error")

    with open_checkpoint(model) as checkpoint:
        monkeypatch.setattr(os, "preadv", fail, raising=False)
        with pytest.raises(CheckpointError, match=r"cannot be read at byte \d+: input/output error"):
            checkpoint.read_into(checkpoint.infos["t1"], 0, np.empty(1, np.uint8))


def test_files_are_closed_after_use(model: Path) -> None:
    """Leaving `with` closes the file; closing twice is no mistake."""
    with open_checkpoint(model) as checkpoint:
        pass
    checkpoint.close()
    with pytest.raises(ValueError, match="closed file"):
        checkpoint.read_into(checkpoint.infos["t1"], 0, np.empty(1, np.uint8))


def test_fingerprint_is_what_it_is_documented_to_be(model: Path) -> None:
    """Size, header length, header and samples, hashed by hand."""
    content = model.read_bytes()
    length = int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(len(content).to_bytes(8, "little") + content[: 8 + length])
    with open_checkpoint(model) as checkpoint:
        for key in checkpoint.infos:
            data = TENSORS[key].tobytes()
            if len(data) > 12 * KIB:
                middle = (len(data) - 4096) // 2
                data = data[:4096] + data[middle : middle + 4096] + data[-4096:]
            digest.update(data)
        assert f"sha256:{digest.hexdigest()}" == checkpoint.fingerprint()


def test_fingerprint_depends_neither_on_name_nor_on_time(model: Path) -> None:
    """A copy is the same model."""
    copy = model.with_name("copy.ckpt")
    copy.write_bytes(model.read_bytes())
    os.utime(copy, (1, 1))
    assert fingerprint(model) == fingerprint(copy)


SAMPLED = {"first": 0, "end of first": 4095, "middle": 50_000, "start of last": 95_905, "last": 100_000}


@pytest.mark.parametrize("place", SAMPLED.values(), ids=SAMPLED)
def test_fingerprint_sees_a_changed_byte_in_a_sample(model: Path, place: int) -> None:
    """One other bit in the first, middle or last 4 KiB of a tensor makes another model."""
    before = fingerprint(model)
    with open_checkpoint(model) as checkpoint:
        at = checkpoint.infos["t100001"].offset + place
    content = bytearray(model.read_bytes())
    content[at] ^= 1
    model.write_bytes(content)
    assert before != fingerprint(model)


def test_fingerprint_sees_the_header(tmp_path: Path) -> None:
    """The same values under other metadata are another file."""
    for name, metadata in (("a", {"format": "pt"}), ("b", {"format": "tp"})):
        save_file(TENSORS, tmp_path / name, metadata)
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")


def test_safetensors_files_are_read_without_torch(model: Path) -> None:
    """Importing torch takes seconds; only torch checkpoints need it."""
    program = (
        "import sys\n"
        "from analyzer.checkpoints import open_checkpoint\n"
        "with open_checkpoint(sys.argv[1]) as checkpoint:\n"
        "    checkpoint.fingerprint()\n"
        "print(len(checkpoint.infos), 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(model)], capture_output=True, text=True, check=True
    )
    assert f"{len(TENSORS)} False\n" == done.stdout


def test_the_samples_are_read_when_the_fingerprint_is_first_asked_for(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not again: a guided merge asks three times."""
    with open_checkpoint(model) as checkpoint:
        first = checkpoint.fingerprint()
        monkeypatch.setattr(type(checkpoint.sources[0]), "read_into", None)
        assert first == checkpoint.fingerprint()
