"""The samplers by the names that people know them by, as schedulers of diffusers. Knows no weights.

https://huggingface.co/docs/diffusers/api/schedulers/overview lists which name is which class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from analyzer.errors import AnalyzerError
from analyzer.experiment.noise import steady_scheduler


@dataclass(frozen=True, slots=True)
class Sampler:
    """A scheduler of diffusers and how it is set up."""

    scheduler: str  # the class
    overrides: Mapping[str, Any] = field(default_factory=dict)  # of the pipeline's own configuration


_KARRAS = {"use_karras_sigmas": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_DPMPP = {"algorithm_type": "dpmsolver++"}

SAMPLERS: Mapping[str, Sampler] = {
    "euler_a": Sampler("EulerAncestralDiscreteScheduler"),
    "euler": Sampler("EulerDiscreteScheduler"),
    "euler_karras": Sampler("EulerDiscreteScheduler", _KARRAS),
    "heun": Sampler("HeunDiscreteScheduler"),
    "heun_karras": Sampler("HeunDiscreteScheduler", _KARRAS),
    "lms": Sampler("LMSDiscreteScheduler"),
    "lms_karras": Sampler("LMSDiscreteScheduler", _KARRAS),
    "dpm2": Sampler("KDPM2DiscreteScheduler"),
    "dpm2_karras": Sampler("KDPM2DiscreteScheduler", _KARRAS),
    "dpm2_a": Sampler("KDPM2AncestralDiscreteScheduler"),
    "dpm2_a_karras": Sampler("KDPM2AncestralDiscreteScheduler", _KARRAS),
    "dpmpp_2m": Sampler("DPMSolverMultistepScheduler", _DPMPP),
    "dpmpp_2m_karras": Sampler("DPMSolverMultistepScheduler", _DPMPP | _KARRAS),
    "dpmpp_2m_sde": Sampler("DPMSolverMultistepScheduler", _SDE),
    "dpmpp_2m_sde_karras": Sampler("DPMSolverMultistepScheduler", _SDE | _KARRAS),
    "dpmpp_2s": Sampler("DPMSolverSinglestepScheduler", _DPMPP),
    "dpmpp_2s_karras": Sampler("DPMSolverSinglestepScheduler", _DPMPP | _KARRAS),
    "unipc": Sampler("UniPCMultistepScheduler"),
    "deis": Sampler("DEISMultistepScheduler"),
    "ddim": Sampler("DDIMScheduler"),
    "ddpm": Sampler("DDPMScheduler"),
    "pndm": Sampler("PNDMScheduler", {"skip_prk_steps": True}),
    "plms": Sampler("PNDMScheduler", {"skip_prk_steps": True}),
    "lcm": Sampler("LCMScheduler"),
}
# Of models that were trained to follow a flow (SD 3, Flux …) and have no noise schedule of the other kind.
FLOW_SAMPLERS: Mapping[str, Sampler] = {
    "euler": Sampler("FlowMatchEulerDiscreteScheduler"),
    "heun": Sampler("FlowMatchHeunDiscreteScheduler"),
}

# What a model's own scheduler says of the way to sample, and not of the noise that it was trained with.
_WAYS = frozenset(
    {
        "algorithm_type",
        "final_sigmas_type",
        "lower_order_final",
        "s_noise",
        "solver_order",
        "solver_type",
        "stochastic_sampling",
        "use_beta_sigmas",
        "use_exponential_sigmas",
        "use_karras_sigmas",
        "use_lu_lambdas",
    }
)


def check_sampler(name: str) -> None:
    """AnalyzerError, with the nearest name, for a sampler that there is not; needs no model."""
    _look_up(name, SAMPLERS)


def default_sampler(pipeline: Any) -> str:
    """What suits the pipeline: the article's Euler ancestral, or Euler where there is a flow."""
    return "euler" if _is_flow(pipeline) else "euler_a"


def set_sampler(pipeline: Any, name: str) -> None:
    """Give the pipeline the scheduler of that name, with the noise schedule that it was trained on.

    Raises AnalyzerError for a name that there is not, or that does not suit the pipeline.
    """
    import diffusers

    known = FLOW_SAMPLERS if _is_flow(pipeline) else SAMPLERS
    check_sampler(name)
    sampler = known.get(name)
    if sampler is None:
        raise AnalyzerError(
            f"--sampler {name}: this model follows a flow, which {name} cannot; choose {' or '.join(known)}"
        )
    kind = getattr(diffusers, sampler.scheduler)
    config = {key: value for key, value in pipeline.scheduler.config.items() if key not in _WAYS}
    # What solvers of the other kind call the shift of a flow's times.
    shift = {"shift": config["flow_shift"]} if known is FLOW_SAMPLERS and "flow_shift" in config else {}
    pipeline.scheduler = steady_scheduler(kind).from_config(  # type: ignore[attr-defined] # diffusers' own
        config, **sampler.overrides, **shift
    )


def _look_up(name: str, known: Mapping[str, Sampler]) -> Sampler:
    found = known.get(name)
    if found is None:
        near = get_close_matches(name.lower().replace("+", "p").replace(" ", "_"), known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise AnalyzerError(f"--sampler {name}: is not known{hint}; choose one of {', '.join(known)}")
    return found


def _is_flow(pipeline: Any) -> bool:
    config = pipeline.scheduler.config
    if config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas"):
        return True
    return "FlowMatch" in type(pipeline.scheduler).__name__
