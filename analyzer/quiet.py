"""Import diffusers and transformers, and keep them from writing to the terminal, which is this program's.

Knows no models: what paints and what writes folders for it load the two libraries through here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from analyzer.errors import AnalyzerError

_REASON = 200  # characters of what an import says


def diffusers_library(what: str = "painting") -> ModuleType:
    """The library; AnalyzerError if something that `what` needs, and painting does, is not installed."""
    try:
        import transformers

        level = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()  # its image processors say on import what they miss
        try:
            import diffusers
            import PIL  # noqa: F401 - of the pictures
        finally:
            transformers.logging.set_verbosity(level)
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name
        reason = f"{error.name} is missing" if is_missing else " ".join(str(error).split())[:_REASON]
        raise AnalyzerError(
            f"{what} needs diffusers and transformers ({reason}): pip install 'mergescope[experiment]'"
        ) from error
    library: ModuleType = diffusers
    return library


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, log lines or deprecation warnings of the two libraries while the block runs."""
    diffusers = diffusers_library()
    import transformers

    logs = [diffusers.utils.logging, transformers.utils.logging]
    levels = [log.get_verbosity() for log in logs]
    bars = [log for log in logs if log.is_progress_bar_enabled()]
    try:
        for log in logs:
            log.set_verbosity_error()
            log.disable_progress_bar()
        with warnings.catch_warnings():
            # diffusers calls itself by names that it deprecates, and makes pixels of what is not finite.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", "invalid value encountered in cast", RuntimeWarning)
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)
        for log in bars:
            log.enable_progress_bar()
