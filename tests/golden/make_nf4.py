#!/usr/bin/env python3
"""Make tests/golden/nf4: matrices and a model as bitsandbytes quantises and stores them.

Development time only (bitsandbytes on a CPU, torch, transformers; deterministic).
matrices.safetensors: for each NAME the matrix as bitsandbytes stores it (NAME.weight and what is
beside it), NAME.source what it was made from, NAME.wide what it dequantises to. model/: tiny-llama with its linears in doubly quantised NF4; expected.safetensors: model.0
= logits of the ids in expected.json from the dequantised weights, run by transformers.
usage: make_nf4.py [OUT_DIR]
"""
import json
import os
import shutil
import sys

import bitsandbytes.functional as F
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = os.path.join(HERE, "tiny-llama")
# name: shape, dtype, doubly quantised, block
MATRICES = {"nested": ((40, 96), torch.float32, True, 64), "two": ((136, 128), torch.bfloat16, True, 64),
            "odd": ((21, 37), torch.float16, True, 64), "plain": ((16, 64), torch.float32, False, 64),
            "short": ((3, 22), torch.float32, False, 64), "zeros": ((4, 96), torch.bfloat16, True, 64),
            "wide": ((6, 100), torch.bfloat16, True, 128), "small": ((4, 40), torch.float32, False, 32)}


def quantise(weight, nested, block=64):
    packed, state = F.quantize_4bit(weight, quant_type="nf4", compress_statistics=nested, blocksize=block)
    return packed, state, dequantise(packed, state)


def dequantise(packed, state):
    """By the formula: 0.50's AVX-512 kernel takes a wrong scale where a block spans two rows."""
    absmax = state.absmax
    if state.nested:
        absmax = F.dequantize_blockwise(absmax, state.state2) + state.offset
    wide = _dequantize_4bit_compute(packed.reshape(-1), absmax, state.code, state.blocksize, state.shape, state.dtype)
    if state.shape[1] % state.blocksize == 0:
        assert torch.equal(wide, F.dequantize_4bit(packed, state))
    return wide


def tensors_of(name, packed, state):
    out = {name: packed}
    for key, value in state.as_dict(packed=True).items():
        out[f"{name}.{key}"] = value
    return out


def matrices():
    torch.manual_seed(11)
    out = {}
    for name, (shape, dtype, nested, block) in MATRICES.items():
        weight = torch.randn(shape) * torch.rand(shape[0], 1) * 0.1
        if name == "zeros":
            weight[1:3] = 0
        weight = weight.to(dtype)
        packed, state, wide = quantise(weight, nested, block)
        out.update(tensors_of(name + ".weight", packed, state))
        out[name + ".source"], out[name + ".wide"] = weight, wide
    return out


def model(folder):
    os.makedirs(folder, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(BASE, name), os.path.join(folder, name))
    config = json.load(open(os.path.join(BASE, "config.json")))
    config["quantization_config"] = {
        "quant_method": "bitsandbytes", "_load_in_4bit": True, "_load_in_8bit": False, "load_in_4bit": True,
        "load_in_8bit": False, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "float32", "bnb_4bit_quant_storage": "uint8", "llm_int8_skip_modules": None,
        "llm_int8_threshold": 6.0, "llm_int8_enable_fp32_cpu_offload": False, "llm_int8_has_fp16_weight": False}
    json.dump(config, open(os.path.join(folder, "config.json"), "w"), indent=1)
    tensors, state_dict = {}, load_file(os.path.join(BASE, "model.safetensors"))
    for name, weight in list(state_dict.items()):
        if name.endswith("_proj.weight"):
            packed, state, wide = quantise(weight, True)
            tensors.update(tensors_of(name, packed, state))
            state_dict[name] = wide.float()
        else:
            tensors[name] = weight
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    llama = LlamaForCausalLM.from_pretrained(BASE, dtype=torch.float32, attn_implementation="eager").eval()
    missing, unexpected = llama.load_state_dict(state_dict, strict=False)
    assert missing in ([], ["lm_head.weight"]) and not unexpected
    ids = json.load(open(os.path.join(HERE, "tiny-gguf", "expected.json")))["ids"]
    with torch.no_grad():
        return ids, llama(input_ids=torch.tensor([ids])).logits[0].contiguous()


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "nf4")
    os.makedirs(out, exist_ok=True)
    save_file(matrices(), os.path.join(out, "matrices.safetensors"), metadata={"format": "pt"})
    ids, logits = model(os.path.join(out, "model"))
    json.dump({"ids": ids}, open(os.path.join(out, "expected.json"), "w"))
    save_file({"model.0": logits}, os.path.join(out, "expected.safetensors"), metadata={"format": "pt"})
    for name in ("matrices.safetensors", "expected.safetensors", "model/model.safetensors"):
        os.chmod(os.path.join(out, name), 0o644)


main()
