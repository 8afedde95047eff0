"""int8 and int4 weights: their products, their sizes, and the kernels for GPUs as far as a CPU can run them."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from models.llama import LLaMAHF
from models.llama_config import LLaMAConfig
from models.optimize import optimize, weight_bytes
from models.quantize import Int8Linear, bytes_per_weight, expanded_product, int4_config, quantize_linears
from tests.pretended.patches import pretended
from utils.errors import InputError

CONFIG = LLaMAConfig(200, 24, "fake", 8, 20, n_layer=2, n_head=4, n_embd=128)


def test_int8_scales_each_output_by_its_largest_weight():
    torch.manual_seed(0)
    linear = nn.Linear(64, 30).bfloat16().requires_grad_(False)
    linear.weight[3] = 0
    layer, weight, x = Int8Linear(linear), linear.weight.float(), torch.randn(2, 3, 64).bfloat16()
    largest = layer.weight.int().abs().amax(dim=1)
    assert largest[3] == 0 and largest[torch.arange(30) != 3].eq(127).all()
    restored = layer.weight.float() * layer.scale.float()[:, None]
    assert ((restored - weight).abs() <= 0.51 * layer.scale.float()[:, None]).all()
    expected = x.float() @ restored.T + linear.bias.float()
    for product in (layer.product, expanded_product):
        layer.product = product
        assert (layer(x).float() - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize("tied", [False, True])
def test_sizes_are_those_of_the_layers(monkeypatch, quantize, tied):
    """int4 is packed without values: the kernel needs a GPU."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    config = LLaMAConfig(200, 24, "fake", 8, 20, n_layer=2, n_head=4, n_embd=128, tie_weights=tied)
    with torch.device("meta"):
        model = LLaMAHF(config).to(torch.bfloat16).requires_grad_(False)
    quantize_linears(model, quantize)
    size = 0
    for module in model.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            packed = [tensor.qdata, tensor.scale_and_zero] if hasattr(tensor, "qdata") else [tensor]
            size += sum(each.nbytes for each in packed)
    assert size == weight_bytes(config, quantize)
    assert bytes_per_weight("int4", 64, 1024) < 0.54 and bytes_per_weight("int4", 64, 512) == 2 * (0.5 + 4 / 128)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("outputs", [64, 30])
def test_int8_layers_on_a_gpu_give_the_products_of_the_cpu(kind, outputs):
    torch.manual_seed(0)
    linear, x = nn.Linear(64, outputs).bfloat16().requires_grad_(False), torch.randn(3, 64).bfloat16()
    expected = Int8Linear(linear)(x).float()
    with pretended(kind):
        layer = Int8Linear(linear.to(f"{kind}:0"))
        product = layer(x.to(f"{kind}:0")).cpu().float()
    assert (product - expected).norm() < 0.01 * expected.norm()
    is_kernel = layer.product is torch._weight_int8pack_mm
    assert is_kernel == (kind == "mps" and outputs == 64), "the kernel for Apple GPUs takes multiples of 32"


def test_int4_has_the_layout_of_the_kernel_of_pytorch(monkeypatch):
    """The GPU of FakeTensorMode has shapes and no values."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    with FakeTensorMode(), torch.inference_mode():
        model = nn.Sequential(nn.Linear(512, 30, device="cuda", dtype=torch.bfloat16))
        quantize_linears(model, "int4")
        y = model(torch.zeros(2, 1, 512, device="cuda", dtype=torch.bfloat16))
    assert y.shape == (2, 1, 30) and model[0].weight.qdata.shape == (32 // 8, 1024 // 128, 32, 4)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert int4_config().int4_tile_packed_ntile == 16, "for GPUs of AMD"


def test_int4_is_refused_where_its_kernels_are_missing():
    with pretended("cuda"):
        model = LLaMAHF(CONFIG).to("cuda", torch.bfloat16)
        with pytest.raises(InputError, match="no int4 kernels for this device .*; use int8, or none"):
            optimize(model, torch.bfloat16, "int4")


@pytest.fixture
def kernel(monkeypatch) -> Iterator[ModuleType]:
    """``models.int8_kernel``, interpreted on the CPU."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, "models.int8_kernel", raising=False)
    yield importlib.import_module("models.int8_kernel")
    del sys.modules["models.int8_kernel"]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 1e-3)])
@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 30, 64), (16, 40, 288), (20, 64, 160)])
def test_the_triton_kernel_multiplies_a_few_rows(kernel, rows, outputs, inputs, dtype, tolerance):
    """The interpreter has no bfloat16."""
    torch.manual_seed(0)
    x, scale = torch.randn(rows, inputs, dtype=dtype), torch.rand(outputs, dtype=dtype) / 127
    weight = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8)
    expected, product = expanded_product(x.float(), weight, scale.float()), kernel.int8_product(x, weight, scale)
    assert product.dtype == dtype and (product - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("target", [("cuda", 80, 32), ("hip", "gfx942", 64)])
def test_the_triton_kernel_compiles_for_gpus(monkeypatch, tmp_path, target):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    from models.int8_kernel import TILES, _product

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = dict(zip(("ROWS", "OUTPUTS", "INPUTS"), (16, *TILES[16]), strict=True))
    tensors = {"x": "*bf16", "weight": "*i8", "scale": "*bf16", "y": "*bf16"}
    types = tensors | dict.fromkeys(("m_size", "n_size", "k_size"), "i32") | dict.fromkeys(constants, "constexpr")
    source = triton.compiler.ASTSource(_product, types, constants)
    assert triton.compile(source, target=GPUTarget(*target)).metadata.shared < 64 * 1024  # bytes; AMD has no more
