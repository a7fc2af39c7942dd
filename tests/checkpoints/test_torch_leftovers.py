"""Checkpoints that training left more in than weights open, and nothing of the rest is imported or run."""

from __future__ import annotations

import argparse
import collections
import io
import sys
import types
import typing
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from analyzer.checkpoints import open_checkpoint
from analyzer.checkpoints.torch_leftovers import DICTS, INERT, stand_ins
from analyzer.errors import CheckpointError

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import fuzz_watch

WEIGHTS = {"a": torch.arange(3.0), "b": torch.ones(2, 2).half()}


def keys(path: Path) -> list[str]:
    """The keys of a file; opening it imports, runs and opens nothing else."""
    with open_checkpoint(path) as checkpoint:  # once before: torch imports some of its own when first used
        found = list(checkpoint.infos)
    with fuzz_watch.watched(path.parent) as watch, open_checkpoint(path) as checkpoint:
        assert found == list(checkpoint.infos)
    assert [] == watch.violations
    return found


@contextmanager
def pretended(*names: str) -> Iterator[list[type]]:
    """Classes of these names, importable for as long as this lasts."""
    before = dict(sys.modules)
    classes = []
    for name in names:
        path, _, attribute = name.rpartition(".")
        for end in [i for i, sign in enumerate(path) if sign == "."] + [len(path)]:
            sys.modules.setdefault(path[:end], types.ModuleType(path[:end]))
        base = dict if name in DICTS else object
        made = type(attribute, (base,), {"__module__": path, "__qualname__": attribute})
        setattr(sys.modules[path], attribute, made)
        classes.append(made)
    try:
        yield classes
    finally:
        for name in sys.modules.keys() - before.keys():
            del sys.modules[name]


def filled(made: type, **attributes: object) -> object:
    instance = made()
    vars(instance).update(attributes)
    return instance


def test_a_checkpoint_of_lightning(tmp_path: Path) -> None:
    """As Stable Diffusion 1.x and LDSR were published: classes as keys, their state, NumPy's numbers."""
    lightning = "pytorch_lightning.callbacks"
    path = tmp_path / "m.ckpt"
    with pretended(
        f"{lightning}.model_checkpoint.ModelCheckpoint",
        f"{lightning}.early_stopping.EarlyStopping",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    ) as (checkpoint, stopping, attributes):
        content = {
            "epoch": 3,
            "global_step": 470_000,
            "pytorch-lightning_version": "1.4.2",
            "state_dict": WEIGHTS,
            "callbacks": {
                checkpoint: {"monitor": "val/loss", "best_model_score": np.float64(0.25), "dirpath": "logs"},
                stopping: {"wait_count": 0, "best_score": torch.tensor(0.5)},
            },
            "lr_schedulers": [{"base_lrs": [1e-4], "last_epoch": 3, "_last_lr": [np.float32(1e-4)]}],
            "hyper_parameters": attributes(lr=0.1, shape=(1, 2)),
            "hparams_type": attributes,
        }
        torch.save(content, path)
    assert ["a", "b"] == keys(path)


def test_settings_of_omegaconf(tmp_path: Path) -> None:
    """Nodes that refer to each other, to types and to `typing.Any`, in a plain dict of state."""
    path = tmp_path / "m.ckpt"
    with pretended(
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.nodes.AnyNode",
    ) as (dictionary, listing, container, metadata, node):
        root = filled(dictionary, _parent=None)
        about = filled(container, ref_type=typing.Any, object_type=dict, key_type=str, element_type=int)
        about_node = filled(metadata, ref_type=float, resolver_cache=collections.defaultdict(dict))
        leaf = filled(node, _val=[1, 2.5, True, "x"], _parent=root, _metadata=about_node)
        vars(root).update(_content={"lr": leaf, "more": filled(listing, _content=[leaf])}, _metadata=about)
        torch.save({"state_dict": WEIGHTS, "hyper_parameters": root}, path)
    assert ["a", "b"] == keys(path)


@pytest.mark.parametrize("new", [True, False], ids=["archive", "before 1.6"])
def test_what_python_and_numpy_have(tmp_path: Path, new: bool) -> None:
    """Arguments, paths, arrays, versions and other values that scripts save beside their weights."""
    path = tmp_path / "m.pt"
    content = {
        "model": WEIGHTS,
        "args": argparse.Namespace(lr=0.1, out=Path("logs"), sizes=[1, (2, 3)], names={"x", "y"}),
        "loss": collections.defaultdict(list, train=[0.5]),
        "random": np.arange(6).reshape(2, 3),
        "best": np.int64(7),
        "torch": torch.__version__,
        "raw": b"bytes",
        "count": collections.Counter("aab"),
        "z": 1 + 2j,
    }
    torch.save(content, path, _use_new_zipfile_serialization=new)
    assert ["a", "b"] == keys(path)


def test_weights_in_a_dict_of_another_kind_are_found(tmp_path: Path) -> None:
    """A defaultdict of tensors is a state dict like any other."""
    path = tmp_path / "m.pt"
    torch.save({"state_dict": collections.defaultdict(list, WEIGHTS)}, path)
    assert ["a", "b"] == keys(path)


def with_value(value: bytes) -> bytes:
    """A checkpoint with weights, and beside them a value made by these opcodes."""
    stream, changed = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": WEIGHTS}, stream)
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(changed, "w") as packed:
        for name in old.namelist():
            record = old.read(name)
            if name.endswith("data.pkl"):
                record = record[:-1] + b"X\1\0\0\0x" + value + b"s."
            packed.writestr(name, record)
    return changed.getvalue()


@pytest.mark.parametrize("name", [*INERT, *DICTS])
def test_every_name_may_stand_there(tmp_path: Path, name: str) -> None:
    """As it is, called, made anew and given a state: whatever a pickle does with it, nothing happens."""
    module, _, attribute = name.rpartition(".")
    named = f"c{module}\n{attribute}\n".encode()
    arguments = b"(K\1X\4\0\0\0evil}]t"
    path = tmp_path / "m.ckpt"
    values = [named, named + arguments + b"R", named + arguments + b"\x81"]
    if name in DICTS:
        values.append(named + b")RX\1\0\0\0yK\1s")
    else:
        state = b"}(X\14\0\0\0__setstate__" + named + b"X\11\0\0\0__class__" + named + b"u"
        values += [named + b")\x81" + state + b"b" + state + b"b", named + b")R" + state + b"b"]
    for value in values:
        path.write_bytes(with_value(value))
        assert ["a", "b"] == keys(path)


def test_stand_ins_hold_nothing() -> None:
    """An instance forgets what it is given; that of a dict is a plain, empty dict."""
    for made in stand_ins():
        instance = made("x", 1, [2])
        if f"{made.__module__}.{made.__qualname__}" in DICTS:
            assert (dict, {}) == (type(instance), instance)
        else:
            assert {} == vars(instance)
            instance.__setstate__({"a": 1})
            assert {} == vars(instance)


@pytest.mark.parametrize(
    "name",
    [
        *("pytorch_lightning.utilities.cloud_io.load", "pytorch_lightning.callbacks.lambda_function.Lambda"),
        *("numpy.load", "numpy.core.multiarray.fromfile", "omegaconf.omegaconf.OmegaConf", "torch.load"),
        *("argparse.FileType", "pathlib.Path.unlink", "builtins.eval", "builtins.getattr", "builtins.type"),
        *("typing.get_type_hints", "collections.namedtuple", "functools.partial", "types.SimpleNamespace"),
    ],
)  # fmt: skip
def test_other_names_of_the_same_packages_are_refused(tmp_path: Path, name: str) -> None:
    """Names are let through one by one, never a whole package."""
    module, _, attribute = name.rpartition(".")
    path = tmp_path / "m.ckpt"
    path.write_bytes(with_value(f"c{module}\n{attribute}\n".encode() + b")R"))
    with pytest.raises(CheckpointError, match=f"refers to '(builtins.)?{name.removeprefix('builtins.')}'"):
        open_checkpoint(path)
