"""How much noise stands at each of the 1000 times of Stable Diffusion 1.x. Knows no networks and no files.

The β grow as the square of a line (`scaled_linear`); ᾱ is the product of 1 − β up to a time, so that a latent
x₀ becomes √ᾱ·x₀ + √(1 − ᾱ)·ε. Ho et al., Denoising Diffusion Probabilistic Models (2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from analyzer.pocket.networks import SCHEDULE

if TYPE_CHECKING:
    from torch import Tensor


def betas() -> Tensor:
    """β of every time, (1000,) in fp64, in (0, 1)."""
    import torch

    ends = SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5
    return torch.linspace(*ends, SCHEDULE["num_train_timesteps"], dtype=torch.float64) ** 2


def alphas_cumprod() -> Tensor:
    """ᾱ of every time, (1000,) in fp64, falling from almost 1 to almost 0."""
    import torch

    return torch.cumprod(1 - betas(), 0)


def tables() -> dict[str, Tensor]:
    """The twelve tables that files in the original layout carry, (1000,) each in fp32, by their keys.

    Those of the posterior q(x_{t−1} | x_t, x₀) are Ho et al., equations 6 and 7; its variance is 0 at the
    first time, and the logarithm of it is cut off at 1e-20, as CompVis' code does.
    """
    import torch

    beta, cumulated = betas(), alphas_cumprod()
    before = torch.cat((torch.ones(1, dtype=torch.float64), cumulated[:-1]))
    variance = beta * (1 - before) / (1 - cumulated)
    exact = {
        "betas": beta,
        "alphas_cumprod": cumulated,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": cumulated.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - cumulated).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - cumulated).log(),
        "sqrt_recip_alphas_cumprod": (1 / cumulated).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / cumulated - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": beta * before.sqrt() / (1 - cumulated),
        "posterior_mean_coef2": (1 - before) * (1 - beta).sqrt() / (1 - cumulated),
    }
    return {name: table.float() for name, table in exact.items()}
