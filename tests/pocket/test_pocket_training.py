"""A training that is stopped and goes on ends where an uninterrupted one does; losses are the textbook's."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from analyzer.errors import AnalyzerError, CheckpointError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("libraries")


@pytest.fixture(scope="module")
def train(libraries: None) -> Any:
    """The command's module, which imports both libraries."""
    from analyzer.pocket import train

    return train


@pytest.fixture(scope="module")
def training(libraries: None) -> Any:
    """The steps of a training."""
    from analyzer.pocket import training

    return training


# --- all of it -------------------------------------------------------------------------------


def test_training_goes_on_after_any_stage_with_the_same_end(train: Any, tmp_path: Path) -> None:
    """Bit for bit: stopped before B, it does what it did; stages apart may come before, or beside."""
    step = train.Schedule
    said: list[str] = []
    schedules = {
        "text": step(1, 1e-3, 2), "windows": step(1, 2e-3, 1), "autoencoder": step(1, 2e-3, 1),
        "base": step(2, 1e-3, 2, decay=0.01), "fine-tune": step(1, 4e-4, 2), "decoder": step(1, 1e-3, 2),
    }  # fmt: skip

    def go(only: str | None = None) -> None:
        train.train(
            tmp_path, report=said.append, pictures={"shaded": 3, "flat": 2}, texts=5, schedules=schedules,
            only=only,
        )  # fmt: skip

    def kept() -> set[str]:
        return {path.stem for path in (tmp_path / "work").glob("*.pt") if "latents" not in path.stem}

    (tmp_path / "work").mkdir()
    state = torch.get_rng_state()
    go()
    assert ["draws 3 shaded pictures", "draws 2 flat pictures"] == said[1:3]
    assert ["encodes 3 shaded pictures", "encodes 2 flat pictures"] == [x for x in said if "encodes" in x]
    files = [tmp_path / name for name in ("base.safetensors", "fine-tune.safetensors", "work/losses.json")]
    before = [path.read_bytes() for path in files]
    for name in ("text", "fine-tune", "decoder"):
        (tmp_path / "work" / f"{name}.pt").unlink()
    files[1].unlink()
    go("text")
    assert {"text", "windows", "autoencoder", "base"} == kept()
    go("decoder")
    assert {"text", "windows", "autoencoder", "base", "decoder"} == kept()
    assert not files[1].exists()
    said.clear()
    go()
    assert torch.equal(state, torch.get_rng_state())  # which is the caller's
    assert before == [path.read_bytes() for path in files]
    done = [("text", 1), ("windows", 1), ("autoencoder", 1), ("base", 2)]
    assert [f"{name}: goes on from step {steps}" for name, steps in done] == said[:4]
    losses = json.loads(before[2])
    assert dict.fromkeys(schedules, 1) == {key: len(found) for key, found in losses.items()}
    a, b = map(load_file, files[:2])
    same = {key for key in a if torch.equal(a[key], b[key])}
    assert {key for key in a if key.startswith(("first_stage_model.", "cond_stage_model."))} <= same
    assert 500 < len([key for key in a if key.startswith("model.diffusion_model.") and key not in same])
    schedules["base"] = step(1, 1e-3, 2)
    with pytest.raises(CheckpointError, match=r"base\.pt: is of another schedule.*; name another folder"):
        go()
    with pytest.raises(CheckpointError, match=r"shaded\.npz: holds 3 pictures, not 4; name another folder"):
        train.train(tmp_path, report=said.append, pictures={"shaded": 4}, texts=5, schedules=schedules)


def test_a_strangers_file_is_never_replaced(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But an interrupted run goes on beside the model that it has written already."""
    started = []
    monkeypatch.setattr(train, "train", lambda folder, **options: started.append(folder))
    (tmp_path / "base.safetensors").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        train.main([str(tmp_path)])
    assert f"{tmp_path / 'base.safetensors'} would be replaced; name another folder" == ended.value.code
    assert [] == started
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "base.pt").touch()
    train.main([str(tmp_path)])
    assert ([tmp_path], "mine") == (started, (tmp_path / "base.safetensors").read_text())


def test_what_cannot_be_done_is_one_sentence(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where the folder should be, a library that is missing, no threads, an interruption."""

    def ended(*words: str) -> Any:
        with pytest.raises(SystemExit) as found:
            train.main([*map(str, words)])
        return found.value.code

    (tmp_path / "taken").touch()
    place = tmp_path / "taken" / "work"
    assert re.fullmatch(rf"{place} cannot be written: .+; name another folder", ended(tmp_path / "taken"))
    assert 2 == ended(tmp_path / "new", "--threads", "0")
    assert "0 threads are none; give 1 or more" in capsys.readouterr().err

    def interrupted(*rest: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", interrupted)
    assert "stopped; the same command goes on from the last checkpoint" == ended(tmp_path / "new")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "pip install 'mergescope[" in ended(tmp_path / "newer")
    assert ["new", "taken"] == sorted(path.name for path in tmp_path.iterdir())


def test_a_loss_that_is_not_finite_ends_a_run(training: Any, tmp_path: Path) -> None:
    """Before it reaches the weights or a checkpoint."""
    module = torch.nn.ModuleDict({"one": torch.nn.Linear(1, 1)})
    run = training.Run(
        "line", module, training.Schedule(9, 0.1, 1), tmp_path, seed=1, report=lambda line: None
    )
    steps = iter(range(9))

    def loss(generator: Any) -> Any:
        return module["one"](torch.ones(1, 1)).sum() * (math.nan if next(steps) == 4 else 1.0)

    with pytest.raises(AnalyzerError, match=r"line: the loss of step 4 is not finite"):
        run.go(lambda: loss)
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())


# --- a run -----------------------------------------------------------------------------------


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, stopped at steps between checkpoints, with AdamW's moments and the mean of the weights."""
    monkeypatch.setattr(training, "_EVERY", 4)
    schedule = training.Schedule(steps=18, rate=0.05, batch=1, decay=0.1)

    def run(name: str, *, stops: tuple[int, ...] = ()) -> tuple[Any, ...]:
        torch.manual_seed(4)
        modules = torch.nn.ModuleDict({"one": torch.nn.Linear(3, 2)})
        started = training.Run(name, modules, schedule, tmp_path, seed=1, report=said.append)
        steps = iter(range(started.step, 99))

        def loss(generator: Any) -> Any:
            if next(steps) in stops:
                raise KeyboardInterrupt
            return (modules["one"](torch.rand(5, 3, generator=generator)) - 1).square().mean()

        return started.go(lambda: loss), modules.state_dict(), started.losses

    said: list[str] = []
    state = torch.get_rng_state()
    whole = run("whole")
    for stop in (6, 14):
        with pytest.raises(KeyboardInterrupt):
            run("parts", stops=(stop,))
    parts = run("parts")
    torch.set_rng_state(state)
    assert ["parts: goes on from step 4", "parts: goes on from step 12"] == [
        x for x in said if "goes on" in x
    ]
    assert whole[2] == parts[2]
    assert 5 == len(whole[2])
    for one, other in zip(whole[:2], parts[:2], strict=True):
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert ["parts.pt", "whole.pt"] == sorted(path.name for path in tmp_path.iterdir())


def test_the_kept_weights_are_a_running_mean(training: Any, tmp_path: Path) -> None:
    """Recomputed from the weights after every step; a finished run prepares nothing again."""
    modules = torch.nn.ModuleDict({"one": torch.nn.Linear(1, 1), "other": torch.nn.Linear(1, 1)})
    start = {key: value.detach().clone() for key, value in modules.state_dict().items()}
    schedule = training.Schedule(steps=30, rate=0.1, batch=1, average=0.8)
    seen: list[dict[str, float]] = []

    def loss(generator: Any) -> Any:
        seen.append({key: float(value) for key, value in modules.state_dict().items()})
        x = torch.rand(8, 1, generator=generator)
        return (modules["one"](x) + modules["other"](x) - 3).square().mean()

    run = training.Run("line", modules, schedule, tmp_path, seed=1, report=lambda line: None)
    kept = run.go(lambda: loss)
    seen.append({key: float(value) for key, value in modules.state_dict().items()})
    for key, value in start.items():
        mean = float(value)
        for step in range(1, 31):
            keep = min(0.8, (1 + step) / (10 + step))
            mean = keep * mean + (1 - keep) * seen[step][key]
        assert mean == pytest.approx(float(kept[key]), rel=1e-5)
    assert 1 == len(run.losses)
    prepared: list[Any] = []
    again = run.go(lambda: prepared.append(loss))
    assert ([], True) == (prepared, all(torch.equal(kept[key], again[key]) for key in kept))


def test_the_rate_rises_and_then_falls_as_a_cosine(
    training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From nearly nothing to the whole in the first 100 steps, then to a twentieth."""
    rates = []
    real = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self, *rest: (rates.append(self.param_groups[0]["lr"]), real(self, *rest))[1],
    )
    module = torch.nn.ModuleDict({"one": torch.nn.Linear(1, 1)})
    schedule = training.Schedule(steps=300, rate=0.5, batch=1)
    run = training.Run("line", module, schedule, tmp_path, seed=1, report=lambda line: None)
    run.go(lambda: lambda generator: module["one"](torch.ones(1, 1)).square().mean())
    np.testing.assert_allclose(rates[:100], 0.5 * np.arange(1, 101) / 100)
    fall = 0.5 * (0.05 + 0.95 * (1 + np.cos(np.pi * np.arange(200) / 200)) / 2)
    np.testing.assert_allclose(rates[100:], fall)


# --- losses ----------------------------------------------------------------------------------


def test_a_denoiser_that_knows_the_noise_has_no_loss(training: Any) -> None:
    """With latents of one value the noise can be read off; predicting nothing costs min(SNR, 5) / SNR."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    latents = torch.full((5, 4, 8, 8), 0.7 / 0.18215), torch.zeros(5, 4, 8, 8)
    tokens = torch.zeros(5, 2, 32, dtype=torch.int16)
    seen: list[Any] = []

    def knowing(x: Any, times: Any, words: Any) -> Any:
        seen.append(times)
        a = scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
        return SimpleNamespace(sample=(x - a.sqrt() * 0.7) / (1 - a).sqrt())

    def idle(x: Any, times: Any, words: Any) -> Any:
        return SimpleNamespace(sample=torch.zeros_like(x))

    schedule = training.Schedule(steps=1, rate=1.0, batch=500)
    found = [
        float(training.denoiser_loss(unet, lambda ids: (ids,), latents, tokens, schedule)(generator()))
        for unet in (knowing, idle)
    ]
    snr = compute_snr(scheduler, torch.arange(1000))
    expected = float((snr.clamp(max=5) / snr).mean())
    assert [0.0, expected] == pytest.approx(found, abs=0.02)
    # every stratum of the thousand times once
    assert list(range(500)) == sorted((seen[0] // 2).tolist())


def test_a_reader_is_asked_for_every_feature_at_the_end_of_a_text(training: Any) -> None:
    """Certain and right costs nothing, knowing nothing ln of the values of each; nothing before the end."""
    tokens = torch.tensor([[7, 1, 2, 9, 9], [7, 3, 9, 9, 9]], dtype=torch.int16)
    named = torch.tensor([[1, 0], [0, 2]], dtype=torch.int8)
    schedule = training.Schedule(steps=1, rate=1.0, batch=50)

    def knowing(ids: Any) -> Any:
        states = torch.full((*ids.shape, 5), torch.nan)  # of 2 and 3 values
        for text in (0, 1):
            scores = torch.nn.functional.one_hot(named[text].long() + torch.tensor([0, 2]), 5).sum(0)
            states[(ids[:, 1] == tokens[text, 1])[:, None] & (ids == 9)] = 50.0 * scores
        return (states,)

    def idle(ids: Any) -> Any:
        return (torch.zeros(*ids.shape, 5),)

    found = [
        float(training.reading_loss(text, torch.nn.Identity(), tokens, named, (2, 3), schedule)(generator()))
        for text in (knowing, idle)
    ]
    assert [0.0, math.log(2) + math.log(3)] == pytest.approx(found, abs=1e-6)


def test_a_decoder_learns_from_rougher_latents(training: Any, random_model: Any) -> None:
    """A tenth of what the U-Net's latents are long beside the encoder's own spread."""
    pictures = torch.full((2, 3, 64, 64), 90, dtype=torch.uint8)
    seen: list[Any] = []
    schedule = training.Schedule(steps=1, rate=1.0, batch=64)
    latents = training.encode(random_model.vae, pictures)
    mean, deviation = (part[0] for part in latents)

    def decode(latents: Any) -> Any:
        seen.append(latents)
        return SimpleNamespace(sample=torch.zeros(64, 3, 64, 64))

    training.decoder_loss(SimpleNamespace(decode=decode), pictures, latents, schedule)(generator())
    spread = (seen[0] - mean) / (deviation + 0.1 / 0.18215)
    assert 1 == pytest.approx(float(spread.std()), abs=0.02)


def test_an_autoencoder_is_asked_for_pixels_means_and_slopes(training: Any) -> None:
    """Nothing for the picture itself, a shift costs itself twice, a checkerboard most in its slopes.

    Of a window as large as is said; and 2e-6 for a nat of divergence.
    """
    pictures = torch.randint(0, 256, (6, 3, 64, 64), generator=generator(), dtype=torch.uint8)
    schedule = training.Schedule(steps=1, rate=1.0, batch=4)

    def board(x: Any) -> Any:
        return torch.from_numpy(np.indices(x.shape[-2:]).sum(0) % 2 * 2.0 - 1).float()

    def cost(change: Callable[[Any], Any], window: int = 32, nats: float = 0.0) -> float:
        given = Given(change, nats)
        loss = training.autoencoder_loss(given, pictures, schedule, window=window)
        found = float(loss(generator()))
        assert (4, 3, window, window) == given.seen
        return found

    assert 0 == pytest.approx(cost(lambda x: x), abs=1e-6)
    assert 0.5 == pytest.approx(cost(lambda x: x + 0.25), rel=1e-4)
    assert 0.1 + 0.5 * (0.2 + 0.2) == pytest.approx(cost(lambda x: x + 0.1 * board(x)), rel=1e-4)
    assert 0.7 == pytest.approx(cost(lambda x: x + 0.25, window=64, nats=1e5), rel=1e-4)


def test_scaled_latents_have_variance_one_and_give_the_same_pictures(
    training: Any, random_model: Any
) -> None:
    """Times 0.18215, as whatever reads Stable Diffusion 1.x multiplies them."""
    import copy

    vae = copy.deepcopy(random_model.vae).eval()
    pictures = torch.randint(0, 256, (6, 3, 64, 64), generator=generator(), dtype=torch.uint8)
    means, deviations = training.encode(vae, pictures)
    assert [(6, 4, 8, 8)] * 2 == [tuple(means.shape), tuple(deviations.shape)]
    before = decoded(vae, means)
    training.scale_latents(vae, float(means.double().std()))
    scaled, spread = training.encode(vae, pictures)
    assert 1 == pytest.approx(float((scaled * 0.18215).double().std()), rel=1e-5)
    factor = float((scaled / means).median())
    np.testing.assert_allclose(spread.numpy(), deviations.numpy() * factor, rtol=1e-4)
    np.testing.assert_allclose(decoded(vae, scaled), before, atol=1e-4)


def test_alphas_are_those_of_the_file(training: Any) -> None:
    """One noise schedule for both: the product of 1 − β, in fp64."""
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    np.testing.assert_allclose(training.alphas_cumprod().numpy(), np.cumprod(1 - betas), rtol=1e-12)


# --- oracles ---------------------------------------------------------------------------------


class Given:
    """An autoencoder without loss or spread whose decoder changes what it was given."""

    def __init__(self, change: Callable[[Any], Any], nats: float) -> None:
        self._change = change
        self._nats = nats
        self.seen: tuple[int, ...] = ()

    def encode(self, x: Any) -> Any:
        """The picture itself as latents, and the divergence that was given."""
        self.seen = tuple(x.shape)
        nats = torch.full((len(x),), self._nats)
        spread = SimpleNamespace(mean=x, std=torch.zeros_like(x), kl=lambda: nats)
        return SimpleNamespace(latent_dist=spread)

    def decode(self, latents: Any) -> Any:
        """A changed picture."""
        return SimpleNamespace(sample=self._change(latents))


def generator() -> Any:
    """Random numbers from one seed."""
    return torch.Generator().manual_seed(3)


def decoded(vae: Any, latents: Any) -> np.ndarray:
    """Pictures of latents."""
    with torch.inference_mode():
        return vae.decode(latents).sample.numpy()
