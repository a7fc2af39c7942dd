"""Train the networks of the pocket models, step by step, so that a run can stop and go on. Knows torch.

Every step draws its random numbers from the seed and its own number alone: a run that was interrupted and
goes on from a checkpoint does what an uninterrupted one does.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from analyzer.errors import AnalyzerError, CheckpointError
from analyzer.pocket.networks import SCALING_FACTOR
from analyzer.pocket.noise_schedule import alphas_cumprod

Report = Callable[[str], None]
Latents = tuple[Tensor, Tensor]  # means and deviations of encoded pictures, (n × 4 × 8 × 8), not scaled
Loss = Callable[[torch.Generator], Tensor]  # of one step, whose random numbers the generator draws
_EVERY = 250  # steps between two checkpoints
_WARM_UP = 100  # steps in which the rate rises
# Weight of the divergence of a latent from N(0, 1), in nats a picture: enough to keep it from growing.
# Fifteen times as much cost one of the four channels: it said nothing any more.
_KL = 2e-6
_ROUGHNESS = 0.1  # of latents that the decoder learns from, where theirs is 1: about what a U-Net leaves
_GAMMA = 5.0  # min-SNR weighting: Hang et al., Efficient Diffusion Training via Min-SNR (2023)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast: a cosine from `rate` to a twentieth of it."""

    steps: int
    rate: float  # AdamW's, at its highest
    batch: int  # pictures, or texts, a step
    decay: float = 0.0  # AdamW's
    average: float = 0.999  # of the running mean of the weights that is kept


class Run:
    """A training of `networks` that continues where its checkpoint in `folder` stopped.

    The checkpoint is this program's own file. One of another schedule or seed, or that builds on other
    weights than `after` names, raises CheckpointError.
    """

    def __init__(
        self, name: str, networks: nn.ModuleDict, schedule: Schedule, folder: Path, *, seed: int,
        report: Report, after: str = "",
    ) -> None:  # fmt: skip
        self.name = name
        self.networks = networks
        self.schedule = schedule
        self.seed = seed
        self._report = report
        self._file = folder / f"{name}.pt"
        self._made_by = {"schedule": asdict(schedule), "seed": seed, "after": after}
        self._optimizer = torch.optim.AdamW(
            networks.parameters(), lr=schedule.rate, weight_decay=schedule.decay, fused=True
        )
        self._average = {key: value.detach().clone() for key, value in networks.state_dict().items()}
        self.step = 0
        self.losses: list[float] = []  # the mean of every `_EVERY` steps
        if self._file.exists():
            self._load()

    def go(self, prepare: Callable[[], Loss]) -> dict[str, Tensor]:
        """All steps that are left; the averaged weights.

        `prepare` gives the loss. It is not called if nothing is left: to encode all pictures takes minutes.
        """
        if self.step >= self.schedule.steps:
            return self._average
        loss = prepare()
        self.networks.train()
        total, began = 0.0, time.monotonic()
        while self.step < self.schedule.steps:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
            for group in self._optimizer.param_groups:
                group["lr"] = self._rate()
            found = loss(generator)
            if not torch.isfinite(found):
                raise AnalyzerError(
                    f"{self.name}: the loss of step {self.step} is not finite; {self._file} holds the last "
                    "good state"
                )
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(found)
            nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
            self._optimizer.step()
            self.step += 1
            self._update_average()
            total += float(found.detach())
            if self.step % _EVERY == 0 or self.step == self.schedule.steps:
                count = (self.step - 1) % _EVERY + 1
                self.losses.append(total / count)
                pace = (time.monotonic() - began) / count
                left = pace * (self.schedule.steps - self.step) / 60
                self._report(
                    f"{self.name}: step {self.step} of {self.schedule.steps}, loss {total / count:.4f}, "
                    f"{pace:.2f} s a step, {left:.0f} min left"
                )
                self._save()
                total, began = 0.0, time.monotonic()
        return self._average

    def _rate(self) -> float:
        s = self.schedule
        if self.step < _WARM_UP:
            return s.rate * (self.step + 1) / _WARM_UP
        done = (self.step - _WARM_UP) / max(1, s.steps - _WARM_UP)
        return s.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))

    def _update_average(self) -> None:
        keep = min(self.schedule.average, (1 + self.step) / (10 + self.step))
        current = self.networks.state_dict()
        floats = [key for key, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_([self._average[k] for k in floats], [current[k] for k in floats], 1 - keep)

    def _save(self) -> None:
        state = {
            "networks": self.networks.state_dict(), "average": self._average,
            "optimizer": self._optimizer.state_dict(), "step": self.step, "losses": self.losses,
            "made_by": self._made_by,
        }  # fmt: skip
        unfinished = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        torch.save(state, unfinished)
        unfinished.replace(self._file)

    def _load(self) -> None:
        state = torch.load(self._file, weights_only=True)
        if state.get("made_by", self._made_by) != self._made_by:
            raise CheckpointError(
                f"{self._file}: is of another schedule, or builds on weights that have changed; name another "
                "folder, or remove it"
            )
        self.networks.load_state_dict(state["networks"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average, self.step, self.losses = state["average"], state["step"], state["losses"]
        self._report(f"{self.name}: goes on from step {self.step}")


def autoencoder_loss(vae: Any, pictures: Tensor, schedule: Schedule, *, window: int) -> Loss:
    """Of reconstructing pictures, (n × 3 × 64 × 64) uint8.

    The mean absolute differences of pixels, of their slopes and of means over 4 × 4 of them, and a little for
    latents that are not spread as N(0, 1). Of each batch one window of so many pixels a side is looked at.
    """

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pictures), (schedule.batch,), generator=generator)
        top, left = torch.randint(pictures.shape[-1] - window + 1, (2,), generator=generator).tolist()
        x = pictures[chosen, :, top : top + window, left : left + window].float() / 127.5 - 1
        latent = vae.encode(x).latent_dist
        noise = torch.randn(latent.mean.shape, generator=generator)
        decoded = vae.decode(latent.mean + latent.std * noise).sample
        divergence: Tensor = latent.kl().mean()
        return _unlikeness(decoded, x) + _KL * divergence

    return loss


def decoder_loss(vae: Any, pictures: Tensor, latents: Latents, schedule: Schedule) -> Loss:
    """As `autoencoder_loss` without the divergence, of the decoder alone: of pictures and their latents.

    The latents are a little rougher than the encoder's: a U-Net's are never quite those of an encoder, and a
    decoder that has seen no others answers with speckles.
    """
    means, deviations = latents[0], latents[1] + _ROUGHNESS / SCALING_FACTOR

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pictures), (schedule.batch,), generator=generator)
        x = pictures[chosen].float() / 127.5 - 1
        noise = torch.randn(means[chosen].shape, generator=generator)
        return _unlikeness(vae.decode(means[chosen] + deviations[chosen] * noise).sample, x)

    return loss


def _unlikeness(y: Tensor, x: Tensor) -> Tensor:
    """Of pictures and what became of them: differences of pixels, slopes, and means over 4 × 4 pixels."""
    slopes = _slope_difference(y, x, 2) + _slope_difference(y, x, 3)
    coarse = (F.avg_pool2d(y, 4) - F.avg_pool2d(x, 4)).abs().mean()
    return (y - x).abs().mean() + 0.5 * slopes + coarse


def _slope_difference(x: Tensor, y: Tensor, axis: int) -> Tensor:
    return (torch.diff(x, dim=axis) - torch.diff(y, dim=axis)).abs().mean()


def reading_loss(
    text_encoder: Any, answers: nn.Module, tokens: Tensor, named: Tensor, sizes: Sequence[int],
    schedule: Schedule,
) -> Loss:  # fmt: skip
    """Of telling what each text names, from the states at its end and after it.

    `tokens` are (n × 32); `named`, (n × features), the number of each feature's value, 0 where the text does
    not name it, below `sizes` of the feature. `answers` maps a state to the scores of all values in a row.
    The cross entropies of the features are added, averaged over the states: each of them has read all of the
    text, and the U-Net looks at all of them.
    """
    end = int(tokens.max())  # ends a text and fills what is left: CLIP's highest token

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(tokens), (schedule.batch,), generator=generator)
        ids = tokens[chosen].long()
        texts, places = torch.nonzero(ids == end, as_tuple=True)
        scores = answers(text_encoder(ids)[0][texts, places]).split(list(sizes), dim=1)
        total: Tensor = torch.zeros(())
        for feature, values in zip(scores, named[chosen][texts].long().T, strict=True):
            total = total + F.cross_entropy(feature, values)
        return total

    return loss


def denoiser_loss(unet: Any, text_encoder: Any, latents: Latents, tokens: Tensor, schedule: Schedule) -> Loss:
    """Of predicting the noise that was added, weighted by min(SNR, 5) / SNR.

    `tokens`, (n × captions × 32), are several captions of each of the n pictures; the times are 0 … 999,
    one of each stratum of the batch.
    """
    cumulated = alphas_cumprod().float()
    snr = cumulated / (1 - cumulated)
    weights = snr.clamp(max=_GAMMA) / snr

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(tokens), (schedule.batch,), generator=generator)
        which = torch.randint(tokens.shape[1], (schedule.batch,), generator=generator)
        mean, deviation = (part[chosen] * SCALING_FACTOR for part in latents)
        x = mean + deviation * torch.randn(mean.shape, generator=generator)
        # one time a stratum: less variance between batches than independent draws
        places = (
            torch.arange(schedule.batch) + torch.rand(schedule.batch, generator=generator)
        ) / schedule.batch
        times = (places * len(cumulated)).long().clamp(max=len(cumulated) - 1)
        noise = torch.randn(x.shape, generator=generator)
        a = cumulated[times].view(-1, 1, 1, 1)
        with torch.no_grad():  # as Stable Diffusion's: it has learned before, and learns no more
            words = text_encoder(tokens[chosen, which].long())[0]
        predicted = unet(a.sqrt() * x + (1 - a).sqrt() * noise, times, words).sample
        errors: Tensor = (predicted - noise).square().mean(dim=(1, 2, 3))
        return (weights[times] * errors).mean()

    return loss


def encode(vae: Any, pictures: Tensor) -> Latents:
    """Means and deviations of the latents of pictures, (n × 3 × 64 × 64) uint8, not scaled."""
    means, deviations = [], []
    with torch.inference_mode():
        for part in torch.split(pictures, 256):
            found = vae.encode(part.float() / 127.5 - 1).latent_dist
            means.append(found.mean)
            deviations.append(found.std)
    return torch.cat(means).clone(), torch.cat(deviations).clone()


def scale_latents(vae: Any, deviation: float) -> None:
    """Fold a factor into the VAE so that its latents, times the scaling factor, have a variance of one.

    The means are multiplied by k = 1 / (deviation · scaling factor), the logarithms of their variances
    raised by 2·ln k, and the decoder's first layer divides by k: pictures are reconstructed as before, and
    what reads Stable Diffusion 1.x finds the factor that it knows.
    """
    k = 1 / (deviation * SCALING_FACTOR)
    channels = vae.config.latent_channels
    with torch.no_grad():
        vae.quant_conv.weight[:channels] *= k
        vae.quant_conv.bias[:channels] *= k
        vae.quant_conv.bias[channels:] += 2 * math.log(k)
        vae.post_quant_conv.weight /= k


def digest(network: Any) -> str:
    """SHA-256 of the weights of a network on the CPU, in hex: equal if and only if all of them are."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def stacked(pictures: Iterable[np.ndarray[Any, Any]]) -> Tensor:
    """Pictures (64 × 64 × 3) as one tensor (n × 3 × 64 × 64)."""
    return torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2).contiguous()
