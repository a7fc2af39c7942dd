"""Why torch's weights-only loader refused a pickle, in words. Reads opcodes, runs none of them."""

from __future__ import annotations

import io
import pickletools
import re
import struct
import warnings
from collections import deque
from collections.abc import Iterator

from analyzer.checkpoints.checkpoint import shown

_NAMED = re.compile(r"GLOBAL (\S+)")  # how torch names what it would have had to import
_HARMLESS = ("torch.", "collections.", "numpy.", "_codecs.")
_STATE_DICT_PROTOCOL = 2  # the only pickle protocol that torch.save uses by itself
_MAX_PICKLES = 4  # an old torch file starts with this many


def explain_refusal(reason: str, start: bytes) -> str:
    """The rest of a sentence about a file: `reason` is torch's message, `start` the pickle's first bytes."""
    named = _NAMED.search(reason)
    code = named[1] if named else next((g for g in _globals(start) if not g.startswith(_HARMLESS)), None)
    if code is not None:
        return (
            f"the pickle inside refers to {shown(code)}, which is code and not weights, and mergescope never "
            "runs code from a model file; on a machine where you trust it, load it and save its state "
            "dict as safetensors"
        )
    if start[:1] == b"\x80" and len(start) > 1 and start[1] > _STATE_DICT_PROTOCOL:
        return (
            f"is pickled with protocol {start[1]}, of which torch's weights-only loader reads only a part; "
            "save it again with torch.save's own protocol, or as safetensors"
        )
    return (
        "is damaged, or holds more than a state dict; download it again, or save its state dict "
        "as safetensors"
    )


def _globals(start: bytes) -> list[str]:
    """Everything that the pickles would import, as far as they can be read."""
    found: list[str] = []
    stream = io.BytesIO(start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escape sequences in names that are rubbish anyway
        try:
            for _ in range(_MAX_PICKLES):
                found.extend(_globals_of_one(stream))
        except (ValueError, LookupError, OverflowError, struct.error):
            pass  # cut off or damaged: what was found until here has to do
    return found


def _globals_of_one(stream: io.BytesIO) -> Iterator[str]:
    memo: dict[int, str] = {}
    # STACK_GLOBAL takes module and name from the stack, where they were pushed just before.
    pushed: deque[str] = deque(["?", "?"], maxlen=2)
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(pushed)
        elif opcode.name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument if isinstance(argument, int) else len(memo)] = pushed[-1]
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET") and isinstance(argument, int):
            pushed.append(memo.get(argument, "?"))
        elif isinstance(argument, str):
            pushed.append(argument)
