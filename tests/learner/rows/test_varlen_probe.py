"""A kernel that is wrong, or not there, is refused before training in one line."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dynalign.configs.errors import UserError
from dynalign.learner.rows.varlen import VarlenKernel
from dynalign.learner.rows.varlen_limits import varlen_lacks
from dynalign.learner.rows.varlen_probe import Deviation, checked_kernel, wrong_of
from dynalign.learner.rows.varlen_reference import reference_varlen

CPU = torch.device("cpu")


def aligned_at_the_start(query: Tensor, key: Tensor, value: Tensor, *lengths: Any, **asked: Any) -> Tensor:
    """As some kernels align a causal mask: the first query at the first key, the last keys unseen."""
    ends_q, ends_k, longest, _ = lengths
    seen = torch.cat(
        [
            torch.arange(int(start), int(start + count))
            for start, count in zip(ends_k, ends_q.diff(), strict=False)
        ]
    )
    return reference_varlen(query, key[seen], value[seen], ends_q, ends_q, longest, longest, **asked)


def a_wider_window(*given: Any, **asked: Any) -> Tensor:
    before, behind = asked["window_size"]
    window = (before + 1 if before >= 0 else -1, behind)
    return reference_varlen(*given, **asked | {"window_size": window})


def another_scale(*given: Any, **asked: Any) -> Tensor:
    return reference_varlen(*given, **asked | {"scale": 1.02 * asked["scale"]})


def no_gradient_by_keys(query: Tensor, key: Tensor, *given: Any, **asked: Any) -> Tensor:
    return reference_varlen(query, 2 * key.detach() - key, *given, **asked)


def heads_interleaved(query: Tensor, key: Tensor, value: Tensor, *given: Any, **asked: Any) -> Tensor:
    return reference_varlen(query, key.flip(1), value.flip(1), *given, **asked)


def no_number(*given: Any, **asked: Any) -> Tensor:
    return reference_varlen(*given, **asked) * torch.nan


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_right_kernel_is_returned(dtype: torch.dtype) -> None:
    assert checked_kernel(CPU, dtype, lambda: reference_varlen) is reference_varlen


@pytest.mark.parametrize(
    "wrong",
    [
        aligned_at_the_start,
        a_wider_window,
        another_scale,
        no_gradient_by_keys,
        heads_interleaved,
        no_number,
    ],
    ids=lambda wrong: wrong.__name__,
)
def test_a_wrong_kernel_is_refused_in_one_line(wrong: VarlenKernel) -> None:
    with pytest.raises(
        UserError, match=r"learner.attention = 'varlen': is wrong with torch .* off by"
    ) as raised:
        checked_kernel(CPU, torch.bfloat16, lambda: wrong)
    assert len(str(raised.value).splitlines()) == 1
    assert "set learner.attention=sdpa" in str(raised.value)


def missing() -> VarlenKernel:
    raise ImportError("No module named 'torch.nn.attention.varlen'")


def of_another_version() -> VarlenKernel:
    def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return query

    return kernel  # type: ignore[return-value]


@pytest.mark.parametrize("made", [missing, of_another_version], ids=lambda made: made.__name__)
def test_a_torch_without_such_a_kernel_is_refused_in_one_line(made: Callable[[], VarlenKernel]) -> None:
    with pytest.raises(UserError, match=r"does not work with torch .* \((ImportError|TypeError)") as raised:
        checked_kernel(CPU, torch.bfloat16, made)
    assert len(str(raised.value).splitlines()) == 1


def test_torch_s_own_kernel_is_refused_on_a_cpu() -> None:
    with pytest.raises(UserError, match="learner.attention = 'varlen': does not work with torch"):
        checked_kernel(CPU, torch.bfloat16)


def test_what_is_twice_the_other_form_s_error_and_a_few_roundings_passes() -> None:
    rounding = torch.finfo(torch.bfloat16).eps
    allowed = 2 * 0.01 + 4 * rounding * 3.0
    assert wrong_of({"output": Deviation(0.99 * allowed, 0.01, 3.0)}, torch.bfloat16) == []
    (words,) = wrong_of({"output": Deviation(1.01 * allowed, 0.01, 3.0)}, torch.bfloat16)
    assert words.startswith("output off by")
    assert wrong_of({"output": Deviation(float("nan"), 0.01, 3.0)}, torch.bfloat16)


@pytest.mark.parametrize(
    ("head", "sinks", "lacks"),
    [
        (64, False, ""),
        (80, False, ""),
        (256, False, ""),
        (64, True, "attention sinks"),
        (264, False, "heads of 264"),
        (36, False, "heads of 36"),
    ],
)
def test_which_attention_the_call_takes(head: int, sinks: bool, lacks: str) -> None:
    assert varlen_lacks(head, sinks).startswith(lacks)
    assert bool(varlen_lacks(head, sinks)) == bool(lacks)
