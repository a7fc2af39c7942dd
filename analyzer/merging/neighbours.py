"""Which runs go through one call: those that lie side by side in the output, with the same to be done.

A model of many small tensors costs two reads, a call of the loops and a write for each if they are dealt
with one by one, and most of that time is no arithmetic. Knows places, no values.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from analyzer.blending import Bytes
from analyzer.merging.cuts import Place
from analyzer.merging.sinks import Sink
from analyzer.merging.steps import Span


def neighbours(
    spans: Sequence[Span], sinks: Sequence[Sink], *, most: int, fused: bool
) -> Iterator[list[Span]]:
    """The spans in groups of at most `most` elements, in their order.

    `fused` says whether merges take one call; if not, each goes alone.
    """
    group: list[Span] = []
    asked: Hashable = None
    end = held = 0  # where the group ends in the output, and its elements
    for span in spans:
        step = span.step
        this = _asked(span, fused=fused)
        at = sinks[step.file].position(step.index, span.offset)
        if group and (this is None or this != asked or at != end or held + span.count > most):
            yield group
            group, held = [], 0
        group.append(span)
        asked, end, held = this, at + span.nbytes, held + span.count
    if group:
        yield group


def _asked(span: Span, *, fused: bool) -> Hashable:
    """What is done with a span, wherever it lies; None if it is dealt with alone."""
    step, cut = span.step, span.cut
    if cut is None or step.encoder is not None:
        return None
    if step.setting is None:
        return step.file, step.keeps, cut.places[0].info.dtype, step.entry.dtype
    if not fused:
        return None
    a, b = cut.places[:2]
    return step.file, step.setting.alpha, a.info.dtype, b.info.dtype, step.entry.dtype


def read_neighbours(spans: Sequence[Span], which: int, buffer: Bytes) -> Bytes:
    """The elements of one model, span after span, at the front of the buffer; all have one dtype.

    Those that lie side by side in the file too are read by one call.
    """
    memory = buffer.data
    first: Place | None = None  # of the read that is being gathered
    begin = end = used = target = 0  # where it begins and ends in the source, and the same in the buffer
    for span in spans:
        assert span.cut is not None
        place = span.cut.places[which]
        info = place.info
        nbytes = info.nbytes if span.count == info.numel else span.count * info.itemsize
        start = (place.start + span.start) * info.itemsize if place.start + span.start else 0
        if (
            first is None
            or info.offset + start != end
            or info.source != first.info.source
            or place.checkpoint is not first.checkpoint
            or info.view is not None
            or first.info.view is not None
        ):
            _read(first, begin, memory[target:used])
            first, begin, target = place, start, used
        end, used = info.offset + start + nbytes, used + nbytes
    _read(first, begin, memory[target:used])
    return buffer[:used]


def _read(first: Place | None, start: int, memory: memoryview) -> None:
    """Read from byte `start` of a tensor on, and beyond its end what follows in the source."""
    if first is None:
        return
    info = first.info
    if start + len(memory) <= info.nbytes:
        first.checkpoint.read_into(info, start, memory)
    else:
        first.checkpoint.sources[info.source].read_into(info.offset + start, memory)
