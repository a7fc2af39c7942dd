"""Tensors that a model may store twice, or once for two: tied output heads and embeddings. Knows names."""

from __future__ import annotations

from collections.abc import Iterable

from analyzer.pairing.meanings import bare_name
from analyzer.records import Network

# The output heads that can be tied, and what they are tied to.
HEADS = frozenset(
    {
        *("lm_head.weight", "embed_out.weight", "output.weight", "proj_out.weight"),
        *("cls.predictions.decoder.weight", "lm_head.decoder.weight"),
    }
)

# The embeddings of T5 and BART, which are one tensor under several names.
SHARED = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")

ALWAYS_TIED = ("wte.weight", "token_embd.weight")
EMBEDDINGS = (
    *("embed_tokens.weight", "decoder.embed_tokens.weight", "word_embeddings.weight", "embed_in.weight"),
    *("embeddings.word_embeddings.weight", *ALWAYS_TIED),
)


def repeated(networks: Iterable[Network]) -> dict[str, str]:
    """The keys that may hold another tensor once more, and the key of that tensor; values must tell.

    A head repeats the embedding that it can be tied to; of the shared embeddings of an encoder and a
    decoder, each repeats the first one that is there.
    """
    found: dict[str, str] = {}
    for network in networks:
        # Few keys end so; only of these is more than the end looked at.
        ends = {bare_name(name): key for key, name in network.names.items() if name.endswith(_ENDS)}
        shared = [ends[name] for name in SHARED if name in ends]
        found |= dict.fromkeys(shared[1:], shared[0]) if shared else {}
        embedding = next((ends[name] for name in (*SHARED, *EMBEDDINGS) if name in ends), None)
        if embedding is not None:
            found |= {ends[name]: embedding for name in HEADS if name in ends}
    return found


_ENDS = tuple(
    {name.rpartition(".")[0].rpartition(".")[2] + ".weight" for name in (*HEADS, *SHARED, *EMBEDDINGS)}
)
