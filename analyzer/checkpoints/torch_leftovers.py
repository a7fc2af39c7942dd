"""What training left in checkpoints beside their weights: names that may stand there, each with a stand-in.

torch's weights-only loader refuses them, and importing what they mean would run code. A stand-in has the
name and nothing else: it takes whatever the pickle gives it and forgets it.

The names, as torch 2.6 and later report them of published files: Lightning's callbacks and settings
(Stable Diffusion 1.x, LDSR and what was trained with the same code), settings of OmegaConf and argparse,
NumPy's numbers and arrays. https://github.com/AUTOMATIC1111/stable-diffusion-webui, modules/safe.py
"""

from __future__ import annotations

from collections.abc import Callable

_LIGHTNING = ("pytorch_lightning", "lightning.pytorch")
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")

# Names whose objects hold nothing that matters.
INERT = (
    *(f"{package}.callbacks.model_checkpoint.ModelCheckpoint" for package in _LIGHTNING),
    *(f"{package}.callbacks.early_stopping.EarlyStopping" for package in _LIGHTNING),
    *(f"{package}.callbacks.lr_monitor.LearningRateMonitor" for package in _LIGHTNING),
    *(f"{package}.callbacks.timer.Timer" for package in _LIGHTNING),
    "pytorch_lightning.callbacks.model_checkpoint",
    *(f"{module}.{name}" for module in _NUMPY for name in ("_reconstruct", "scalar")),
    *(f"numpy.{name}" for name in ("dtype", "ndarray")),
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Float", "Integer", "String")),
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "object", "str", "tuple")),
    *("argparse.Namespace", "torch.torch_version.TorchVersion", "typing.Any"),
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath")),
)
# Names of dicts, whose entries are read like those of a plain one.
DICTS = (
    "collections.defaultdict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)
NAMES = frozenset((*INERT, *DICTS))


def stand_ins() -> list[Callable[..., object]]:
    """A class of every name, for torch's `safe_globals`."""
    return [_class(name, _NOTHING) for name in INERT] + [_class(name, _DICT) for name in DICTS]


def _class(name: str, methods: dict[str, Callable[..., object]]) -> Callable[..., object]:
    module, _, attribute = name.rpartition(".")
    return type(attribute, (), {"__module__": module, **methods})


def _ignore(_self: object, *_arguments: object) -> None: ...


def _empty_dict(_class: type, *_arguments: object) -> dict[object, object]:
    return {}


_NOTHING: dict[str, Callable[..., object]] = {"__init__": _ignore, "__setstate__": _ignore}
_DICT: dict[str, Callable[..., object]] = {"__new__": _empty_dict}
