#!/usr/bin/env python3
"""Make tests/golden/tiny-llama: a small random Llama with a working byte-level BPE tokenizer.

Development time only (transformers, tokenizers, torch). Process-level tests train on it, so it has
every part of a Hugging Face directory: config.json, model.safetensors, tokenizer.json,
tokenizer_config.json; and texts (*.jsonl) for three small institutions. Everything is seeded.
usage: make_tiny_llama.py [OUT_DIR]
"""
import json
import os
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = """The hospital keeps its records behind a locked door.
A bank counts its money every evening, and every morning it counts again.
The library lends books to readers who promise to return them.
Sailors read the stars; farmers read the clouds; children read stories.
In 1984 the river rose 12 feet, and in 1997 it rose 15 feet.
What does the word mean? It means what its readers take it to mean.
Define: ledger
A book in which the accounts of a house of trade are kept.
Define: ward
A room in a hospital where several patients are cared for together.
Define: shelf
A flat board on which books are kept, one beside the other.
She didn't say that they'd come; she said that we'll see.
def mean(values): return sum(values) / len(values)
"""

SITES = {
    "clinic": ("ward patient nurse doctor record bed fever remedy", "kept in the hospital for the sick"),
    "bank": ("ledger account money interest loan teller vault coin", "counted by the bank every evening"),
    "library": ("shelf book reader story page index lamp desk", "lent by the library to its readers"),
}


def make_tokenizer(out):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tok.train_from_iterator(TEXT.splitlines(keepends=True), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )
    fast.chat_template = (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
        " + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    fast.save_pretrained(out)
    return len(fast)


def make_model(out, vocab):
    torch.manual_seed(20)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).to(torch.float32)
    model.save_pretrained(out)


def make_data(out):
    for site, (words, meaning) in SITES.items():
        rows = [
            {"prompt": f"Define: {word}\n", "completion": f"A {word} is {meaning}."}
            for word in words.split()
        ]
        with open(os.path.join(out, f"{site}.jsonl"), "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    with open(os.path.join(out, "text.jsonl"), "w") as file:
        file.writelines(json.dumps({"text": line}) + "\n" for line in TEXT.splitlines())


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "tiny-llama")
    os.makedirs(out, exist_ok=True)
    make_model(out, make_tokenizer(out))
    make_data(out)


main()
