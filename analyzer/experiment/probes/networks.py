"""Put weights in memory into the network that a folder's config.json names, with transformers.

Of the folder it reads configurations and the tokenizer. Code that lies in a model's folder is never run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.errors import AnalyzerError

if TYPE_CHECKING:
    import torch

_TORCH_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@lru_cache(maxsize=1)  # the same for all mixtures of two models
def read_config(model_dir: str) -> Any:
    """The `transformers` configuration in a folder.

    Raises AnalyzerError without one, for a network that transformers does not know, and where transformers
    is not installed.
    """
    transformers = import_transformers()
    if not (Path(model_dir) / "config.json").is_file():
        raise AnalyzerError(
            f"{model_dir}: has no config.json, which says what network the weights belong to; name as A a "
            "folder as transformers saves it"
        )
    with reading(model_dir):
        return transformers.AutoConfig.from_pretrained(
            model_dir, local_files_only=True, trust_remote_code=False
        )


def network(
    state_dict: Mapping[str, torch.Tensor], model_dir: str, *, auto: str, device: str, dtype: str
) -> Any:
    """The network of the folder's configuration with these weights, ready to be called.

    `auto` is the class of transformers that knows such networks: "AutoModelForCausalLM". On a CPU weights
    of the `dtype` asked for ("fp32", "fp16", "bf16") are used as they lie there; else they are copied.
    Raises AnalyzerError if the weights are not all there or do not fit.
    """
    import torch

    transformers = import_transformers()
    config = read_config(model_dir)
    with reading(model_dir):
        with torch.device("meta"):  # only to learn the class: no memory is taken
            kind = type(getattr(transformers, auto).from_config(config, trust_remote_code=False))
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=dict(state_dict),
            dtype=getattr(torch, _TORCH_DTYPES[dtype]),
            ignore_mismatched_sizes=True,  # they are told below
            output_loading_info=True,
            local_files_only=True,
        )
    wrong = sorted(report["missing_keys"]) + sorted(key for key, *_ in report["mismatched_keys"])
    if wrong:
        raise AnalyzerError(
            f"{model_dir}: {len(wrong)} weights of {kind.__name__} are missing or of another shape, such as "
            f"{wrong[0]}; the config.json beside them is of another network"
        )
    return model.eval().to(device)


@lru_cache(maxsize=1)  # the same for all mixtures of two models
def tokens(model_dir: str, prompts: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """The numbers of each prompt's tokens, with those that the folder's tokenizer puts before and behind.

    Raises AnalyzerError without a tokenizer, and for a prompt without a token.
    """
    with reading(model_dir):
        tokenizer = import_transformers().AutoTokenizer.from_pretrained(
            model_dir, local_files_only=True, trust_remote_code=False
        )
        found = tuple(tuple(tokenizer(prompt)["input_ids"]) for prompt in prompts)
    for prompt, ids in zip(prompts, found, strict=True):
        if not ids:
            raise AnalyzerError(f"the prompt {prompt!r} has no token in {model_dir}; give another --prompt")
    return found


@contextlib.contextmanager
def reading(model_dir: str) -> Iterator[None]:
    """What transformers reads and says in here: without bars and notes, its refusals in a sentence."""
    logging = import_transformers().utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise AnalyzerError(
            f"{model_dir}: transformers cannot use it ({reason}); name as A a folder that it loads "
            "without code of the model's own"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def import_transformers() -> Any:
    """The library; AnalyzerError where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise AnalyzerError("this probe needs transformers: pip install 'mergescope[experiment]'") from error
    return transformers
