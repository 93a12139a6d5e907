"""A batch in one block of shared memory: the same bits, layout and types when it comes out."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retinanet.data import hand_over
from retinanet.data.hand_over import pack
from retinanet.errors import TrainingError


@dataclass(frozen=True)
class Value:
    tensors: list[Tensor]
    words: str


def test_a_value_comes_out_as_it_went_in() -> None:
    pixels = torch.arange(24, dtype=torch.uint8).view(2, 2, 2, 3).permute(0, 3, 1, 2)
    others = [torch.zeros(0, 4), torch.arange(6).view(3, 2).T, torch.tensor(2.5)]
    expanded = torch.ones(1).expand(3, 5)
    packed = pack(Value([pixels, *others, expanded], "a"))
    assert packed.block.is_shared()
    # 24 bytes, none, 48, 4 and 60: each takes whole 64s.
    assert len(packed.block) == 64 + 0 + 64 + 64 + 64
    out = packed.unpack()
    assert out.words == "a"
    for one, other in zip(out.tensors, [pixels, *others, expanded], strict=True):
        assert torch.equal(one, other) and one.dtype == other.dtype
    assert out.tensors[0].stride() == pixels.stride()


@settings(max_examples=30)
@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=5),
    dtype=st.sampled_from([torch.uint8, torch.int64, torch.bool, torch.float16, torch.float64]),
)
def test_any_shapes_and_types(shapes: list[list[int]], dtype: torch.dtype) -> None:
    tensors = [torch.randint(0, 2, shape).to(dtype) for shape in shapes]
    out = pack(tensors).unpack()
    assert [o.shape for o in out] == [t.shape for t in tensors]
    assert all(torch.equal(o, t) and o.dtype == dtype for o, t in zip(out, tensors, strict=True))


def test_too_little_shared_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_over, "free_shared_memory", lambda: 1000)
    with pytest.raises(
        TrainingError,
        match=r"not hand over a batch of 1\.0 kB: too little shared memory, 1\.0 kB free in "
        r"/dev/shm\. .* Lower data\.workers .* docker run --shm-size=8g",
    ):
        pack([torch.zeros(1024, dtype=torch.uint8)])


def test_an_error_of_the_system_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(size: int) -> None:
        raise RuntimeError("unable to allocate")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", fail, raising=False)
    with pytest.raises(TrainingError, match=r"too little shared memory.*\(unable to allocate\)"):
        pack([torch.zeros(8)])


def test_a_torch_without_a_way_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", None, raising=False)
    packed = pack([torch.arange(8)])
    assert packed.block.is_shared() and packed.unpack()[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
