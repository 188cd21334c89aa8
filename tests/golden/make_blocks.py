#!/usr/bin/env python3
"""Make tests/golden/blocks: stored blocks of every type that keeps its bits in several places, and
what the gguf package makes of them; and a Llama whose weights are such blocks.

Development time only (gguf, torch, transformers; deterministic). blocks.gguf: tensor NAME of its
type beside NAME.f32, both (ROWS, COLUMNS); random bits under finite half scales of every size.
model.gguf: one layer, every linear of another type. expected.safetensors: model.0 = logits of the
ids in expected.json from the dequantised weights, run by transformers.
usage: make_blocks.py [OUT_DIR]
"""
import json
import os
import sys

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

TYPES = [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q4_K, Q.Q5_K, Q.Q6_K]
# where the half floats of a block lie
HALVES = {Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q4_K: [0, 2],
          Q.Q5_K: [0, 2], Q.Q6_K: [208]}
ROWS, COLUMNS = 6, 512


def random_blocks(rng, kind, rows, columns, low, high):
    """(rows, bytes): scales of magnitude 2^low to 2^high with either sign, other bits at random."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (rows * columns // values, size), dtype=np.uint8)
    for at in HALVES[kind]:
        scale = np.ldexp(rng.uniform(1, 2, len(blocks)), rng.integers(low, high, len(blocks)))
        scale *= rng.choice([-1.0, 1.0], len(blocks))
        blocks[:, at:at + 2] = scale.astype(np.float16)[:, None].view(np.uint8)
    return blocks.reshape(rows, -1)


def write_blocks(path, rng):
    writer = gguf.GGUFWriter(path, "blocks")
    for kind in TYPES:
        raw = random_blocks(rng, kind, ROWS, COLUMNS, -26, 15)  # subnormal halves too
        writer.add_tensor(kind.name, raw, raw_dtype=kind)
        writer.add_tensor(kind.name + ".f32", gguf.quants.dequantize(raw, kind).astype(np.float32))
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleave(rows, heads):
    half = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return half.swapaxes(1, 2).reshape(rows.shape)


LINEARS = [("self_attn.q_proj", "attn_q", Q.Q4_K), ("self_attn.k_proj", "attn_k", Q.Q5_K),
           ("self_attn.v_proj", "attn_v", Q.Q6_K), ("self_attn.o_proj", "attn_output", Q.Q5_0),
           ("mlp.gate_proj", "ffn_gate", Q.Q5_K), ("mlp.up_proj", "ffn_up", Q.Q6_K),
           ("mlp.down_proj", "ffn_down", Q.Q5_1)]


def write_model(path, rng):
    config = LlamaConfig(hidden_size=256, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, head_dim=32, vocab_size=96, max_position_embeddings=64,
                         rms_norm_eps=1e-5, tie_word_embeddings=True)
    model = LlamaForCausalLM(config).eval()
    state = model.state_dict()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    put = lambda name, target, kind, heads=None: quantised(rng, writer, state, name, target, kind, heads)
    put("model.embed_tokens.weight", "token_embd.weight", Q.Q6_K)
    for name, target, kind in LINEARS:
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(target)
        put(f"model.layers.0.{name}.weight", f"blk.0.{target}.weight", kind, heads)
    for name, target in [("model.layers.0.input_layernorm", "blk.0.attn_norm"),
                         ("model.layers.0.post_attention_layernorm", "blk.0.ffn_norm"),
                         ("model.norm", "output_norm")]:
        values = rng.uniform(0.5, 1.5, config.hidden_size).astype(np.float32)
        writer.add_tensor(target + ".weight", values)
        state[name + ".weight"] = torch.from_numpy(values)
    finish(writer)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    ids = [int(i) for i in rng.integers(0, config.vocab_size, 24)]
    with torch.no_grad():
        return ids, model(input_ids=torch.tensor([ids])).logits[0].contiguous()


def quantised(rng, writer, state, name, target, kind, heads):
    rows, columns = state[name].shape
    # sub-block scales multiply what they scale by up to 63 or 128
    size = {Q.Q4_K: -16, Q.Q5_K: -17, Q.Q6_K: -17}.get(kind, -9)
    raw = random_blocks(rng, kind, rows, columns, size, size + 2)
    state[name] = torch.from_numpy(gguf.quants.dequantize(raw, kind).astype(np.float32))
    writer.add_tensor(target, interleave(raw, heads) if heads else raw, raw_dtype=kind)


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "blocks")
    os.makedirs(out, exist_ok=True)
    rng = np.random.default_rng(7)
    torch.manual_seed(7)
    write_blocks(os.path.join(out, "blocks.gguf"), rng)
    ids, logits = write_model(os.path.join(out, "model.gguf"), rng)
    json.dump({"ids": ids}, open(os.path.join(out, "expected.json"), "w"))
    path = os.path.join(out, "expected.safetensors")
    save_file({"model.0": logits}, path, metadata={"format": "pt"})
    os.chmod(path, 0o644)
    print("logits up to", float(logits.abs().max()), "finite", bool(torch.isfinite(logits).all()))


main()
