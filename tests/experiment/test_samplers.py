"""Samplers by their usual names, and noise that depends on the seed alone."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from analyzer.errors import AnalyzerError
from analyzer.experiment import noise
from analyzer.experiment.samplers import FLOW_SAMPLERS, SAMPLERS, check_sampler, default_sampler, set_sampler
from analyzer.quiet import quiet

POINT = 0.7  # where all of the data lies
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def pipeline_with(kind: str = "PNDMScheduler", **config: Any) -> Any:
    """As much of a pipeline as has a scheduler."""
    with quiet():
        import diffusers

        return SimpleNamespace(scheduler=getattr(diffusers, kind)(**config))


def sample(pipeline: Any, *, seed: int, dtype: torch.dtype = torch.float32, steps: int = 12) -> torch.Tensor:
    """What a sampler comes to with the exact noise of data that is one point.

    Its distribution at time t is N(√ᾱ·POINT, 1 − ᾱ), so the noise in x is (x − √ᾱ·POINT) / √(1 − ᾱ).
    """
    betas = np.linspace(SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5, 1000) ** 2
    left = np.cumprod(1 - betas)
    levels = np.log((1 - left) / left)
    scheduler, generator = pipeline.scheduler, noise.generator(seed)
    scheduler.set_timesteps(steps)
    x = torch.randn((1, 4, 8, 8), generator=generator) * scheduler.init_noise_sigma
    x = x.to(dtype)
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    for time in scheduler.timesteps:
        # Times between two of the training's: their noise levels are interpolated as logarithms.
        ratio = np.exp(np.interp(float(time), np.arange(1000), levels))
        alpha = 1 / (1 + ratio)
        seen = scheduler.scale_model_input(x, time).double()
        found = ((seen - alpha**0.5 * POINT) / (1 - alpha) ** 0.5).to(dtype)
        options = {"generator": generator} if takes_generator else {}
        x = scheduler.step(found, time, x, **options, return_dict=False)[0]
        assert dtype == x.dtype
    return x


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_comes_to_the_data(name: str) -> None:
    """With the exact noise of one point all ways lead there, but for the little noise of the last time."""
    with quiet():
        pipeline = pipeline_with(**SCHEDULE, skip_prk_steps=True)
        set_sampler(pipeline, name)
        assert SAMPLERS[name].scheduler == type(pipeline.scheduler).__name__
        found = sample(pipeline, seed=1)
    assert found.numpy() == pytest.approx(np.full((1, 4, 8, 8), POINT), abs=0.12)


@pytest.mark.parametrize("name", ["euler_a", "dpm2_a", "ddpm", "dpmpp_2m_sde", "lcm", "euler"])
def test_noise_is_the_same_in_every_dtype(name: str) -> None:
    """What two steps add in half precision is what they add in fp32, rounded."""
    for dtype in (torch.float16, torch.bfloat16):
        outputs = []
        for kind in (torch.float32, dtype):
            with quiet():
                pipeline = pipeline_with(**SCHEDULE, skip_prk_steps=True)
                set_sampler(pipeline, name)
                scheduler, generator = pipeline.scheduler, noise.generator(5)
                scheduler.set_timesteps(10)
                zeros = torch.zeros((1, 4, 8, 8), dtype=kind)
                found = []
                for time in scheduler.timesteps[:2]:
                    scheduler.scale_model_input(zeros, time)
                    found.append(
                        scheduler.step(zeros, time, zeros, generator=generator, return_dict=False)[0]
                    )
                outputs.append(torch.cat(found))
        assert torch.equal(outputs[0].to(dtype), outputs[1])
        assert bool(outputs[0].any()) == (name != "euler")


def test_first_latents_are_the_same_in_every_dtype(pocket_pair: Any) -> None:
    """Drawn in fp32 from the seed, on the CPU, and rounded once."""
    with quiet():
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline.from_pretrained(str(pocket_pair.folder_a), local_files_only=True)
    ask = (1, 4, 64, 64)
    noise.steady_latents(pipeline)
    wide = pipeline.prepare_latents(*ask, torch.float32, "cpu", noise.generator(2))
    half = pipeline.prepare_latents(*ask, dtype=torch.float16, device="cpu", generator=noise.generator(2))
    assert torch.equal(torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(2)), wide)
    assert torch.equal(wide.half(), half)


def test_what_the_models_own_scheduler_says_of_noise_is_kept_and_of_sampling_not() -> None:
    """v-prediction is a matter of the training; Karras' times are a matter of taste."""
    pipeline = pipeline_with(
        "DPMSolverMultistepScheduler",
        **SCHEDULE,
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        algorithm_type="sde-dpmsolver++",
    )
    with quiet():
        set_sampler(pipeline, "dpmpp_2m")
        config = pipeline.scheduler.config
        assert ("v_prediction", 0.012) == (config.prediction_type, config.beta_end)
        assert (False, "dpmsolver++") == (config.use_karras_sigmas, config.algorithm_type)
        set_sampler(pipeline, "dpmpp_2m_karras")
        assert pipeline.scheduler.config.use_karras_sigmas


@pytest.mark.parametrize(
    ("name", "nearest"), [("euler_b", "euler_a"), ("Euler a", "euler_a"), ("DPM++ 2M", "dpmpp_2m")]
)
def test_an_unknown_sampler_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    """And all that there are."""
    with pytest.raises(AnalyzerError, match=rf"is not known \(did you mean {nearest}\?\).*, lcm$"):
        check_sampler(name)


def test_models_that_follow_a_flow_have_samplers_of_their_own() -> None:
    """Euler is another there; ancestral ones are refused, and the shift of times is kept."""
    pipeline = pipeline_with("FlowMatchEulerDiscreteScheduler", shift=3.0)
    assert "euler" == default_sampler(pipeline)
    assert "euler_a" == default_sampler(pipeline_with(**SCHEDULE))
    with quiet():
        for name in FLOW_SAMPLERS:
            set_sampler(pipeline, name)
            assert FLOW_SAMPLERS[name].scheduler == type(pipeline.scheduler).__name__
            assert 3.0 == pipeline.scheduler.config.shift
        with pytest.raises(
            AnalyzerError, match=r"--sampler euler_a: this model follows a flow.*euler or heun"
        ):
            set_sampler(pipeline, "euler_a")
        other = pipeline_with(
            "DPMSolverMultistepScheduler",
            use_flow_sigmas=True,
            prediction_type="flow_prediction",
            flow_shift=2.0,
        )
        set_sampler(other, "euler")
    assert 2.0 == other.scheduler.config.shift
