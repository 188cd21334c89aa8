#!/usr/bin/env python3
"""Freeze training recipes on a case that make_models.py made: what PyTorch + PEFT do, step by step.

Development time only (torch, transformers, peft, safetensors). Beside the case's expected.*:
  recipes.json          losses, and the settings of each run
  recipes.safetensors   RUN.NAME: the adapter after the run's steps
The case has rank-stabilised LoRA (use_rslora), so each run trains with its scale, alpha / sqrt(r).
  accumulate   a step takes up to 3 batches of 1 row; its gradient is that of the sum of the scored
               tokens' losses over their number in the whole step (an epoch has 4 rows: 3, then 1)
  loraplus     peft.optimizers.create_loraplus_optimizer: the rate of B is 8 times that of A
usage: make_recipes.py [CASES_DIR]
"""
import json
import os
import sys

import torch
from peft import get_peft_model_state_dict
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file

from make_models import SCHEDULES, batch_of, load_base, open_adapted

CASE, STEPS = "llama3-rope", 5
RUNS = {
    "accumulate": dict(lr=1e-2, schedule="linear", warmup=1, weight_decay=0.1, grad_clip=1.0,
                       batch_size=1, accumulate=3, loraplus_ratio=1),
    "loraplus": dict(lr=2e-3, schedule="cosine", warmup=1, weight_decay=0.1, grad_clip=1.0,
                     batch_size=2, accumulate=1, loraplus_ratio=8),
}


def loss_sum(model, rows):
    batch = batch_of(rows)
    labels = batch.pop("labels")[:, 1:].flatten()
    logits = model(**batch).logits[:, :-1].double().flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


def make_optimizer(model, run):
    if run["loraplus_ratio"] == 1:
        params = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.AdamW(params, lr=run["lr"], weight_decay=run["weight_decay"])
    return create_loraplus_optimizer(model, torch.optim.AdamW, lr=run["lr"],
                                     loraplus_lr_ratio=run["loraplus_ratio"],
                                     weight_decay=run["weight_decay"],
                                     loraplus_weight_decay=run["weight_decay"])


def train(model, rows, run):
    model.train()
    optimizer = make_optimizer(model, run)
    schedule = SCHEDULES[run["schedule"]](optimizer, run["warmup"], STEPS)
    size = run["batch_size"]
    wide = size * run["accumulate"]
    groups = [rows[i:i + wide] for i in range(0, len(rows), wide)]
    losses = []
    for step in range(STEPS):
        group = groups[step % len(groups)]
        scored = sum(label != -100 for row in group for label in row["labels"][1:])
        total = 0.0
        for i in range(0, len(group), size):
            loss = loss_sum(model, group[i:i + size])
            (loss / scored).backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad],
                                       run["grad_clip"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(total / scored)
    return losses, get_peft_model_state_dict(model)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    folder = os.path.join(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "cases"), CASE)
    rows = [json.loads(line) for line in open(os.path.join(folder, "data.jsonl"))]
    torch.set_num_threads(1)
    expected, tensors = {"steps": STEPS, "runs": {}}, {}
    for name, run in RUNS.items():
        losses, state = train(open_adapted(load_base(folder), folder, True), rows, run)
        expected["runs"][name] = {**run, "losses": losses}
        tensors.update({f"{name}.{key}": value.contiguous() for key, value in state.items()})
    json.dump(expected, open(os.path.join(folder, "recipes.json"), "w"), indent=1)
    path = os.path.join(folder, "recipes.safetensors")
    save_file(tensors, path, metadata={"format": "pt"})
    os.chmod(path, 0o644)


if __name__ == "__main__":
    main()
