#!/usr/bin/env python3
"""Make the golden cases under tests/golden/cases/: what transformers + PEFT compute, frozen.

Development time only (torch, transformers, peft, safetensors). One folder a case:
  config.json, *.safetensors   a tiny random base model as transformers writes it
  init/                        a LoRA adapter with A and B non-zero, saved by PEFT
  data.jsonl                   ragged rows: input_ids, labels (unshifted, -100 = not scored)
  expected.json                losses, and the settings of each training run
  expected.safetensors         base.N, adapted.N: logits of row N without and with the adapter
                               grad.NAME: d(mean loss over all rows)/d(NAME), PEFT's tensor names
                               RUN.NAME: the adapter after the run's AdamW steps
Each run takes rows in file order, two at a time, and wraps around (the last batch of an epoch is
short). Everything is seeded and float32, except the cross-entropy: over a vocabulary of 49152
PyTorch's float32 log_softmax gives probabilities that sum to 1 +- 1e-5, which is an error of 1e-4
in some gradients of the last layer; on the same logits in float64 it is below 1e-5.
usage: make_models.py [OUT_DIR [CASE...]]
"""
import json
import os
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM,
                          Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig,
                          MistralForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM,
                          get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup,
                          get_linear_schedule_with_warmup)

SCHEDULES = {
    "constant": lambda o, w, n: get_constant_schedule_with_warmup(o, w),
    "linear": get_linear_schedule_with_warmup,
    "cosine": get_cosine_schedule_with_warmup,
}
RUNS = {
    "plain": dict(lr=1e-2, schedule="constant", warmup=0, weight_decay=0.0, grad_clip=0.0),
    "linear": dict(lr=1e-2, schedule="linear", warmup=2, weight_decay=0.1, grad_clip=1.0),
    "cosine": dict(lr=1e-2, schedule="cosine", warmup=1, weight_decay=0.01, grad_clip=0.05),
}
STEPS, BATCH = 5, 2
SMALL = dict(initializer_range=0.3, bos_token_id=0, eos_token_id=1, attn_implementation="eager")
ROTARY = dict(max_position_embeddings=128, rms_norm_eps=1e-5)
ALL = "all-linear"
CASES = {
    # 6 query heads over 2 key heads, tied head
    "gqa-tied": dict(
        make=(LlamaConfig, LlamaForCausalLM), dtype=torch.float32, lengths=(2, 9, 17, 5, 12),
        config=dict(vocab_size=97, hidden_size=24, intermediate_size=40, num_hidden_layers=3,
                    num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=True),
        lora=dict(r=4, lora_alpha=8, target_modules=ALL)),
    # heads * head_dim differs from hidden; a head of its own; ranks and alphas by pattern
    "untied-headdim": dict(
        make=(LlamaConfig, LlamaForCausalLM), dtype=torch.float32, lengths=(7, 3, 21, 2, 10),
        config=dict(vocab_size=83, hidden_size=21, intermediate_size=44, num_hidden_layers=2,
                    num_attention_heads=3, num_key_value_heads=1, head_dim=8,
                    tie_word_embeddings=False, rms_norm_eps=1e-6),
        lora=dict(r=4, lora_alpha=6, target_modules=ALL,
                  rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 6},
                  alpha_pattern={"q_proj": 5, "layers.1.mlp.down_proj": 9})),
    # llama3 rope scaling with rows beyond the original context, rank-stabilised scale
    "llama3-rope": dict(
        make=(LlamaConfig, LlamaForCausalLM), dtype=torch.float32, lengths=(40, 6, 28, 3),
        config=dict(vocab_size=71, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                    num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True,
                    rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=4.0,
                                         low_freq_factor=1.0, high_freq_factor=4.0,
                                         original_max_position_embeddings=16)),
        lora=dict(r=4, lora_alpha=8, target_modules=ALL, use_rslora=True)),
    # several shards with an index, bfloat16 weights
    "sharded-bf16": dict(
        make=(LlamaConfig, LlamaForCausalLM), dtype=torch.bfloat16, lengths=(11, 4, 13, 2, 8),
        shard="12kB",
        config=dict(vocab_size=90, hidden_size=24, intermediate_size=36, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False),
        lora=dict(r=4, lora_alpha=4, target_modules=ALL)),
    # float16 weights, the older dialect of config.json, few targets in the upper layers only
    "mistral-f16": dict(
        make=(MistralConfig, MistralForCausalLM), dtype=torch.float16, lengths=(5, 16, 2, 9, 3),
        old_dialect=True,
        config=dict(vocab_size=101, hidden_size=24, intermediate_size=32, num_hidden_layers=3,
                    num_attention_heads=4, num_key_value_heads=1, sliding_window=None,
                    tie_word_embeddings=False, rope_theta=1000.0),
        lora=dict(r=4, lora_alpha=8,
                  target_modules=["layers.1.self_attn.v_proj", "layers.2.self_attn.q_proj",
                                  "layers.2.mlp.down_proj"])),
    # q, k and v biases that config.json does not announce, linear rope scaling
    "qwen2": dict(
        make=(Qwen2Config, Qwen2ForCausalLM), dtype=torch.float32, lengths=(3, 14, 8, 2, 11),
        config=dict(vocab_size=79, hidden_size=24, intermediate_size=32, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
                    rope_parameters=dict(rope_type="linear", rope_theta=1000.0, factor=3.0)),
        lora=dict(r=4, lora_alpha=8, target_modules=ALL)),
    # rows of up to four windows; windows in the upper layers only
    "mistral-window": dict(
        make=(MistralConfig, MistralForCausalLM), dtype=torch.float32, lengths=(20, 5, 12, 3),
        config=dict(vocab_size=67, hidden_size=24, intermediate_size=32, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, sliding_window=5,
                    tie_word_embeddings=False),
        lora=dict(r=4, lora_alpha=8, target_modules=ALL)),
    "qwen2-window": dict(
        make=(Qwen2Config, Qwen2ForCausalLM), dtype=torch.float32, lengths=(18, 4, 9),
        config=dict(vocab_size=61, hidden_size=24, intermediate_size=24, num_hidden_layers=3,
                    num_attention_heads=4, num_key_value_heads=2, use_sliding_window=True,
                    sliding_window=4, max_window_layers=1),
        lora=dict(r=2, lora_alpha=4, target_modules=ALL)),
    # LayerNorms, learned positions, linears stored (in, out), q, k and v in one
    "gpt2": dict(
        make=(GPT2Config, GPT2LMHeadModel), dtype=torch.float32, lengths=(11, 3, 16, 2, 7),
        config=dict(vocab_size=59, n_embd=24, n_inner=40, n_layer=2, n_head=3, n_positions=24,
                    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
        lora=dict(r=4, lora_alpha=8, target_modules=ALL)),
    # as the hub's own file: names without "transformer.", masks among the tensors; float16
    "gpt2-bare": dict(
        make=(GPT2Config, GPT2LMHeadModel), dtype=torch.float16, lengths=(6, 9, 2), bare=True,
        config=dict(vocab_size=53, n_embd=20, n_layer=2, n_head=2, n_positions=9,
                    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
        lora=dict(r=3, lora_alpha=6, target_modules=["c_attn"])),
    # q, k and v in one linear, gate and up in another, grouped keys, a window
    "phi3": dict(
        make=(Phi3Config, Phi3ForCausalLM), dtype=torch.float32, lengths=(12, 4, 9, 2),
        config=dict(vocab_size=57, hidden_size=24, intermediate_size=28, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, sliding_window=6,
                    tie_word_embeddings=False, pad_token_id=0),
        lora=dict(r=4, lora_alpha=8, target_modules=ALL)),
    # yarn as Qwen2.5's configurations carry it, rows beyond the original context
    "qwen2-yarn": dict(
        make=(Qwen2Config, Qwen2ForCausalLM), dtype=torch.float32, lengths=(24, 5, 30),
        config=dict(vocab_size=63, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
                    num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
                    rope_parameters=dict(rope_type="yarn", rope_theta=30.0, factor=4.0, beta_fast=4,
                                         original_max_position_embeddings=32)),
        lora=dict(r=2, lora_alpha=4, target_modules=ALL)),
    # norms of q and k, heads * head_dim differs from hidden, no bias
    "qwen3": dict(
        make=(Qwen3Config, Qwen3ForCausalLM), dtype=torch.float32, lengths=(13, 4, 9, 2),
        config=dict(vocab_size=73, hidden_size=20, intermediate_size=28, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                    tie_word_embeddings=False),
        lora=dict(r=4, lora_alpha=8, target_modules=ALL)),
    # norms of 1 + weight before and behind each half, scaled embeddings, gelu, soft caps that bend,
    # windows in every second layer, a scale of scores of its own
    "gemma2": dict(
        make=(Gemma2Config, Gemma2ForCausalLM), dtype=torch.float32, lengths=(19, 4, 11, 2),
        config=dict(vocab_size=69, hidden_size=24, intermediate_size=32, num_hidden_layers=3,
                    num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=5,
                    query_pre_attn_scalar=12, attn_logit_softcapping=4.0,
                    final_logit_softcapping=3.0),
        lora=dict(r=4, lora_alpha=8, target_modules=ALL)),
    # norms of q and k, and a rotation for each kind of layer, the global one scaled
    "gemma3": dict(
        make=(Gemma3TextConfig, Gemma3ForCausalLM), dtype=torch.float32, lengths=(22, 5, 13, 3),
        config=dict(vocab_size=65, hidden_size=24, intermediate_size=28, num_hidden_layers=4,
                    num_attention_heads=4, num_key_value_heads=1, head_dim=10, sliding_window=6,
                    query_pre_attn_scalar=20, layer_types=["sliding_attention", "sliding_attention",
                                                           "full_attention", "sliding_attention"],
                    rope_parameters=dict(
                        full_attention=dict(rope_type="linear", rope_theta=500.0, factor=4.0),
                        sliding_attention=dict(rope_type="default", rope_theta=30.0))),
        lora=dict(r=4, lora_alpha=8, target_modules=ALL)),
    # the older dialect, defaults where it can leave them out
    "gemma3-old": dict(
        make=(Gemma3TextConfig, Gemma3ForCausalLM), dtype=torch.bfloat16, lengths=(14, 3, 6),
        gemma_dialect=True,
        config=dict(vocab_size=45, hidden_size=16, intermediate_size=20, num_hidden_layers=6,
                    num_attention_heads=2, num_key_value_heads=1, head_dim=8, sliding_window=4,
                    rms_norm_eps=1e-6),
        lora=dict(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"])),
    # DoRA: a magnitude for each row of the adapted linears
    "dora": dict(
        make=(LlamaConfig, LlamaForCausalLM), dtype=torch.float32, lengths=(2, 9, 17, 5),
        config=dict(vocab_size=61, hidden_size=24, intermediate_size=36, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True),
        lora=dict(r=4, lora_alpha=8, target_modules=ALL, use_dora=True)),
    # the same with biases, which are not scaled, and weights stored (in, out)
    "dora-gpt2": dict(
        make=(GPT2Config, GPT2LMHeadModel), dtype=torch.float32, lengths=(11, 3, 7),
        config=dict(vocab_size=47, n_embd=20, n_inner=28, n_layer=2, n_head=2, n_positions=24,
                    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
        lora=dict(r=3, lora_alpha=6, target_modules=ALL, use_dora=True, use_rslora=True)),
    # modules chosen by layer and by exclusion, ranks and alphas by pattern
    "chosen": dict(
        make=(LlamaConfig, LlamaForCausalLM), dtype=torch.bfloat16, lengths=(9, 3, 12),
        config=dict(vocab_size=41, hidden_size=16, intermediate_size=20, num_hidden_layers=3,
                    num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True),
        lora=dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"],
                  exclude_modules="model\\.layers\\.2\\..*down_proj", layers_to_transform=[0, 2],
                  layers_pattern="layers", rank_pattern={"layers.0.*q_proj": 2},
                  alpha_pattern={"^model.layers.2.self_attn.v_proj": 3})),
    # joined linears, of which some are adapted in the upper layer alone
    "dora-phi3": dict(
        make=(Phi3Config, Phi3ForCausalLM), dtype=torch.bfloat16, lengths=(12, 4, 9),
        config=dict(vocab_size=43, hidden_size=24, intermediate_size=28, num_hidden_layers=2,
                    num_attention_heads=4, num_key_value_heads=2, sliding_window=6,
                    tie_word_embeddings=False, pad_token_id=0),
        lora=dict(r=4, lora_alpha=8, use_dora=True,
                  target_modules=["qkv_proj", "layers.1.mlp.gate_up_proj"])),
}


def to_old_dialect(folder):
    path = os.path.join(folder, "config.json")
    config = json.load(open(path))
    rope = config.pop("rope_parameters")
    config["rope_theta"], config["rope_scaling"] = rope["rope_theta"], None
    config["torch_dtype"] = config.pop("dtype")
    config.pop("head_dim", None)
    json.dump(config, open(path, "w"), indent=2, sort_keys=True)


def to_gemma_dialect(folder):
    path = os.path.join(folder, "config.json")
    config = json.load(open(path))
    rope = config.pop("rope_parameters")
    assert rope["full_attention"]["rope_theta"] == 1e6
    config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    config["sliding_window_pattern"] = 6
    config["torch_dtype"] = config.pop("dtype")
    for key in ("layer_types", "query_pre_attn_scalar", "final_logit_softcapping",
                "attn_logit_softcapping", "use_bidirectional_attention", "tie_word_embeddings"):
        config.pop(key, None)
    json.dump(config, open(path, "w"), indent=2, sort_keys=True)


def to_bare_names(folder, config):
    path = os.path.join(folder, "model.safetensors")
    tensors = {k.removeprefix("transformer."): v for k, v in load_file(path).items()}
    n = config.n_positions
    for layer in range(config.n_layer):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(n, n).tril().view(1, 1, n, n)
    save_file(tensors, path, metadata={"format": "pt"})
    os.chmod(path, 0o644)


def make_base(folder, case):
    config_class, model_class = case["make"]
    common = SMALL if config_class is GPT2Config else {**SMALL, **ROTARY}
    model = model_class(config_class(**{**common, **case["config"]})).to(case["dtype"])
    with torch.no_grad():  # norms that differ from one, biases from zero
        for name, p in model.named_parameters():
            if "norm" in name or name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")):
                own = 0 if "Gemma" in type(model).__name__ else 1  # Gemma stores what is beyond one
                p.copy_(own + 0.2 * torch.randn_like(p))
            elif name.endswith(".bias"):
                p.copy_(0.3 * torch.randn_like(p))
    kind = {"max_shard_size": case["shard"]} if "shard" in case else {}
    model.save_pretrained(folder, **kind)
    os.remove(os.path.join(folder, "generation_config.json"))
    if case.get("old_dialect"):
        to_old_dialect(folder)
    if case.get("gemma_dialect"):
        to_gemma_dialect(folder)
    if case.get("bare"):
        to_bare_names(folder, model.config)


def load_base(folder, **kind):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                attn_implementation="eager", **kind)


def make_init(base, folder, case, name):
    lora = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, lora_dropout=0.0,
                      base_model_name_or_path=name, **case["lora"])
    model = get_peft_model(base, lora)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_magnitude_vector" in key:
                p.mul_(1 + 0.2 * torch.randn_like(p))
            elif "lora_" in key:
                p.copy_(torch.randn_like(p) * 0.1)
    model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(os.path.join(folder, "init"))
    os.remove(os.path.join(folder, "init", "README.md"))
    path = os.path.join(folder, "init", "adapter_config.json")
    config = json.load(open(path))
    config["target_modules"] = sorted(config["target_modules"])  # a set: its order is chance
    json.dump(config, open(path, "w"), indent=2, sort_keys=True)


def make_rows(case):
    rows = []
    vocab = case["config"]["vocab_size"]
    for number, length in enumerate(case["lengths"]):
        ids = torch.randint(0, vocab, (length,)).tolist()
        labels = list(ids)
        if length > 4:
            for t in range(0, length, 3 + number):
                labels[t] = -100
            labels[length // 2] = int(torch.randint(0, vocab, (1,)))
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def batch_of(rows):
    width = max(len(row["input_ids"]) for row in rows)
    pad = lambda values, fill: values + [fill] * (width - len(values))
    ids = torch.tensor([pad(row["input_ids"], 0) for row in rows])
    labels = torch.tensor([pad(row["labels"], -100) for row in rows])
    mask = torch.tensor([pad([1] * len(row["input_ids"]), 0) for row in rows])
    return dict(input_ids=ids, labels=labels, attention_mask=mask)


def open_adapted(base, folder, trainable):
    return PeftModel.from_pretrained(base, os.path.join(folder, "init"), is_trainable=trainable)


def logits_of(model, rows, prefix, tensors, strides=(1, 1)):
    model.eval()
    with torch.no_grad():
        for number, row in enumerate(rows):
            out = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
            some = out[::strides[0], ::strides[1]].float().contiguous()
            tensors[f"{prefix}.{number}"] = some


def loss_of(model, rows):
    """transformers' loss, its mean over the scored labels, but from float64 logits."""
    batch = batch_of(rows)
    labels = batch.pop("labels")[:, 1:]
    logits = model(**batch).logits[:, :-1].double()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def gradients_of(model, rows, tensors):
    loss = loss_of(model, rows)
    loss.backward()
    grads = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    for key, grad in grads.items():
        tensors["grad." + key.replace(".default", "")] = grad.contiguous()
    return loss.item()


def train(model, rows, run):
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=run["lr"], weight_decay=run["weight_decay"])
    schedule = SCHEDULES[run["schedule"]](optimizer, run["warmup"], STEPS)
    batches = [rows[i:i + BATCH] for i in range(0, len(rows), BATCH)]
    losses = []
    for step in range(STEPS):
        loss = loss_of(model, batches[step % len(batches)])
        loss.backward()
        if run["grad_clip"]:
            torch.nn.utils.clip_grad_norm_(params, run["grad_clip"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, get_peft_model_state_dict(model)


def expect(load, folder, rows, runs, strides=(1, 1)):
    """Write expected.* for the adapter in folder/init on the base that load() gives."""
    tensors = {}
    base = load()
    logits_of(base, rows, "base", tensors, strides)
    expected = {"base_loss": loss_of(base, rows).item(), "row_stride": strides[0],
                "column_stride": strides[1], "steps": STEPS, "batch_size": BATCH, "runs": {}}
    logits_of(open_adapted(load(), folder, False), rows, "adapted", tensors, strides)
    expected["loss"] = gradients_of(open_adapted(load(), folder, True), rows, tensors)
    for name, run in runs.items():
        losses, state = train(open_adapted(load(), folder, True), rows, run)
        expected["runs"][name] = {**run, "losses": losses}
        tensors.update({f"{name}.{key}": value.contiguous() for key, value in state.items()})
    json.dump(expected, open(os.path.join(folder, "expected.json"), "w"), indent=1)
    save_file(tensors, os.path.join(folder, "expected.safetensors"), metadata={"format": "pt"})
    for root, _, files in os.walk(folder):
        for file in files:
            os.chmod(os.path.join(root, file), 0o644)


def write_rows(folder, rows):
    with open(os.path.join(folder, "data.jsonl"), "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def make_case(out, name, case):
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    torch.manual_seed(sum(name.encode()))
    make_base(folder, case)
    make_init(load_base(folder), folder, case, name)
    rows = make_rows(case)
    write_rows(folder, rows)
    expect(lambda: load_base(folder), folder, rows, RUNS)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "cases")
    torch.set_num_threads(1)
    for name in sys.argv[2:] or CASES:
        make_case(out, name, CASES[name])


if __name__ == "__main__":
    main()
