"""Log-probabilities of given tokens from hidden states, without holding the logits of all tokens in memory.

Logits are the largest tensor of a step: 8,192 tokens × 200,000 vocabulary × 4 bytes = 6.6 GB. Here they exist
for `chunk_tokens` tokens at a time: they are computed, reduced to one number per token, freed, and computed
again in the backward pass.

Axes: T completion tokens, t those of a chunk, H hidden size, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def completion_logprobs(
    hidden_TH: Tensor,
    head: Callable[[Tensor], Tensor],
    targets_T: Tensor,
    chunk_tokens: int,
    min_chunks: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return ``(logprobs_T, entropy_T)`` in nats, float32: log softmax(head(hidden))[target] at temperature
    1, with gradient, and the entropy of the same distribution, without.

    hidden_TH: the final hidden state *before* each completion token (the position that predicts it).
    head: maps hidden states [t, H] to logits [t, V] of any float type; they are reduced in float32 (float64
    stays).
    targets_T: the ids of the completion tokens.
    chunk_tokens: the most tokens whose logits exist at one time.
    min_chunks: the least number of calls of `head`; after the last token it is called on empty chunks. If
    `head` gathers sharded weights, it is a collective, which all ranks must enter equally often, also for an
    empty row.
    """

    def chunk_logprobs(hidden_tH: Tensor, targets_t: Tensor) -> tuple[Tensor, Tensor]:
        logits_tV = head(hidden_tH)
        logits_tV = logits_tV.to(torch.promote_types(logits_tV.dtype, torch.float32))
        chosen_t = logits_tV.gather(-1, targets_t.unsqueeze(-1)).squeeze(-1)
        logprobs_t = chosen_t - logits_tV.logsumexp(-1)
        # The entropy comes last: the recomputation stops at the last tensor that the gradient needs, and so
        # skips it.
        with torch.no_grad():
            entropy_t = torch.special.entr(logits_tV.softmax(-1)).sum(-1)
        return logprobs_t, entropy_t

    chunks = max(min_chunks, -(-len(targets_T) // chunk_tokens))
    starts = range(0, chunks * chunk_tokens, chunk_tokens)
    parts = [
        checkpoint(
            chunk_logprobs,
            hidden_TH[start : start + chunk_tokens],
            targets_T[start : start + chunk_tokens],
            use_reentrant=False,
            preserve_rng_state=False,  # a head draws no random numbers
        )
        for start in starts
    ]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([entropy for _, entropy in parts])
