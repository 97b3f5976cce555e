"""A step of the learner written out from its formulas: one sequence at a time, plain torch, no packing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from dynalign.learner.advantages import group_advantages
from dynalign.rollout.records import Group

RATE = 1e-2
CLIP_NORM = 1.0


class WrittenOut:
    """The step from its formulas: L = -(1/N) Σ min(ρA, clip(ρ)A) · w · t + kl_coef/(2N) Σ (d - ref)²
    + distill_coef/N Σ (a - d), clipped to norm 1, AdamW; t = min(1, exp(c - a)) where A < 0, if it tapers.
    """

    def __init__(
        self, folder: Path, kl_coef: float = 0.0, tapers: bool = False, distill_coef: float = 0.0
    ) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        self.initial = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=0.0)
        self.kl_coef = kl_coef
        self.tapers = tapers
        self.distill_coef = distill_coef

    @staticmethod
    def logprobs(model: Any, one: Group, index: int) -> Tensor:
        tokens = one.candidates_G[index].token_ids_T
        logits_TV = model(torch.tensor([[*one.learning_context_ids, *tokens]])).logits[
            0, len(one.learning_context_ids) - 1 : -1
        ]
        return logits_TV.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None])[:, 0]

    def step(self, minibatches: Sequence[Sequence[Group]]) -> tuple[float, float]:
        """(mean loss, mean gradient norm) over the minibatches."""
        old = {
            (g.group_id, i): self.logprobs(self.model, g, i).detach()
            for part in minibatches
            for g in part
            for i in range(4)
        }
        losses, norms = [], []
        for part in minibatches:
            tokens = sum(len(one.token_ids_T) for g in part for one in g.candidates_G)
            loss = torch.zeros(())
            for g in part:
                advantages_G = group_advantages(g.scores_G, "group")
                for index, one in enumerate(g.candidates_G):
                    now_T, old_T = self.logprobs(self.model, g, index), old[g.group_id, index]
                    ratio_T = (now_T - old_T).exp()
                    objective_T = torch.minimum(
                        ratio_T * advantages_G[index], ratio_T.clamp(0.8, 1.28) * advantages_G[index]
                    )
                    if one.behaviour_logprobs_T is not None:
                        objective_T = objective_T * (
                            old_T - torch.tensor(one.behaviour_logprobs_T)
                        ).exp().clamp(max=2)
                    sampled_T = torch.tensor(one.sampling_logprobs_T)
                    if self.tapers and advantages_G[index] < 0:
                        objective_T = objective_T * (old_T - sampled_T).exp().clamp(max=1)
                    objective_T = objective_T - self.distill_coef * (sampled_T - now_T)
                    reference_T = self.logprobs(self.initial, g, index).detach()
                    loss = (
                        loss
                        + (self.kl_coef * (now_T - reference_T).square() / 2 - objective_T).sum() / tokens
                    )
            loss.backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)))
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append(float(loss.detach()))
        return sum(losses) / len(losses), sum(norms) / len(norms)
