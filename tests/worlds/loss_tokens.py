"""Tokens for the loss, as float64 tensors: written out, or random."""

import numpy as np
import torch
from torch import Tensor


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_tokens(seed: int, size: int) -> dict[str, Tensor]:
    """Log-probabilities whose ratios fall below, into, and above the clip range, none within 1e-3 of an
    edge."""
    rng = np.random.default_rng(seed)
    ratio_T = rng.choice([0.5, 0.75, 0.9, 1.0, 1.15, 1.25, 1.5], size) + rng.uniform(-0.02, 0.02, size)
    new_T = -rng.exponential(1.0, size)
    values = {
        "new": new_T,
        "old": new_T - np.log(ratio_T),
        "reference": new_T + rng.normal(0, 0.3, size),
        "advantages": rng.normal(0, 1, size),
        "weights": rng.uniform(0, 1, size),
        "importance": rng.uniform(0, 2, size),
    }
    return {name: torch.from_numpy(value) for name, value in values.items()}
