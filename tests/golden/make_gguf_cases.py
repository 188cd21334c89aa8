#!/usr/bin/env python3
"""Make tests/golden/cases/NAME/model.gguf: the base of a golden case as a GGUF file, float32.

Development time only (gguf, torch, transformers). The tensor names are those of the gguf package's
own map; transformers' GGUF reader must find the same weights in the file as in the directory, so
the file is held against a reader that is not ours before it is frozen. The case's expected.* then
hold for the file too.
usage: make_gguf_cases.py [CASES_DIR [CASE...]]
"""
import os
import sys

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = {"qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3,
         "gpt2": gguf.MODEL_ARCH.GPT2, "phi3": gguf.MODEL_ARCH.PHI3}
CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def add_metadata(writer, config):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None)
    if head_dim:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if config.model_type == "phi3":
        writer.add_sliding_window(config.sliding_window)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def write(path, arch, model):
    config = model.config
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_name(os.path.basename(os.path.dirname(path)))
    add_metadata(writer, config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if name.endswith(CONV1D):
            values = np.ascontiguousarray(values.T)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check(folder, model):
    other = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf",
                                                 config=model.config).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(other[name].float(), tensor.float()), name


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "cases")
    for name in sys.argv[2:] or CASES:
        case = os.path.join(folder, name)
        model = AutoModelForCausalLM.from_pretrained(case, dtype=torch.float32)
        write(os.path.join(case, "model.gguf"), CASES[name], model)
        check(case, model)


if __name__ == "__main__":
    main()
