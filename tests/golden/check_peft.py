#!/usr/bin/env python3
"""Load an adapter directory that fedlora wrote with PEFT and compare the logits.

Development time only (torch, transformers, peft, safetensors).
usage: check_peft.py FEDLORA_WORKER MODEL ADAPTER_DIR [--tokens 1,2,3] [--threads N]
MODEL is a Hugging Face directory or a GGUF file. Exit 0: every adapter tensor was used by PEFT, the
adapter changes the logits, and both programs agree within 1e-4 of the largest logit.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import warnings

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def load_base(path):
    where, kind = path, {}
    if not os.path.isdir(path):
        where, kind = os.path.dirname(path), {"gguf_file": os.path.basename(path)}
    return AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **kind).eval()


def ours(args, ids, adapter):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "logits.safetensors")
        command = [args.worker, "logits", "--model", args.model, "--out", out,
                   "--tokens", ",".join(map(str, ids)), "--threads", str(args.threads)]
        subprocess.run(command + (["--adapter", adapter] if adapter else []), check=True)
        return load_file(out)["logits"]


def theirs(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


def compare(what, a, b):
    worst = ((a - b).abs().max() / b.abs().max()).item()
    print(f"{what}: largest difference {worst:.2e} of the largest logit")
    return worst < 1e-4


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("worker")
    parser.add_argument("model")
    parser.add_argument("adapter")
    parser.add_argument("--tokens", default="5,17,42,8,61,30,2,11")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    ids = [int(word) for word in args.tokens.split(",")]

    base = load_base(args.model)
    plain = theirs(base, ids)
    good = compare("base", ours(args, ids, None), plain)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, args.adapter)
    for warning in caught:
        if "adapter keys" in str(warning.message):
            print("PEFT says:", warning.message)
            good = False
    stored = load_file(os.path.join(args.adapter, "adapter_model.safetensors"))
    loaded = get_peft_model_state_dict(model)
    if set(stored) != set(loaded) or any(not torch.equal(stored[k], loaded[k]) for k in stored):
        print("PEFT did not take every tensor as it is")
        good = False
    adapted = theirs(model, ids)
    if torch.equal(adapted, plain):
        print("the adapter changes nothing")
        good = False
    good = compare("adapter", ours(args, ids, args.adapter), adapted) and good
    sys.exit(0 if good else 1)


main()
