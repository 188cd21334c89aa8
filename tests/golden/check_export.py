#!/usr/bin/env python3
"""Development time: read a GGUF adapter with the gguf package, rebuild each module's change of
weights and hold it against PEFT's, computed from the adapter directory.

usage: check_export.py PEFT_DIR ADAPTER.gguf HEADS KV_HEADS    (llama: q and k rows interleaved)
       check_export.py FEDLORA_WORKER                          (all golden cases)
"""
import json
import math
import os
import re
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from safetensors.numpy import load_file

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = ["gqa-tied", "untied-headdim", "llama3-rope", "sharded-bf16", "mistral-f16",
         "mistral-window", "qwen2", "qwen2-window", "qwen2-yarn", "qwen3", "phi3", "gpt2", "gpt2-bare",
         "gemma2", "gemma3", "gemma3-old"]
ARCHS = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}


def permute(rows, heads):
    """llama.cpp's own conversion of q and k."""
    return (rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
            .swapaxes(1, 2).reshape(rows.shape))


def pattern(table, name, default):
    return next((v for k, v in table.items() if re.match(rf"(.*\.)?({k})$", name)), default)


def check(folder, path, heads, kv_heads):
    config = json.load(open(folder + "/adapter_config.json"))
    tensors = load_file(folder + "/adapter_model.safetensors")
    reader = gguf.GGUFReader(path)
    alpha = reader.fields["adapter.lora.alpha"].contents()
    arch = reader.fields["general.architecture"].contents()
    names = gguf.get_tensor_name_map(ARCHS[arch], 64)
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["adapter.type"].contents() == "lora"
    stored = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    worst = 0.0
    for key, a in tensors.items():
        if not key.endswith("lora_A.weight"):
            continue
        b = tensors[key.replace("lora_A", "lora_B")]
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        r = a.shape[0]
        own = pattern(config["alpha_pattern"], name, config["lora_alpha"])
        want = (own / (math.sqrt(r) if config["use_rslora"] else r)) * (b @ a)
        if arch == "llama" and name.endswith(("q_proj", "k_proj")):
            want = permute(want, heads if name.endswith("q_proj") else kv_heads)
        base = names.get_name(name) + ".weight"
        ga, gb = stored.pop(base + ".lora_a"), stored.pop(base + ".lora_b")
        assert gb.shape[1] == ga.shape[0] == r
        worst = max(worst, np.abs(alpha / r * (gb @ ga) - want).max() / np.abs(want).max())
    assert not stored, stored.keys()
    print(f"{folder}: {arch}, alpha {alpha:g}, largest relative difference {worst:.2e}")
    assert worst < 1e-5


def check_cases(worker):
    with tempfile.TemporaryDirectory() as work:
        for name in CASES:
            base, path = os.path.join(HERE, "cases", name), os.path.join(work, name + ".gguf")
            subprocess.run([worker, "export", "--model", base, "--adapter", base + "/init", "--out",
                            path], check=True)
            config = json.load(open(base + "/config.json"))
            heads = config.get("num_attention_heads")
            check(base + "/init", path, heads, config.get("num_key_value_heads", heads))


def main():
    if len(sys.argv) == 2:
        check_cases(sys.argv[1])
    else:
        check(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))


if __name__ == "__main__":
    main()
