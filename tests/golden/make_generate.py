#!/usr/bin/env python3
"""Frozen greedy generations of transformers for the models under cases/, written to generate.json.

Each entry: the case, with or without its adapter (cases/NAME/init, put on by PEFT), the prompt's
ids, the ids that generate(do_sample=False) appends, and the smallest distance between the two
largest logits on the way. Prompts whose distance falls below 1e-3 anywhere are passed over: a tie
that rounding decides is nobody's error.
usage: make_generate.py
"""
import json
import os

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = ["gqa-tied", "untied-headdim", "llama3-rope", "sharded-bf16", "mistral-f16"]
NEW, WANTED = 24, 3


def generate(model, prompt):
    ids = torch.tensor([prompt])  # the mask is given: else id 0 would be taken for padding
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW,
                         do_sample=False, eos_token_id=None, pad_token_id=0, return_dict_in_generate=True,
                         output_logits=True)
    gaps = [(top[0] - top[1]).item() for top in (l[0].topk(2).values for l in out.logits)]
    return out.sequences[0, len(prompt):].tolist(), min(gaps)


def entries_of(name):
    folder = os.path.join(HERE, "cases", name)
    load = lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                        attn_implementation="eager").eval()
    adapted = PeftModel.from_pretrained(load(), os.path.join(folder, "init")).eval()
    for model, with_adapter in ((load(), False), (adapted, True)):
        kept = 0
        while kept < WANTED:
            length = int(torch.randint(1, 20, ()))
            prompt = torch.randint(0, model.config.vocab_size, (length,)).tolist()
            ids, gap = generate(model, prompt)
            if gap < 1e-3:
                continue
            kept += 1
            yield {"case": name, "adapter": with_adapter, "prompt": prompt, "ids": ids, "gap": gap}


def main():
    torch.manual_seed(11)
    torch.set_num_threads(1)
    entries = [entry for name in CASES for entry in entries_of(name)]
    with open(os.path.join(HERE, "generate.json"), "w") as file:
        file.write("[" + ",\n ".join(json.dumps(entry) for entry in entries) + "]\n")


if __name__ == "__main__":
    main()
