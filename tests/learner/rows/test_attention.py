"""Attention over a packed row: one call for the row is a call for each part, in values and gradients."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn

from dynalign.learner.rows.attention import packed_attention
from dynalign.learner.rows.rows import Layout
from dynalign.learner.rows.varlen import VarlenKernel, VarlenRow, torch_kernel
from dynalign.learner.rows.varlen_reference import reference_varlen
from tests.learner.rows.test_sequences import LAYOUTS

CPU = torch.device("cpu")


class Counted:
    """A kernel that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *tensors: Tensor | int, **settings: object) -> Tensor:
        self.calls += 1
        return reference_varlen(*tensors, **settings)  # type: ignore[arg-type]


def attended(
    layout: Layout,
    kernel: VarlenKernel | None,
    heads: tuple[int, int] = (4, 2),
    width: int = 8,
    window: int | None = None,
    sinks: bool = False,
    dtype: torch.dtype = torch.float64,
    scaling: float | None = None,
) -> list[Tensor]:
    """The output of one layer on random inputs, and the gradients by queries, keys, values."""
    draw = torch.Generator().manual_seed(5)
    tokens = sum(map(sum, layout))
    leaves = [
        torch.randn(1, count, tokens, width, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
        for count in (heads[0], heads[1], heads[1])
    ]
    upstream = torch.randn(1, tokens, heads[0], width, generator=draw, dtype=torch.float64).to(dtype)
    sinks_h = torch.randn(heads[0], generator=draw, dtype=torch.float64) if sinks else None
    row = None if kernel is None else VarlenRow.of(layout, kernel, CPU)
    output, _ = packed_attention(
        nn.Module(),
        *leaves,
        None,
        scaling=scaling,
        sliding_window=window,
        s_aux=sinks_h,
        layout=layout,
        varlen=row,
    )
    return [output.detach(), *torch.autograd.grad(output, leaves, upstream)]


@settings(deadline=None, max_examples=30)
@given(
    LAYOUTS,
    st.sampled_from([(4, 4), (4, 2), (4, 1)]),
    st.sampled_from([None, 1, 2, 5, 100]),
    st.sampled_from([None, 0.7]),
)
def test_one_call_for_a_row_is_a_call_for_each_part(
    layout: Layout, heads: tuple[int, int], window: int | None, scaling: float | None
) -> None:
    once = attended(layout, reference_varlen, heads, window=window, scaling=scaling)
    apart = attended(layout, None, heads, window=window, scaling=scaling)
    for mine, theirs in zip(once, apart, strict=True):
        assert mine.shape == theirs.shape
        assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.bfloat16, 0.05)])
def test_in_lower_precision_they_differ_by_rounding_and_keep_their_type(
    dtype: torch.dtype, atol: float
) -> None:
    layout = ((7, 5, 0, 1, 3), (2, 8))
    for mine, theirs in zip(
        attended(layout, reference_varlen, dtype=dtype), attended(layout, None, dtype=dtype), strict=True
    ):
        assert mine.dtype == theirs.dtype == dtype
        assert torch.allclose(mine, theirs, rtol=0.02 if dtype == torch.bfloat16 else 1e-5, atol=atol)


@pytest.mark.parametrize(
    ("changed", "calls"),
    [
        ({}, 1),
        ({"window": 3}, 1),
        ({"sinks": True, "dtype": torch.float32}, 0),
        ({"width": 12}, 0),
        ({"width": 264}, 0),
    ],
    ids=str,
)
def test_what_the_call_does_not_take_is_computed_part_by_part(changed: dict[str, object], calls: int) -> None:
    counted = Counted()
    once = attended(((3, 2, 2), (1, 4)), counted, **changed)  # type: ignore[arg-type]
    apart = attended(((3, 2, 2), (1, 4)), None, **changed)  # type: ignore[arg-type]
    assert counted.calls == calls
    assert all(torch.allclose(mine, theirs) for mine, theirs in zip(once, apart, strict=True))


@pytest.mark.parametrize("layout", [((1,),), ((1, 0), (1, 0, 0))], ids=str)
def test_a_row_of_single_tokens_takes_no_call(layout: Layout) -> None:
    assert VarlenRow.of(layout, reference_varlen, CPU) is None


def test_the_gradient_of_a_prompt_adds_up_in_float32() -> None:
    """In bfloat16, 256 + 1 is 256: of 400 completions that each ask for 1, the last would be lost."""
    layout = ((1, *[1] * 400),)
    row = VarlenRow.of(layout, reference_varlen, CPU)
    assert row is not None
    value = torch.zeros(1, 1, 401, 8, dtype=torch.bfloat16, requires_grad=True)
    gathered = row._keys(value[0].transpose(0, 1))
    (gradient,) = torch.autograd.grad(gathered.sum(), value)
    assert gradient[0, 0, 0].tolist() == [400.0] * 8


# -- torch's own kernel ----------------------------------------------------------------------------


def test_torch_s_own_call_has_the_parameters_that_it_is_given() -> None:
    asked = inspect.signature(VarlenKernel.__call__).parameters
    has = inspect.signature(varlen_attn).parameters
    assert set(asked) - {"self"} <= set(has)


@pytest.mark.parametrize("window", [None, 3])
def test_torch_s_own_call_takes_such_rows_as_far_as_shapes_tell(window: int | None) -> None:
    """On the meta device, which computes shapes and types alone, of forward and backward pass."""
    meta = torch.device("meta")
    row = VarlenRow.of(((3, 2, 2), (1, 4)), torch_kernel(), meta)
    assert row is not None
    leaves = [
        torch.empty(1, count, 12, 16, dtype=torch.bfloat16, device=meta, requires_grad=True)
        for count in (4, 2, 2)
    ]
    output = row.attend(*leaves, 0.25, window)
    assert output.shape == (1, 12, 4, 16)
    assert [each.shape for each in torch.autograd.grad(output.sum(), leaves)] == [
        leaf.shape for leaf in leaves
    ]


def test_the_reference_refuses_lengths_that_a_kernel_would_take_without_a_word() -> None:
    query = torch.zeros(3, 2, 8)
    ends = torch.tensor([0, 3], dtype=torch.int32)
    asked = {"scale": 1.0, "window_size": (-1, 0), "enable_gqa": False}
    assert reference_varlen(query, query, query, ends, ends, 3, 3, **asked).shape == query.shape  # type: ignore[arg-type]
    short = torch.tensor([0, 2], dtype=torch.int32)
    for wrong in ((short, ends, 3, 3), (ends, short, 3, 3), (ends, ends, 2, 3), (ends, ends, 3, 4)):
        with pytest.raises(ValueError, match="not what was promised"):
            reference_varlen(query, query, query, *wrong, **asked)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 query heads, 1 of keys, enable_gqa=False"):
        reference_varlen(query, query[:, :1], query[:, :1], ends, ends, 3, 3, **asked)  # type: ignore[arg-type]
