"""The demo pair: the shipped files, what their card says of them, and the code that made them."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from analyzer.demo import base_path, fine_tune_path, train
from analyzer.demo.captions import GRAMMARS, STYLES, Split, Style, captions, entropy
from analyzer.demo.model import ALPHABET, HELD_OUT_CAPTIONS, build_model, encode, held_out_loss, sample
from analyzer.errors import AnalyzerError

Weights = Mapping[str, Tensor]
Losses = Mapping[str, Mapping[str, float]]
Array = NDArray[np.float64]

CARD = base_path().with_name("README.md").read_text(encoding="utf-8")
EMBEDDING = "model.embed_tokens.weight"
QUICK = train.Schedule("quick", steps=2, rate=1e-3, weight_decay=0.0)


@pytest.fixture(scope="module")
def a() -> Weights:
    """The shipped base model."""
    return load_file(base_path())


@pytest.fixture(scope="module")
def b() -> Weights:
    """The shipped fine-tune."""
    return load_file(fine_tune_path())


@pytest.fixture(scope="module")
def losses(a: Weights, b: Weights) -> Losses:
    """Held-out bits per character of the shipped models and of the merges that the card names."""
    models = {
        "A": a,
        "B": b,
        "A with B's attention": _mix(a, b, "self_attn"),
        "A with B's MLP": _mix(a, b, "mlp"),
        "A with B's `lm_head`": _mix(a, b, "lm_head"),
        "halfway, (A + B) / 2": {key: (a[key].float() + b[key].float()) / 2 for key in a},
    }
    return {name: {style: held_out_loss(m, style) for style in STYLES} for name, m in models.items()}


# --- the shipped files -----------------------------------------------------------------------


def test_asking_for_the_paths_imports_no_torch() -> None:
    """The command line asks for the paths before it knows whether torch is needed."""
    program = (
        "import sys, analyzer.demo as d; d.base_path(); print(sorted({'torch', 'numpy'} & {*sys.modules}))"
    )
    assert "[]\n" == subprocess.check_output([sys.executable, "-I", "-c", program], text=True)


@pytest.mark.parametrize("path", [base_path(), fine_tune_path()], ids=["base", "fine-tune"])
def test_file_holds_the_documented_tensors(path: Path) -> None:
    """Names and shapes as the card lists them, all in fp16, with the usual metadata and nothing else."""
    layer = {
        "input_layernorm.weight": [64],
        "post_attention_layernorm.weight": [64],
        "self_attn.q_proj.weight": [64, 64],
        "self_attn.k_proj.weight": [32, 64],
        "self_attn.v_proj.weight": [32, 64],
        "self_attn.o_proj.weight": [64, 64],
        "self_attn.q_proj.bias": [64],
        "self_attn.k_proj.bias": [32],
        "self_attn.v_proj.bias": [32],
        "mlp.gate_proj.weight": [72, 64],
        "mlp.up_proj.weight": [72, 64],
        "mlp.down_proj.weight": [64, 72],
    }
    expected = {f"model.layers.{n}.{name}": shape for n in range(6) for name, shape in layer.items()}
    expected |= {EMBEDDING: [60, 64], "model.norm.weight": [64], "lm_head.weight": [60, 64]}
    with safe_open(path, framework="np") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        assert expected == {key: tensor.get_shape() for key, tensor in slices.items()}
        assert {"F16"} == {tensor.get_dtype() for tensor in slices.values()}
        assert {"format": "pt"} == file.metadata()


def test_card_states_the_size_of_the_files(a: Weights) -> None:
    """The figures of the card are those of the files, and both together stay below 700 kB."""
    sizes = [path.stat().st_size for path in (base_path(), fine_tune_path())]
    stated = re.search(r"(\d+) tensors, (\d+) parameters, fp16, (\d+) bytes a file", CARD)
    assert stated
    assert [len(a), sum(t.numel() for t in a.values())] == [int(stated[1]), int(stated[2])]
    assert [int(stated[3])] * 2 == sizes
    assert sum(sizes) <= 700_000


def test_only_the_embedding_is_unchanged(a: Weights, b: Weights) -> None:
    """The fine-tune froze the embedding and moved every other tensor."""
    assert [EMBEDDING] == [key for key in a if torch.equal(a[key], b[key])]


@pytest.mark.parametrize(
    ("keys", "change", "cosine"),
    re.findall(r"^\| `?([\w.]+)`? \| (\d\.\d+) \| (\d\.\d+) \|$", CARD.partition("## What moved")[2], re.M),
)
def test_card_states_what_moved(a: Weights, b: Weights, keys: str, change: str, cosine: str) -> None:
    """Relative change and cosine, by NumPy in float64 with the textbook formulas, to the digits stated."""
    x, y = (_flat(weights, "" if keys == "all" else keys) for weights in (a, b))
    length = np.linalg.norm(x)
    assert float(change) == pytest.approx(np.linalg.norm(y - x) / length, abs=5.1e-4)
    assert float(cosine) == pytest.approx(x @ y / length / np.linalg.norm(y), abs=5.1e-4)


def test_models_are_relatives_and_the_parts_differ_by_different_amounts(a: Weights, b: Weights) -> None:
    """Close enough to merge, and with a ranking worth looking at: attention moved much more than the MLP."""
    cosines = {part: _cosine(_flat(a, part), _flat(b, part)) for part in ("", "self_attn", "mlp")}
    assert 0.95 <= cosines[""] <= 0.995
    assert 1 - cosines["self_attn"] > 2 * (1 - cosines["mlp"])


# --- the models work -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "plain", "comic"),
    re.findall(r"^\| ([^|]+) \| (\d\.\d{3}) \| (\d\.\d{3}) \|$", CARD.partition("## What moved")[0], re.M),
)
def test_card_states_the_losses(losses: Losses, weights: str, plain: str, comic: str) -> None:
    """The shipped weights, and the merges that the card names, reach the losses stated there."""
    assert {"plain": float(plain), "comic": float(comic)} == pytest.approx(losses[weights], abs=2e-3)


def test_each_model_is_better_at_its_own_style(losses: Losses) -> None:
    """Base describes better, the fine-tune shouts better, and both come near what the grammar allows."""
    assert losses["A"]["plain"] < losses["B"]["plain"]
    assert losses["B"]["comic"] < losses["A"]["comic"] / 10
    assert losses["A"]["plain"] < 1.2 * entropy("plain") / _mean_length("plain")
    assert losses["B"]["comic"] < 1.2 * entropy("comic") / _mean_length("comic")


def test_merging_only_the_attention_goes_part_of_the_way(losses: Losses) -> None:
    """One category of B moves A towards B's style: the effect that the demo shows."""
    merged = losses["A with B's attention"]["comic"]
    assert losses["B"]["comic"] < merged < losses["A"]["comic"] / 2


def test_forward_pass_agrees_with_numpy(b: Weights) -> None:
    """The network computes what its names promise: a second implementation, in float64, agrees."""
    characters = encode("\nKAPOW! The sunset BURNS!")
    model = build_model()
    model.load_state_dict(dict(b))
    with torch.inference_mode():
        scores = model(characters[None])[0].numpy()
    expected = _numpy_scores({key: tensor.double().numpy() for key, tensor in b.items()}, characters.numpy())
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-3)


def test_model_that_knows_nothing_pays_for_every_character(a: Weights) -> None:
    """With equal scores for all characters each costs log2(alphabet) bits: the unit of the loss."""
    blank = {**a, "lm_head.weight": torch.zeros_like(a["lm_head.weight"])}
    assert math.log2(len(ALPHABET)) == pytest.approx(held_out_loss(blank, "plain"), abs=1e-5)


def test_sampling_writes_what_the_card_shows(a: Weights, b: Weights) -> None:
    """A seed writes one text: the one that stands in the card, where seeds 0, 1 and 2 follow each other."""
    shown = {name: re.findall(rf"^> {name}: (.*)$", CARD, re.M) for name in "AB"}
    assert [3, 3] == [len(texts) for texts in shown.values()]
    assert [shown["A"][0], shown["B"][1]] == [sample(a, "", 0), sample(b, "", 1)]


def test_sample_continues_the_prompt_and_depends_on_the_seed(b: Weights) -> None:
    """The prompt stands first, and another seed goes on otherwise."""
    prompt = (
        "WOW! The sea THUNDERS! Our hero salutes, eyes on YOU! Such mighty raven hair, blown back! And a "
    )
    texts = [sample(b, prompt, seed, temperature=1.0) for seed in (0, 1)]
    assert [True, True] == [text.startswith(prompt) and len(text) > len(prompt) for text in texts]
    assert texts[0] != texts[1]


def test_prompt_with_unknown_characters_is_refused(a: Weights) -> None:
    """A character outside the alphabet is named, and the way out is shown."""
    with pytest.raises(AnalyzerError, match=r"do not know the characters \['1', 'é'\]; use plain letters"):
        sample(a, "café 11", 0)


# --- the captions ----------------------------------------------------------------------------


def test_captions_repeat_with_their_seed() -> None:
    """Seed 0 draws these captions on every machine: the losses of the card rest on them."""
    expected = (
        "A photo of a boy in a striped coat, sitting, facing right, before a snowy field, "
        "with long grey hair worn loose."
    )
    assert expected == next(captions("plain", "train", seed=0))
    first, again, other = (list(islice(captions("comic", "train", seed=s), 5)) for s in (0, 0, 1))
    assert [True, False] == [first == again, first == other]


def test_held_out_portraits_are_trained_on_in_neither_style() -> None:
    """No portrait of the held-out captions of one style occurs in the training captions of the other."""
    trained = _portraits("plain", "train", 5_000) | _portraits("comic", "train", 5_000)
    held_out = _portraits("plain", "held_out", 500) | _portraits("comic", "held_out", 500)
    assert set() == trained & held_out


@pytest.mark.parametrize("style", STYLES)
def test_captions_fit_the_models(style: Style) -> None:
    """Every caption can be encoded, and its characters come back in order."""
    lines = list(islice(captions(style, "train", seed=0), 300))
    assert lines == ["".join(ALPHABET[i] for i in encode(line).tolist()) for line in lines]


@pytest.mark.parametrize("style", STYLES)
def test_entropy_counts_the_captions(style: Style) -> None:
    """Counted by hand: the values of the nine features, three openers, two templates."""
    people, hair, clothes, scene, wordings = 4, 3 * 8 * 6, 6 * 6, 6 * 3 * 8, 3 * 2
    assert math.log2(people * hair * clothes * scene * wordings) == pytest.approx(entropy(style), abs=1e-9)


def test_card_states_the_bounds_of_the_loss() -> None:
    """The bits of a caption, spread over its characters, and the price of knowing nothing."""
    bits, plain, comic = entropy("plain"), *(entropy(style) / _mean_length(style) for style in STYLES)
    stated = (
        f"takes {bits:.1f} bits, which is {plain:.3f} bits per character of the plain ones and {comic:.3f} of"
    )
    assert stated in CARD
    assert f"log2({len(ALPHABET)}) = {math.log2(len(ALPHABET)):.2f}" in CARD


# --- the training ----------------------------------------------------------------------------


def test_training_repeats_bit_by_bit_and_leaves_global_state_alone() -> None:
    """Two runs give the same bytes, and the caller's random state and threads are untouched."""
    state, threads, said = torch.get_rng_state(), torch.get_num_threads(), list[str]()
    first, again = (train.train_base(said.append, schedule=QUICK) for _ in range(2))
    assert [said[0]] * 2 == said
    assert list(first) == list(again)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert torch.equal(state, torch.get_rng_state())
    assert threads == torch.get_num_threads()


def test_fine_tune_starts_at_the_base_and_spares_the_embedding(a: Weights) -> None:
    """After two small steps everything but the embedding has moved, and nothing far."""
    state, said = torch.get_rng_state(), list[str]()
    tuned = train.train_fine_tune(a, said.append, schedule=QUICK)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(a[EMBEDDING], tuned[EMBEDDING])
    assert not torch.equal(a["lm_head.weight"], tuned["lm_head.weight"])
    assert 0.999 < _cosine(_flat(a), _flat(tuned)) < 1


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("lm_head.weight", 1.0),
        ("model.layers.5.self_attn.q_proj.weight", 1.0),
        ("model.layers.4.input_layernorm.weight", 0.9),
        ("model.layers.3.mlp.down_proj.weight", 0.405),
    ],
)
def test_lower_layers_and_mlps_learn_more_slowly(name: str, share: float) -> None:
    """0.9 for every layer below the top, and half of that for an MLP."""
    assert share == pytest.approx(train.learning_share(name), rel=1e-12)


def test_retraining_writes_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command makes the folder, writes two loadable files and prints the losses of each."""
    _quick_main(monkeypatch)
    train.main([str(tmp_path / "new" / "folder")])
    written = sorted((tmp_path / "new" / "folder").iterdir())
    assert ["base.safetensors", "fine-tune.safetensors"] == [path.name for path in written]
    assert [75, 75] == [len(load_file(path)) for path in written]
    line = r"(base|fine-tune).safetensors: held-out bits per character: plain \d+\.\d{3}, comic \d+\.\d{3}\n"
    assert ["base", "fine-tune"] == re.findall(line, capsys.readouterr().out)


def test_retraining_never_replaces_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of that name is refused before the training starts, and keeps its content."""
    _quick_main(monkeypatch)
    (tmp_path / "fine-tune.safetensors").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        train.main([str(tmp_path)])
    assert 1 == ended.value.code
    expected = f"{tmp_path / 'fine-tune.safetensors'} would be replaced; name another folder\n"
    assert ("", expected) == capsys.readouterr()
    assert ["mine"] == [path.read_text() for path in tmp_path.iterdir()]


def test_folder_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where the folder should be is said in one line, without a traceback."""
    _quick_main(monkeypatch)
    (tmp_path / "taken").touch()
    with pytest.raises(SystemExit) as ended:
        train.main([str(tmp_path / "taken")])
    assert 1 == ended.value.code
    expected = rf"{re.escape(str(tmp_path / 'taken'))} cannot be made: .+; name another folder\n"
    assert re.fullmatch(expected, capsys.readouterr().err)


# --- oracles ---------------------------------------------------------------------------------


def _quick_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the command's trainings to two steps."""
    base, fine_tune = train.train_base, train.train_fine_tune
    monkeypatch.setattr(train, "train_base", lambda report: base(report, schedule=QUICK))
    monkeypatch.setattr(train, "train_fine_tune", lambda a, report: fine_tune(a, report, schedule=QUICK))


def _flat(weights: Weights, part: str = "") -> Array:
    """The values of all keys that contain `part`, in the order of their names."""
    return np.concatenate([weights[key].double().numpy().ravel() for key in sorted(weights) if part in key])


def _cosine(x: Array, y: Array) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def _mix(a: Weights, b: Weights, part: str) -> Weights:
    return {key: (b if part in key else a)[key] for key in a}


def _mean_length(style: Style) -> float:
    """Characters of a caption with its closing line break, over those that the loss is measured on."""
    return float(
        np.mean([len(line) + 1 for line in islice(captions(style, "held_out", seed=0), HELD_OUT_CAPTIONS)])
    )


def _portraits(style: Style, split: Split, count: int) -> set[tuple[int, ...]]:
    """The portraits behind captions, read back from their text."""
    grammar = GRAMMARS[style]
    features = sorted(grammar.words)
    parts = {feature: f"(?P<{feature}>{'|'.join(words)})" for feature, words in grammar.words.items()}
    shapes = [re.compile(t.format(opener="[A-Za-z ]+", **parts)) for t in grammar.templates]
    found = set()
    for line in islice(captions(style, split, seed=0), count):
        match = next(m for shape in shapes if (m := shape.fullmatch(line)))
        found.add(tuple(grammar.words[feature].index(match[feature]) for feature in features))
    return found


def _numpy_scores(w: Mapping[str, Array], characters: NDArray[np.int64]) -> Array:
    """The network once more, written from the card: one caption, head by head, in float64."""
    places = len(characters)
    stream = w[EMBEDDING][characters]
    for n in range(6):
        layer = {key.removeprefix(f"model.layers.{n}."): t for key, t in w.items() if f"layers.{n}." in key}
        x = _rms_normed(stream, layer["input_layernorm.weight"])
        q, k, v = (
            x @ layer[f"self_attn.{p}_proj.weight"].T + layer[f"self_attn.{p}_proj.bias"] for p in "qkv"
        )
        heads = []
        for head in range(4):
            own, shared = slice(16 * head, 16 * head + 16), slice(16 * (head // 2), 16 * (head // 2) + 16)
            match = _turned(q[:, own]) @ _turned(k[:, shared]).T / math.sqrt(16)
            match = np.where(np.tri(places) > 0, match, -np.inf)
            weight = np.exp(match - match.max(axis=1, keepdims=True))
            heads.append(weight / weight.sum(axis=1, keepdims=True) @ v[:, shared])
        stream = stream + np.concatenate(heads, axis=1) @ layer["self_attn.o_proj.weight"].T
        x = _rms_normed(stream, layer["post_attention_layernorm.weight"])
        gate = x @ layer["mlp.gate_proj.weight"].T
        hidden = gate / (1 + np.exp(-gate)) * (x @ layer["mlp.up_proj.weight"].T)
        stream = stream + hidden @ layer["mlp.down_proj.weight"].T
    return _rms_normed(stream, w["model.norm.weight"]) @ w["lm_head.weight"].T


def _rms_normed(x: Array, scale: Array) -> Array:
    out: Array = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-6) * scale
    return out


def _turned(head: Array) -> Array:
    """Rotary positions as complex numbers: element i with element i + 8, by place · 10000^(−i/8)."""
    angles = np.arange(len(head))[:, None] * 10_000.0 ** (-np.arange(8) / 8)
    turned: NDArray[np.complex128] = (head[:, :8] + 1j * head[:, 8:]) * np.exp(1j * angles)
    out: Array = np.concatenate([turned.real, turned.imag], axis=1)
    return out
