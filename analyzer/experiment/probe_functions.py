"""Find the function that a user names as a probe, and call it. Knows no models and what is measured.

Naming a module imports it, and so runs it: that is the user's wish, and the user's own code. Nothing of a
model's folder is ever taken for such a module.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from operator import attrgetter
from pathlib import Path
from types import ModuleType

from analyzer.errors import AnalyzerError

PROBES: Mapping[str, str] = {
    "causal_lm": "analyzer.experiment.probes.causal_lm:logits",
    "classifier": "analyzer.experiment.probes.classifier:logits",
}
GIVEN = ("state_dict", "model_dir", "prompts", "seed", "device", "dtype")

_FORMS = "MODULE:FUNCTION or FILE.py:FUNCTION"
_WEIGHTS = frozenset({"state_dict", "model_dir"})


@dataclass(frozen=True, slots=True)
class ProbeFunction:
    """What looks at a model, and what it wants to be given."""

    text: str  # as the user named it
    function: Callable[..., object]
    takes: frozenset[str]  # of GIVEN
    source: Path | None  # the file of its module
    folder: Path  # in which modules are found that it imports

    def __call__(self, given: Mapping[str, object]) -> object:
        """What the function returns; it is given what it takes. What it prints goes to stderr.

        Raises AnalyzerError with its own message and the line, whatever it raises.
        """
        try:
            with _surroundings(self.folder):
                return self.function(**{name: given[name] for name in self.takes})
        except AnalyzerError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise AnalyzerError(f"--probe {self.text}: {_described(error, self.source)}") from error


def find_probe(text: str) -> ProbeFunction:
    """The function that `text` names: one of PROBES, "package.module:function" or "path/file.py:function".

    Imports that module, from the working directory or else as installed, and so runs it. Raises
    AnalyzerError where there is no such module or function, where importing it fails, and for a function
    that wants what no probe is given, or neither `state_dict` nor `model_dir`.
    """
    place, colon, name = PROBES.get(text, text).rpartition(":")
    if not colon or not place or not name:
        near = get_close_matches(text, PROBES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise AnalyzerError(
            f"--probe {text}{hint}: write {_FORMS}, or name one that ships: {', '.join(PROBES)}"
        )
    is_file = place.endswith(".py")
    folder = Path(place).resolve().parent if is_file else Path.cwd()
    with _surroundings(folder):
        module = _from_file(text, Path(place)) if is_file else _by_name(text, place)
    function = _function(text, module, name)
    file = getattr(module, "__file__", None)  # modules in C have none
    source = Path(file) if file else None
    return ProbeFunction(text, function, _taken(text, function), source, folder)


def _from_file(text: str, path: Path) -> ModuleType:
    """The module that a file is, under a name that no other module has."""
    if not path.is_file():
        raise AnalyzerError(f"--probe {text}: there is no file {path}; write {_FORMS}")
    name = f"_probe_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does it: dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        del sys.modules[name]
        raise AnalyzerError(f"--probe {text}: importing it failed: {_described(error, path)}") from error
    return module


def _by_name(text: str, name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise AnalyzerError(f"--probe {text}: {name!r} is no module's name; write {_FORMS}")
    importlib.invalidate_caches()  # the file may be younger than the last look into its folder
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise AnalyzerError(
                f"--probe {text}: there is no module {missing!r}, neither in the working directory nor "
                f"installed; name its file: path/to/{name.rpartition('.')[2]}.py:FUNCTION"
            ) from error
        raise AnalyzerError(f"--probe {text}: importing {name} failed: {_described(error, None)}") from error


def _function(text: str, module: ModuleType, name: str) -> Callable[..., object]:
    where = getattr(module, "__file__", None) or module.__name__
    try:
        found = attrgetter(name)(module)
    except AttributeError as error:
        own = [other for other, value in vars(module).items() if callable(value) and other[0] != "_"]
        near = get_close_matches(name, own, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise AnalyzerError(f"--probe {text}: {where} has no function {name!r}{hint}; define it") from error
    if not callable(found):
        raise AnalyzerError(f"--probe {text}: {name!r} in {where} is no function; name one")
    return found  # type: ignore[no-any-return]  # of a module that nobody knows beforehand


def _taken(text: str, function: Callable[..., object]) -> frozenset[str]:
    """What it wants of GIVEN; AnalyzerError for a signature that nobody can serve."""
    kinds = inspect.Parameter
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError) as error:
        raise AnalyzerError(f"--probe {text}: does not say what it takes; wrap it in a def") from error
    by_name = {x.name: x for x in parameters if x.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)}
    needed = [x.name for x in parameters if x.default is kinds.empty and x.kind is kinds.POSITIONAL_ONLY]
    needed += [x.name for x in by_name.values() if x.default is kinds.empty and x.name not in GIVEN]
    if needed:
        raise AnalyzerError(
            f"--probe {text}: takes {', '.join(needed)}, which no probe is given; by name it may take "
            f"{', '.join(GIVEN)}"
        )
    taken = frozenset(by_name) & frozenset(GIVEN)
    if not taken & _WEIGHTS:
        raise AnalyzerError(
            f"--probe {text}: takes neither state_dict nor model_dir, so that it cannot see a model; name "
            "one of its parameters so"
        )
    return taken


@contextlib.contextmanager
def _surroundings(folder: Path) -> Iterator[None]:
    """Its neighbours can be imported, as by a script, and stdout stays for what the program prints."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):  # it may have been taken away
            sys.path.remove(entry)


def _described(error: BaseException, source: Path | None) -> str:
    """An error of the user's code in a line: what, and the last line of the module that led there."""
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    own = [x for x in frames if source is not None and Path(x.filename) == source.resolve()]
    ours = (__file__, importlib.__file__)
    outside = [x for x in frames if x.filename not in ours and not x.filename.startswith("<frozen")]
    last = (own or outside)[-1:]
    return what + "".join(f" ({Path(x.filename).name}, line {x.lineno})" for x in last)
