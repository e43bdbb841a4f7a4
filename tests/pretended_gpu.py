"""A GPU that is only pretended, to find what a real one would refuse on machines that have none.

Its tensors lie on the CPU and are computed there, but say that they are on a GPU. As a real one, it
refuses to compute with a tensor that was left on the CPU, to index such a tensor, and to hand
memory to NumPy. What it cannot tell: rounding, the order of what runs at once, and memory.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import transformers
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map
from torchmetrics import Metric

from layerfusion.embeddings import packing
from layerfusion.fusion import together

GPU = torch.device("cuda", 0)
BYTES = 1 << 30
TRANSFERS = (Tensor.to, Tensor.cpu, Tensor.cuda)
INTO_THE_FIRST = (Tensor.__getitem__, Tensor.__setitem__, Tensor.copy_)
"""Functions whose result lies where their first tensor does, wherever the others are."""


class OnGpu(Tensor):
    """A tensor that says it is on a GPU."""

    device = GPU  # type: ignore[assignment]
    is_cuda = True  # type: ignore[assignment]

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function as a GPU would."""
        return _run(func, args, kwargs or {})


class _Everywhere(TorchFunctionMode):
    """Runs functions without a tensor on the GPU too, as they may name it as their device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def on_gpu(x: Any) -> bool:
    """Whether something is a tensor on the GPU."""
    return isinstance(x, OnGpu)


def _put(x: Any) -> Any:
    return x.as_subclass(OnGpu) if isinstance(x, Tensor) and not on_gpu(x) else x


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        if func in TRANSFERS:
            return _transfer(func, args, kwargs)
        if func is torch.autograd.grad:
            return _gradients(*args, **kwargs)
        if func is Tensor.__format__:
            return format(args[0].as_subclass(Tensor), args[1])
        kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        there = any(map(on_gpu, tensors))
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == "cuda"
            if there:
                del kwargs["device"]
                assert kwargs.get("generator") is None, "a generator of the CPU, for a GPU"
        elif there:
            _refuse(func, args, tensors)
        if func in INTO_THE_FIRST:
            there = on_gpu(args[0])
        result = func(*args, **kwargs)
        return tree_map(_put, result) if there else result


def _refuse(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Refuse what a GPU does not do with tensors of which one at least lies there."""
    if func in (Tensor.numpy, Tensor.__array__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")
    # A number that is left on the CPU is no obstacle, nor is an index into a tensor on the GPU.
    left = [x for x in tensors if not on_gpu(x) and x.dim() > 0]
    if func in (Tensor.__getitem__, Tensor.__setitem__):
        index = [x for x in tree_iter(args[1]) if isinstance(x, Tensor)]
        value = [x for x in args[2:] if isinstance(x, Tensor) and x.dim() > 0]
        if on_gpu(args[0]):
            left = [x for x in value if not on_gpu(x)] if index else []
    if left and func is not Tensor.copy_:
        raise RuntimeError(f"{func.__name__}: tensors on cuda:0 and on cpu")


def _gradients(outputs: Any, inputs: Sequence[Tensor], *rest: Any, **how: Any) -> Any:
    """Differentiate by tensors on any devices; each gradient lies where its tensor does."""
    found = torch.autograd.grad(outputs, inputs, *rest, **how)
    return tuple(
        _put(one) if on_gpu(x) else one if one is None else one.as_subclass(Tensor)
        for one, x in zip(found, inputs, strict=True)
    )


def _transfer(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """Copy a tensor to the device that the call names, if it names one."""
    tensor, *rest = args
    there, dtype = on_gpu(tensor) or func is Tensor.cuda, tensor.dtype
    for value in [*rest, *(x for key, x in kwargs.items() if key != "memory_format")]:
        if isinstance(value, torch.device | str):
            there = torch.device(value).type == "cuda"
        elif isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, Tensor):
            there, dtype = on_gpu(value), value.dtype
    there = there and func is not Tensor.cpu
    result = tensor.to(dtype)
    if there != on_gpu(tensor):
        result = result.clone()
    return _put(result) if there else result.as_subclass(Tensor)


def _move(module: nn.Module, there: bool) -> nn.Module:
    for part in module.modules():
        if isinstance(part, Metric):  # its states are no buffers
            part._device = GPU if there else torch.device("cpu")
            for name in part._defaults:
                state: Any = getattr(part, name)
                if isinstance(state, list):
                    setattr(part, name, [x.to(part._device) for x in state])
                else:
                    setattr(part, name, state.to(part._device))
        holders: Any = (part._parameters, part._buffers)
        for tensors in holders:
            for name, x in tensors.items():
                if x is None or on_gpu(x) == there:
                    continue
                moved = x.detach().clone().as_subclass(OnGpu if there else Tensor)
                if tensors is part._parameters and not there:
                    moved = nn.Parameter(moved, requires_grad=x.requires_grad)
                tensors[name] = moved.requires_grad_(x.requires_grad)
    return module


def _module_to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Move a module to the device that the call names; the dtype stays."""
    (device,) = (x for x in (*args, *kwargs.values()) if isinstance(x, torch.device | str | int))
    return _move(self, torch.device(device).type == "cuda")


def _from_pretrained(load: Callable[..., Any]) -> Callable[..., Any]:
    def loaded(*args: Any, device_map: Any = None, **kwargs: Any) -> Any:
        found = load(*args, **kwargs)
        if device_map is not None:
            _move(found[0] if isinstance(found, tuple) else found, there=True)
        return found

    return loaded


def _flash_attention(*args: Any, scale: float | None) -> Any:
    """Compute what the kernel does, by the path for CPUs. Shapes of q, k, v: (tokens, heads, d)."""
    q, k, v = (x.as_subclass(Tensor).transpose(0, 1)[None] for x in args[:3])
    under_way: Any = SimpleNamespace(bounds=args[3].as_subclass(Tensor))
    causal = args[8]
    return (packing._confined(q, k, v, under_way, causal, scale)[0].as_subclass(OnGpu),)


def _bmm(a: Tensor, b: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
    """The product that sums in another dtype, which there is on GPUs only."""
    return a @ b if out_dtype is None else a.to(out_dtype) @ b.to(out_dtype)


def _one_by_one(function: Callable[..., Tensor], axes: Sequence[int | None]) -> Any:
    """Stand in for vmap, which makes tensors of its own kind: call with each part of the first."""

    def called(parameters: dict[str, Tensor], *more: Any) -> Tensor:
        given = (parameters, *more)
        heads = range(len(next(iter(parameters.values()))))
        parts = [
            [
                x if axis is None else tree_map(operator.itemgetter(n), x)
                for x, axis in zip(given, axes, strict=True)
            ]
            for n in heads
        ]
        return torch.stack([function(*own) for own in parts])

    return called


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Give this process, in this thread, a GPU of one GiB that is not there."""
    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: "pretended",
        "mem_get_info": lambda device=None: (BYTES, BYTES),
        "memory_stats": lambda device=None: {},
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "empty_cache": lambda: None,
        "set_device": lambda device: None,
        "synchronize": lambda device=None: None,
        "current_stream": mock.Mock(),
    }
    with ExitStack() as patched:
        for name, stand_in in cuda.items():
            patched.enter_context(mock.patch.object(torch.cuda, name, stand_in))
        load, generator = transformers.AutoModel.from_pretrained, torch.Generator
        for holder, name, stand_in in (
            (transformers.AutoModel, "from_pretrained", _from_pretrained(load)),
            (transformers.PreTrainedModel, "to", _module_to),
            (nn.Module, "to", _module_to),
            (nn.Module, "cpu", lambda self: _move(self, there=False)),
            (Tensor, "pin_memory", lambda self: self),
            (torch, "bmm", _bmm),
            (torch, "Generator", lambda device="cpu": generator()),
            (together, "vmap", _one_by_one),
            (torch.ops.aten, "_flash_attention_forward", _flash_attention),
        ):
            patched.enter_context(mock.patch.object(holder, name, stand_in))
        patched.enter_context(_Everywhere())
        yield GPU
