#!/usr/bin/env python3
"""Make tests/golden/smollm2/: what transformers + PEFT compute on the real SmolLM2-135M GGUF.

Development time only. The layout is that of make_models.py without the model itself; of the logits
every 4th position and every 128th token are kept. The adapter has rank 2 on three linears of the
first and the last layer, so that gradients pass through all layers and the files stay small.
usage: make_smollm2.py FILE.gguf [OUT_DIR]
"""
import os
import shutil
import sys

import torch
from transformers import AutoTokenizer

from make_models import RUNS, expect, load_base, make_init, write_rows

TEXTS = [
    ("Define: kernel\n", "The essential part of an operating system, responsible for resource "
                         "allocation and low-level hardware interfaces."),
    ("Define: admiration\n", "Our polite recognition of another's resemblance to ourselves."),
    ("", "A bug is an unwanted and unintended property of a program."),
]
LORA = dict(r=2, lora_alpha=8, target_modules=[
    f"model.layers.{layer}.{name}" for layer in (0, 29)
    for name in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")])


def main():
    model = sys.argv[1]
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[2] if len(sys.argv) > 2 else os.path.join(here, "smollm2")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    where = dict(gguf_file=os.path.basename(model))
    load = lambda: load_base(os.path.dirname(model), **where)
    tokenizer = AutoTokenizer.from_pretrained(os.path.dirname(model), **where)
    torch.manual_seed(135)
    make_init(load(), folder, dict(lora=LORA), "smollm2-135m-instruct")
    rows = []
    for prompt, completion in TEXTS:
        head, tail = (tokenizer(text)["input_ids"] if text else [] for text in (prompt, completion))
        rows.append({"input_ids": head + tail, "labels": [-100] * len(head) + tail})
    write_rows(folder, rows)
    expect(load, folder, rows, {"linear": RUNS["linear"]}, strides=(4, 128))


main()
