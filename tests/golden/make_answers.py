#!/usr/bin/env python3
"""Frozen answers of tiny-llama by transformers, written to answers.json: log-probabilities of given
choices behind a prompt, and greedy continuations as text (undecodable bytes replaced).
usage: make_answers.py
"""
import json
import os

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
QUESTIONS = [
    ("Define: ward\n", ["A ward is kept.", "A book.", "no"], 0),
    ("Is the patient in the hospital?", [" yes", " no"], 1),
    ("naïve", [" é", " \u65e5\u672c", "x", " a longer one of them"], 3),
    ("1 + 1 =", [" 2", " 3", " 11"], 0),
    ("The bank", [" lends", " is kept in the hospital"], 1),
]
PROMPTS = ["Define: ward\n", "Define: loan\n", "The", "A library", "naïve é", "0 1 2 3"]
NEW = 20


def score(model, tokenizer, prompt, choice):
    head = tokenizer(prompt, add_special_tokens=False).input_ids
    tail = tokenizer(choice, add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = model(torch.tensor([head + tail])).logits[0].double()
    logprobs = torch.log_softmax(logits, -1)
    return sum(logprobs[len(head) - 1 + i, id].item() for i, id in enumerate(tail))


def answer(model, tokenizer, prompt):
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW,
                         do_sample=False, pad_token_id=0, return_dict_in_generate=True,
                         output_logits=True)
    gap = min((t[0] - t[1]).item() for t in (l[0].topk(2).values for l in out.logits))
    assert gap > 1e-3, (prompt, gap)
    made = out.sequences[0, ids.shape[1]:].tolist()
    ended = made[-1:] == [tokenizer.eos_token_id]
    return tokenizer.decode(made[:-1] if ended else made), len(made) - ended


def main():
    torch.set_num_threads(1)
    folder = os.path.join(HERE, "tiny-llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    choices = [{"prompt": prompt, "choices": given, "answer": right,
                "logprobs": [score(model, tokenizer, prompt, c) for c in given]}
               for prompt, given, right in QUESTIONS]
    rows = [dict(zip(("prompt", "completion", "tokens"), (p, *answer(model, tokenizer, p))))
            for p in PROMPTS]
    with open(os.path.join(HERE, "answers.json"), "w") as file:
        json.dump({"max_tokens": NEW, "choices": choices, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
