#!/usr/bin/env python3
"""Small tokenizers of SentencePiece's kind, and what their peers make of hard texts with them.

usage: make_tokenizer_spm.py tests/golden/tokenizer     (tokenizers, sentencepiece, gguf; deterministic)

NAME/tokenizer.json, NAME/tokenizer_config.json and NAME.cases.jsonl as make_tokenizer.py writes
them, a line a text with "decoded" (of "ids") beside; the answers are Hugging Face's tokenizers':
  llama2     normalizer Prepend and Replace, no pre_tokenizer, byte fallback, merges across words
  mistral    Metaspace "first", no split, byte fallback
  always     Metaspace "always", words apart, unk fused, Metaspace decoder
  never      Metaspace "never", tokens for some bytes only, unk not fused
  gemma      Replace alone, Split at spaces, no Strip when decoding
spm.gguf, spm.model, spm.cases.jsonl: a model that sentencepiece trained, as a GGUF file carries it.
There text is cut at control, unknown and user-defined pieces first, each stretch encoded by
sentencepiece for itself (as llama.cpp does it); "plain" cuts at user-defined pieces alone.
"""
import io
import json
import os
import re
import sys

import gguf
import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from make_tokenizer import CORPUS, TEXTS

MARK = "\u2581"
EXTRA = ["a\u2581b", "\u2581", "\u2581\u2581x", " \u2581 ", "<s>", "<s> a", "<s>a</s> b", "</s></s>", "<unk>", "a <unk> b",
         "<0x0A>", "<0x41>x", "\u2581<s>", " <s>", "\t<s>\n x", "<mask>", "  <mask>  <mask>x", "x<right>  y", "caf\u00e9! x",
         "\U0001f999\U0001f999 \u0e01\u0e01", "qqq\u4e01\u4e02zz", "a\u4e01", "\u4e01a", "\u4e01 \u4e02", "ab\u4e01\u4e02cd"]


def added(first):
    """The flags of added tokens, each once: (content, flags)."""
    rows = [("<|im_end|>", "special"), ("<mask>", "special lstrip"), ("<left>", "lstrip"), ("<right>", "rstrip"),
            ("word", "single_word"), ("caf\u00e9!", "normalized"), ("lazy dog", "normalized single_word"),
            ("  ", "")]
    return [dict({"id": first + i, "content": c}, **{f: f in flags.split() for f in
                 ("single_word", "lstrip", "rstrip", "normalized", "special")}) for i, (c, flags) in enumerate(rows)]


def trained(split, size, letters):
    """(pieces, merges) over marked text."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always", split=split)
    tok.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=size, min_frequency=2, limit_alphabet=letters,
                                                            max_token_length=16, show_progress=False))
    data = json.loads(tok.to_str())["model"]
    return sorted(data["vocab"], key=data["vocab"].get), data["merges"]


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
PIECES = [{"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
          {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
SEQUENCE = {"type": "Sequence", "decoders": PIECES}


def metaspace(scheme, split):
    return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": split}


KINDS = {
    "llama2": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, REPLACE]},
               "pre_tokenizer": None, "decoder": SEQUENCE, "split": False, "fuse_unk": True, "bytes": range(256)},
    "mistral": {"normalizer": None, "pre_tokenizer": metaspace("first", False), "decoder": SEQUENCE, "split": True,
                "fuse_unk": True, "bytes": range(256)},
    "always": {"normalizer": None, "pre_tokenizer": metaspace("always", True), "decoder": metaspace("always", True),
               "split": True, "fuse_unk": True, "bytes": []},
    "never": {"normalizer": {"type": "NFC"}, "pre_tokenizer": metaspace("never", False), "decoder": SEQUENCE, "split": True,
              "fuse_unk": False, "bytes": list(range(0x80)) + [0xe0, 0xb8, 0x81, 0xe4]},
    "gemma": {"normalizer": REPLACE, "decoder": {"type": "Sequence", "decoders": PIECES[:3]}, "split": False,
              "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                                "invert": False}, "fuse_unk": True, "bytes": range(256)},
}


def document(name):
    kind = KINDS[name]
    pieces, merges = trained(kind["split"], 420, 90)
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in kind["bytes"]] + pieces
    vocab = {t: i for i, t in enumerate(tokens)}
    start = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": name == "llama2" and i == 2,
              "special": True} for i, t in enumerate(tokens[:3])]
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": start + added(len(tokens)),
            "normalizer": kind["normalizer"], "pre_tokenizer": kind["pre_tokenizer"],
            "post_processor": template if name != "always" else None, "decoder": kind["decoder"],
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": kind["fuse_unk"], "byte_fallback": len(kind["bytes"]) > 0,
                      "ignore_merges": False, "vocab": vocab,
                      "merges": merges if name == "mistral" else [" ".join(m) for m in merges]}}


def write_cases(path, cases):
    with open(path, "w", encoding="utf-8") as f:
        for case in cases:
            f.write(json.dumps(case) + "\n")


def hf_cases(tok):
    for text in TEXTS + EXTRA:
        tok.encode_special_tokens = False
        case = {"text": text, "ids": tok.encode(text).ids, "bare": tok.encode(text, add_special_tokens=False).ids}
        case["decoded"] = tok.decode(case["ids"], skip_special_tokens=False)
        tok.encode_special_tokens = True
        case["plain"] = tok.encode(text, add_special_tokens=False).ids
        yield case


USER = ["<|im_start|>", "<|im_end|>", "<sep>", "fox"]


def train_spm():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in CORPUS for line in text.split("\n") if line] * 3), model_writer=model,
        model_type="bpe", vocab_size=700, character_coverage=0.98, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, add_dummy_prefix=True, split_digits=True, allow_whitespace_only_pieces=True,
        user_defined_symbols=USER, minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()), model.getvalue()


class Spm:
    """sentencepiece, a stretch between added pieces at a time."""

    def __init__(self, sp):
        self.sp = sp
        ids = range(sp.get_piece_size())
        proto = {i: sp.id_to_piece(i) for i in ids}
        fixed = [i for i in ids if sp.is_control(i) or sp.is_unknown(i)]
        self.user = [i for i in ids if self.kind(i) == 4]
        self.special = {proto[i]: i for i in fixed}
        self.added = {**self.special, **{proto[i]: i for i in self.user}}
        self.cuts = [self.pattern(self.added), self.pattern({proto[i]: i for i in self.user})]

    def kind(self, i):
        sp = self.sp
        if sp.is_unknown(i):
            return 2
        if sp.is_control(i):
            return 3
        if sp.is_byte(i):
            return 6
        if sp.is_unused(i):
            return 5
        return 4 if sp.id_to_piece(i) in USER else 1

    @staticmethod
    def pattern(pieces):
        return re.compile("(" + "|".join(re.escape(p) for p in sorted(pieces, key=len, reverse=True)) + ")")

    def encode(self, text, plain):
        ids = []
        for part in self.cuts[plain].split(text):
            if part in self.added and (not plain or part not in self.special):
                ids.append(self.added[part])
            elif part:
                ids += self.sp.encode(part)
        return ids


def write_gguf(path, sp, spm):
    ids = range(sp.get_piece_size())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([sp.id_to_piece(i) for i in ids])
    writer.add_token_scores([sp.get_score(i) for i in ids])
    writer.add_token_types([spm.kind(i) for i in ids])
    writer.add_bos_token_id(sp.bos_id())
    writer.add_eos_token_id(sp.eos_id())
    writer.add_unk_token_id(sp.unk_id())
    writer.add_add_space_prefix(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def spm_cases(spm):
    for text in TEXTS + EXTRA:
        bare = spm.encode(text, False)
        # decoding names control pieces, as Hugging Face's tokenizers does
        yield {"text": text, "ids": [spm.sp.bos_id()] + bare, "bare": bare, "plain": spm.encode(text, True),
               "decoded": "<s>" + decode(spm, bare)}


def decode(spm, ids):
    out = b""
    for i in ids:
        piece = spm.sp.id_to_piece(i)
        out += bytes([int(piece[3:5], 16)]) if spm.kind(i) == 6 else piece.replace(MARK, " ").encode()
    return out.decode()


def main():
    out = sys.argv[1]
    for name in KINDS:
        folder = os.path.join(out, name)
        os.makedirs(folder, exist_ok=True)
        data = document(name)
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
            json.dump(data, f, ensure_ascii=name == "llama2", indent=None)
        with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
            json.dump({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, f)
        tok = Tokenizer.from_str(json.dumps(data))
        write_cases(os.path.join(out, name + ".cases.jsonl"), hf_cases(tok))
    sp, model = train_spm()
    spm = Spm(sp)
    with open(os.path.join(out, "spm.model"), "wb") as f:
        f.write(model)
    write_gguf(os.path.join(out, "spm.gguf"), sp, spm)
    write_cases(os.path.join(out, "spm.cases.jsonl"), spm_cases(spm))


if __name__ == "__main__":
    main()
