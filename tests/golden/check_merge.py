#!/usr/bin/env python3
"""Development time: merge with fedlora-worker, load the directory in transformers, and hold its
logits against base + adapter by PEFT; also that its tokenizer loads.

usage: check_merge.py FEDLORA_WORKER [BASE.gguf PEFT_DIR]   (without a base: the golden cases)
With a GGUF base the reference is the merged model's own engine, since transformers reads none.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = ["gqa-tied", "untied-headdim", "llama3-rope", "sharded-bf16", "mistral-f16",
         "mistral-window", "qwen2", "qwen2-window", "qwen2-yarn", "qwen3", "phi3", "gpt2", "gpt2-bare",
         "gemma2", "gemma3", "gemma3-old"]
# as GGUF files and from them; transformers' reader knows no rope_freqs (llama3) and no Mistral
GGUF_CASES = ["gqa-tied", "untied-headdim", "sharded-bf16", "qwen2", "qwen3", "phi3", "gpt2"]


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32,
                                                attn_implementation="eager").eval()


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def compare(name, got, want, bound):
    error = ((got - want).abs().max() / want.abs().max()).item()
    print(f"{name}: {error:.2e}")
    assert error < bound, name


def merge(worker, base, adapter, out, *words):
    subprocess.run([worker, "merge", "--model", base, "--adapter", adapter, "--out", out, *words],
                   check=True)


def check_cases(worker, work):
    for name in CASES:
        base = os.path.join(HERE, "cases", name)
        for dtype, bound in (("f32", 1e-5), ("base", 0.1)):
            out = os.path.join(work, name + "-" + dtype)
            merge(worker, base, base + "/init", out, "--dtype", dtype)
            merged = load(out)
            length = min(24, merged.config.max_position_embeddings)
            ids = [(i * 37 + 5) % merged.config.vocab_size for i in range(length)]
            want = logits(PeftModel.from_pretrained(load(base), base + "/init").eval(), ids)
            compare(f"{name} {dtype} ({AutoModelForCausalLM.from_pretrained(out, dtype='auto').dtype})",
                    logits(merged, ids), want, bound)


def usual_gemma(name, work):
    """The case with the scale of scores that GGUF files imply."""
    base = os.path.join(work, name + "-usual")
    shutil.copytree(os.path.join(HERE, "cases", name), base)
    path = os.path.join(base, "config.json")
    config = json.load(open(path))
    config["query_pre_attn_scalar"] = config["head_dim"]
    json.dump(config, open(path, "w"))
    return base


def check_gemma(worker, work, name):
    base, folder = usual_gemma(name, work), os.path.join(work, name + "-file")
    os.makedirs(folder)
    merge(worker, base, base + "/init", folder + "/model.gguf", "--dtype", "f32")
    merge(worker, base, base + "/init", folder + "-hf", "--dtype", "f32")
    merge(worker, folder + "/model.gguf", base + "/init", folder + "-twice", "--dtype", "f32")
    merge(worker, folder + "-hf", base + "/init", folder + "-hf-twice", "--dtype", "f32")
    want = load(folder + "-hf")
    got = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf",
                                               config=want.config).state_dict()
    worst = max((got[k].float() - v).abs().max().item() for k, v in want.state_dict().items())
    print(f"{name} as GGUF: largest difference of a weight {worst:.2e}")
    assert worst < 1e-6, name
    ids = [(i * 37 + 5) % want.config.vocab_size for i in range(24)]
    compare(f"{name} from GGUF", logits(load(folder + "-twice"), ids),
            logits(load(folder + "-hf-twice"), ids), 1e-5)


def check_gguf_cases(worker, work):
    """Merged to a GGUF file: transformers' GGUF reader finds the merged directory's weights there.
    From a GGUF base to a directory: transformers computes what it does for base + adapter."""
    for name in GGUF_CASES:
        base = os.path.join(HERE, "cases", name)
        folder = os.path.join(work, name + "-file")
        os.makedirs(folder)
        merge(worker, base, base + "/init", folder + "/model.gguf", "--dtype", "f32")
        want = load(os.path.join(work, name + "-f32"))
        got = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf",
                                                   config=want.config).state_dict()
        worst = max((got[k].float() - v).abs().max().item() for k, v in want.state_dict().items())
        print(f"{name} as GGUF: largest difference of a weight {worst:.2e}")
        assert worst < 1e-6, name
        if os.path.exists(base + "/model.gguf"):
            out = os.path.join(work, name + "-from-gguf")
            merge(worker, base + "/model.gguf", base + "/init", out, "--dtype", "f32")
            ids = [(i * 37 + 5) % want.config.vocab_size for i in range(24)]
            peft = PeftModel.from_pretrained(load(base), base + "/init").eval()
            compare(f"{name} from GGUF", logits(load(out), ids), logits(peft, ids), 1e-5)


def check_gguf(worker, work, base, adapter):
    out = os.path.join(work, "merged")
    merge(worker, base, adapter, out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer("The quick brown fox\n jumps 12 times; naïve.").input_ids
    ours = subprocess.run([worker, "tokenize", "--model", base], capture_output=True, check=True,
                          input="The quick brown fox\n jumps 12 times; naïve.".encode()).stdout
    assert str(ids).replace(" ", "") in ours.decode().replace(" ", ""), (ids, ours)
    path = os.path.join(work, "logits")
    subprocess.run([worker, "logits", "--model", base, "--adapter", adapter, "--out", path,
                    "--tokens", ",".join(map(str, ids))], check=True)
    compare("gguf base", logits(load(out), ids), load_file(path)["logits"], 1e-2)
    print(tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False))


def main():
    with tempfile.TemporaryDirectory() as work:
        if len(sys.argv) > 2:
            check_gguf(sys.argv[1], work, sys.argv[2], sys.argv[3])
        else:
            check_cases(sys.argv[1], work)
            check_gguf_cases(sys.argv[1], work)
            for name in ("gemma2", "gemma3-old"):
                check_gemma(sys.argv[1], work, name)


if __name__ == "__main__":
    main()
