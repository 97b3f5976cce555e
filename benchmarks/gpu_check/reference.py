"""Log-probabilities by transformers alone, which engine and learner are compared with."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from dynalign.benchmarks.workload import Device
from dynalign.rollout.engine.base import EngineResult

WRONG_NATS = 0.1
"""More than bfloat16 kernels of two libraries differ by in the mean (0.03 to 0.04 on a CPU), and less than
other weights do (0.5 and more)."""


def torch_device(device: Device) -> torch.device:
    """The device of the check as torch names it."""
    return torch.device("cuda", 0) if device == "gpu" else torch.device("cpu")


def loaded(folder: Path, device: Device) -> Any:
    """The model in a folder, in bfloat16 on the device."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return model.to(torch_device(device)).eval()


def logprobs_T(model: Any, token_ids: tuple[int, ...]) -> Tensor:
    """[T - 1]: the log-probability in nats of each token after the first."""
    ids = torch.tensor([token_ids], device=model.device)
    with torch.no_grad():
        logprobs_TV = model(ids).logits[0, :-1].float().log_softmax(-1)
    return logprobs_TV.gather(-1, ids[0, 1:, None])[:, 0].cpu()  # type: ignore[no-any-return]


def mismatch_nats(model: Any, context: tuple[int, ...], result: EngineResult) -> float:
    """Mean distance of the engine's log-probabilities of what it sampled from the model's."""
    expected = logprobs_T(model, context + result.token_ids)[len(context) - 1 :]
    return float((expected - torch.tensor(result.logprobs_T)).abs().mean())
