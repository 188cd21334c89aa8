#!/usr/bin/env python3
"""Development time: read a GGUF adapter with the gguf package, rebuild each module's change of
weights and hold it against PEFT's, computed from the adapter directory.

usage: check_export.py PEFT_DIR ADAPTER.gguf HEADS KV_HEADS    (llama: q and k rows interleaved)
"""
import json
import math
import re
import sys

import gguf
import numpy as np
from safetensors.numpy import load_file

NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}


def permute(rows, heads):
    """llama.cpp's own conversion of q and k."""
    return (rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
            .swapaxes(1, 2).reshape(rows.shape))


def pattern(table, name, default):
    return next((v for k, v in table.items() if re.match(rf"(.*\.)?({k})$", name)), default)


def main():
    folder, path, heads, kv_heads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    config = json.load(open(folder + "/adapter_config.json"))
    tensors = load_file(folder + "/adapter_model.safetensors")
    reader = gguf.GGUFReader(path)
    alpha = reader.fields["adapter.lora.alpha"].contents()
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
        _, _, layer, part = name.split(".", 3)
        if part.endswith(("q_proj", "k_proj")):
            want = permute(want, heads if part.endswith("q_proj") else kv_heads)
        base = f"blk.{layer}.{NAMES[part]}.weight"
        ga, gb = stored.pop(base + ".lora_a"), stored.pop(base + ".lora_b")
        assert gb.shape[1] == ga.shape[0] == r
        worst = max(worst, np.abs(alpha / r * (gb @ ga) - want).max() / np.abs(want).max())
    assert not stored, stored.keys()
    print(f"alpha {alpha:g}, largest relative difference {worst:.2e}")
    assert worst < 1e-5


if __name__ == "__main__":
    main()
