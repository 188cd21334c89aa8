#!/usr/bin/env python3
"""Make tests/golden/tiny-gguf: the tiny Llama as GGUF files, and what their weights compute.

Development time only (gguf, torch, transformers). f32.gguf holds tiny-llama's weights as they are;
mixed.gguf stores its tensors as F16, BF16, Q8_0, Q4_0 and Q4_1 and spells rope_freqs out. q and k
rows are interleaved as architecture "llama" wants. expected.safetensors: NAME.0 = logits of the
ids in expected.json, from the *dequantised* weights run by transformers.
usage: make_gguf.py [OUT_DIR]
"""
import json
import os
import sys

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = os.path.join(HERE, "tiny-llama")
LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
MIXED = {"attn_q": Q.Q8_0, "attn_k": Q.Q4_0, "attn_v": Q.Q4_1, "attn_output": Q.F16,
         "ffn_gate": Q.Q4_1, "ffn_up": Q.Q4_0, "ffn_down": Q.BF16, "token_embd": Q.Q8_0}


def gguf_name(name):
    if name in TOP:
        return TOP[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{LAYER[rest.removesuffix('.weight')]}.weight"


def interleave(rows, heads):
    half = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return half.swapaxes(1, 2).reshape(rows.shape)


def add_metadata(writer, config, rope_freqs):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    if rope_freqs is not None:
        writer.add_tensor("rope_freqs.weight", rope_freqs)


def add_tokenizer(writer):
    data = json.load(open(os.path.join(BASE, "tokenizer.json")))
    special = {token["content"] for token in data["added_tokens"]}
    vocab = {**data["model"]["vocab"], **{t["content"]: t["id"] for t in data["added_tokens"]}}
    tokens = sorted(vocab, key=vocab.get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(AutoTokenizer.from_pretrained(BASE).chat_template)


def write(path, model, kinds, rope_freqs):
    """Returns the state dict that a reader of this file must see (dequantised, HF order)."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-llama")
    add_metadata(writer, model.config, rope_freqs)
    add_tokenizer(writer)
    seen = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        target = gguf_name(name)
        rows = tensor.numpy().astype(np.float32)
        kind = kinds.get(target.split(".")[-2], Q.F32)
        raw = gguf.quants.quantize(rows, kind)
        back = gguf.quants.dequantize(raw, kind).reshape(rows.shape)
        heads = {"attn_q": model.config.num_attention_heads,
                 "attn_k": model.config.num_key_value_heads}.get(target.split(".")[-2])
        if heads:
            raw = interleave(raw, heads)
        writer.add_tensor(target, raw, raw_dtype=None if kind == Q.F32 else kind)
        seen[name] = torch.from_numpy(np.array(back, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return seen


def logits(state, ids, rope_freqs):
    model = LlamaForCausalLM.from_pretrained(BASE, dtype=torch.float32,
                                             attn_implementation="eager").eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing in ([], ["lm_head.weight"]) and not unexpected, (missing, unexpected)
    if rope_freqs is not None:
        rotary = model.model.rotary_emb
        rotary.inv_freq = rotary.inv_freq / torch.from_numpy(rope_freqs)
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].contiguous()


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "tiny-gguf")
    os.makedirs(out, exist_ok=True)
    model = LlamaForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    text = "Define: ward\nA room in a hospital, kept since 1984 for 12 patients."
    ids = AutoTokenizer.from_pretrained(BASE)(text)["input_ids"]
    freqs = np.array([1.0, 1.0, 2.0, 4.0], dtype=np.float32)
    files = {"f32": ({}, None), "mixed": (MIXED, freqs)}
    tensors = {}
    for name, (kinds, rope) in files.items():
        state = write(os.path.join(out, name + ".gguf"), model, kinds, rope)
        tensors[name + ".0"] = logits(state, ids, rope)
    json.dump({"text": text, "ids": ids}, open(os.path.join(out, "expected.json"), "w"), indent=1)
    save_file(tensors, os.path.join(out, "expected.safetensors"), metadata={"format": "pt"})
    os.chmod(os.path.join(out, "expected.safetensors"), 0o644)


main()
