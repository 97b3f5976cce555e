"""Plain torch on the learner's own rows, and on padded ones: what a loop written by hand for this one job
would do.

Both have bfloat16 weights with float32 masters, gradient clipping and torch's fused AdamW, like the learner;
and no DeepSpeed, no entropy, no statistics, no chunks: the logits of a micro-batch's completion tokens exist
at once.

    packed   one micro-batch per packed row, attention by the learner's kernel, since transformers has
             no fast one for such rows
    padded   one micro-batch per group: the prompt repeated for every candidate, completions padded to
             the longest, attention by torch's sdpa
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from dynalign.configs.sections.learner import LearnerSettings
from dynalign.learner.batch import TrainingBatch, TrainingGroup
from dynalign.learner.rows.attention import PACKED
from dynalign.learner.rows.rows import Row


class BareTorch:
    """One model with its optimizer, which both forms train in turn."""

    def __init__(self, model_folder: Path, settings: LearnerSettings, device: torch.device) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
        self._model = model.to(device).train()
        self._device = device
        self._settings = settings
        self._weights = list(self._model.parameters())
        self._masters = [nn.Parameter(weight.detach().float()) for weight in self._weights]
        betas = (settings.adam_beta1, settings.adam_beta2)
        self._optimizer = torch.optim.AdamW(
            self._masters,
            lr=settings.learning_rate,
            betas=betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def packed_step(self, rows_R: Sequence[Row]) -> float:
        """One optimizer step on packed rows; returns the gradient's norm."""
        self._model.set_attn_implementation(PACKED)
        for row in rows_R:
            tokens = {
                "input_ids": self._tensor(row.input_ids_S)[None],
                "position_ids": self._tensor(row.position_ids_S)[None],
            }
            hidden_SH = self._model.get_decoder()(
                **tokens, use_cache=False, layout=row.layout
            ).last_hidden_state[0]
            hidden_TH = hidden_SH.index_select(0, self._tensor(row.predicting_T))
            factors_T = self._tensor(row.weights_T * row.advantages_T)
            self._backward(hidden_TH, self._tensor(row.targets_T), factors_T)
        return self._update()

    def padded_step(self, batch: TrainingBatch) -> float:
        """One optimizer step on padded groups, every token of the batch weighing the same; returns the
        gradient's norm.
        """
        self._model.set_attn_implementation("sdpa")
        weight = 1 / sum(batch.lengths_N)
        for group, advantages_G in zip(batch.groups_P, batch.advantages_PG, strict=True):
            ids_GS, mask_GS = map(self._tensor, _padded(group))
            prompt = len(group.context_ids)
            completion = ids_GS.shape[1] - len(group.context_ids)
            hidden_GSH = self._model.get_decoder()(
                input_ids=ids_GS, attention_mask=mask_GS, use_cache=False
            ).last_hidden_state
            factors_GT = (
                weight * self._tensor(np.asarray(advantages_G, np.float32))[:, None] * mask_GS[:, prompt:]
            )
            hidden_TH = hidden_GSH[:, prompt - 1 : prompt - 1 + completion].flatten(0, 1)
            self._backward(hidden_TH, ids_GS[:, prompt:].flatten(), factors_GT.flatten())
        return self._update()

    def _tensor(self, values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(self._device)

    def _backward(self, hidden_TH: Tensor, targets_T: Tensor, factors_T: Tensor) -> None:
        """Gradient of -Σ factor · log π: what GRPO's clipped loss has where the ratio is 1."""
        logits_TV = self._model.get_output_embeddings()(hidden_TH).float()
        loss: Tensor = (cross_entropy(logits_TV, targets_T, reduction="none") * factors_T).sum()
        loss.backward()  # type: ignore[no-untyped-call]

    def _update(self) -> float:
        for weight, master in zip(self._weights, self._masters, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        norm = nn.utils.clip_grad_norm_(self._masters, self._settings.grad_clip)
        self._optimizer.step()
        with torch.no_grad():
            for weight, master in zip(self._weights, self._masters, strict=True):
                weight.copy_(master)
        return float(norm)


def _padded(group: TrainingGroup) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[G, S] token ids, zeros behind the shorter completions, and the mask of what is real."""
    longest = max(len(tokens) for tokens in group.completion_ids_G)
    sequences = [np.concatenate([group.context_ids, tokens]) for tokens in group.completion_ids_G]
    ids_GS = np.zeros((len(sequences), len(group.context_ids) + longest), np.int64)
    mask_GS = np.zeros_like(ids_GS)
    for index, sequence in enumerate(sequences):
        ids_GS[index, : len(sequence)] = sequence
        mask_GS[index, : len(sequence)] = 1
    return ids_GS, mask_GS
