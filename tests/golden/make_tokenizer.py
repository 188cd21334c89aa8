#!/usr/bin/env python3
"""Small byte-level BPE tokenizers, one a pre-tokenizer, and what Hugging Face's tokenizers makes of
hard texts with them.

usage: make_tokenizer.py tests/golden/tokenizer         (needs tokenizers; deterministic)

Writes NAME/tokenizer.json, NAME/tokenizer_config.json and NAME.cases.jsonl, a line a text:
{"text", "ids" (with the template), "bare" (without), "plain" (specials as text, no template)};
also smollm.gguf and llama3.gguf, the same vocabularies as a GGUF file carries them (needs gguf).
"""
import json
import os
import sys

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

CORPUS = [
    "The quick brown fox jumps over the lazy dog. The dog wasn't amused, and it didn't move.",
    "We're sure they've seen what I'll do; she'd said it's fine, and I'm glad. IT'S FINE!",
    "Federated learning trains one model at many sites; the data stay where they are.",
    "def main(argc, argv):\n    for i in range(100):\n        print(i, i * i)\n\n\treturn 0;\n",
    "1 12 123 1234 12345 3.14159 1,000,000 2024-01-31 0xFF 100% 1st 2nd",
    "Größe, Übermut, Straße; café, naïve, señor, façade, Łódź, Dvořák, Ångström.",
    "Быстрая коричневая лиса прыгает через ленивую собаку. Съешь же ещё этих булок.",
    "Η γρήγορη αλεπού πηδάει πάνω από το σκυλί. מהיר שועל חום قفز الثعلب فوق الكلب",
    "敏捷的棕色狐狸跳过懒狗。これは日本語の文章です。한국어 문장도 있습니다.",
    "नमस्ते दुनिया। สวัสดีชาวโลก ខ្មែរ Tiếng Việt có dấu thanh",
    "😀😃 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ❤️ → ∑ ∞ ≠ «quotes» “curly” – dash — ellipsis…",
    "a    b\t\tc\n\n\nd  \n  e   ", "https://example.org/path?query=1&x=%20#frag user@example.org",
]

# the hard cases of llama.cpp's vocabulary tests, and our own
TEXTS = CORPUS + [
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\t\n", " \n ", "\r\n\r\n", "Hello world",
    " Hello world", "Hello World!", " Hello, world!", " this is 🦙.cpp", "w048 7tuijk dsdfhu",
    "нещо на Български", "កាន់តែពិសេសអាចខលចេញ", "🚀 (normal) 😶‍🌫️ (multiple emojis concatenated) ✅",
    "Hello", " Hello", "  Hello", "   Hello", "    Hello", "    Hello\n    Hello", " (", "\n =", "' era",
    "Hello, y'all! How are you 😁 ?我想在apple工作1314151天～", "!!!!!!", "3", "33", "333", "3333", "33333",
    "333333", "3333333", "33333333", "333333333", "Cửa Việt", " discards",
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal)\n3 3.3 3..3 3...3 ''''''```````\"\"\"\"......!!!!",
    "I've you're he'd IT'S WE'LL 'Tis o'clock 'ſ x'ſy 's't 're've'm'll'd 'S'T'RE'VE'M'LL'D 'l 'v 'r '",
    "a  1", "a 1 ", "1  2", "  12  ab  3", "x½y²z³Ⅷ٣٤五", "a\u00a0b\u2003c\u3000d\u200be\ufefff\u2028g\u0085h",
    "e\u0301 \u0065\u0301x A\u030a \u212b \u1e9b\u0323 q\u0323\u0307 q\u0307\u0323 \u0344 \u0958 \u2adc",
    "\u1112\u1161\u11ab\u1100\u1173\u11af 한글 각\u11a8", "nul\u0000byte \u0001\u0004\u007f\u0080\u009f",
    "\U000e0001 \U00020000 \U0001d7d8\U0001d7d9 \U00011de0 \U00016ff4 \u1c89 \ud7a3", "-_-__--_ __init__ a_b snake_case",
    "<|endoftext|>", "a<|endoftext|>b", "<|im_start|>user\nHi<|im_end|>\n", "<|im_start|", "<|im<|im_start|>",
    "  <mask>  x", "x <mask>y", "x  <left>  y", "x  <right>  y", "word wordy sword (word) word_ word",
    "word", " word ", "wordword", "<|im_end|><|im_end|>  <mask><mask>  ", "caf\u00e9! cafe\u0301! caf\u00e9!!",
    "<right>   <left>", "\u00e9word word\u0301", "a" * 300, "ab " * 100, "  \r\n \r x \r\n", "…\n\n", "!\r\n\r\n x", " !\n y",
]


def added(extra_normalized):
    tokens = [AddedToken("<|endoftext|>", special=True, normalized=False),
              AddedToken("<|im_start|>", special=True, normalized=False),
              AddedToken("<|im_end|>", special=True, normalized=False),
              AddedToken("<mask>", special=True, normalized=False, lstrip=True),
              AddedToken("<left>", special=False, normalized=False, lstrip=True),
              AddedToken("<right>", special=False, normalized=False, rstrip=True),
              AddedToken("word", special=False, normalized=False, single_word=True),
              AddedToken("<|im", special=False, normalized=False)]
    if extra_normalized:
        tokens += [AddedToken("cafe\u0301!", special=False, normalized=True),
                   AddedToken("\u00e9", special=False, normalized=True, single_word=True)]
    return tokens


def train(name, normalizer, pre, vocab_size=700):
    tok = Tokenizer(models.BPE())
    if normalizer is not None:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre
    tok.decoder = decoders.ByteLevel()
    alphabet = [] if name == "smollm" else pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=alphabet))
    tok.add_tokens(added(name in ("qwen2", "gpt2")))
    tok.add_special_tokens([t for t in added(False) if t.special])
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok


def split(regex):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def build():
    byte_level = pre_tokenizers.ByteLevel
    gpt2 = train("gpt2", None, byte_level(add_prefix_space=False))
    prefix = train("prefix", None, byte_level(add_prefix_space=True))
    llama3 = train("llama3", None, split(LLAMA3))
    start = llama3.token_to_id("<|im_start|>")
    llama3.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|im_start|> $A", pair="<|im_start|> $A $B:1",
                                      special_tokens=[("<|im_start|>", start)])])
    qwen2 = train("qwen2", normalizers.NFC(), split(QWEN2))
    smollm = train("smollm", None, pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level(add_prefix_space=False)]))
    return {"gpt2": gpt2, "prefix": prefix, "llama3": llama3, "qwen2": qwen2, "smollm": smollm}


def finish(name, tok):
    """What the training interface can't set: ignore_merges, merges as strings, a whole word without merges."""
    data = json.loads(tok.to_str())
    if name == "llama3":
        data["model"]["ignore_merges"] = True
        vocab, wholes = data["model"]["vocab"], ["Ġdiscards", "ĠHello", "33333"]
        first = len(vocab)
        vocab.update({whole: first + i for i, whole in enumerate(wholes)})
        for token in data["added_tokens"]:
            token["id"] += len(wholes) if token["id"] >= first else 0
        for token in data["post_processor"]["processors"][1]["special_tokens"].values():
            token["ids"] = [i + len(wholes) for i in token["ids"]]
    if name in ("gpt2", "qwen2"):
        data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
    return data


def write_gguf(path, data, pre):
    """Flags of added tokens have no place in the format: the flagged ones become unused tokens."""
    vocab, added_ids = data["model"]["vocab"], {t["id"]: t for t in data["added_tokens"]}
    texts = {i: t for t, i in vocab.items()}
    texts.update({i: t["content"] for i, t in added_ids.items()})
    flagged = {i for i, t in added_ids.items() if t["lstrip"] or t["rstrip"] or t["single_word"]}
    kinds = [5 if i in flagged else 3 if i in added_ids and added_ids[i]["special"] else 4 if i in added_ids else 1
             for i in range(len(texts))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([texts[i] for i in range(len(texts))])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(m) for m in data["model"]["merges"]])
    ids = {t["content"]: t["id"] for t in data["added_tokens"]}
    writer.add_bos_token_id(ids["<|im_start|>"])
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_eot_token_id(ids["<|endoftext|>"])
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.role }}...{% endfor %}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def main():
    out = sys.argv[1]
    for name, tok in build().items():
        folder = os.path.join(out, name)
        os.makedirs(folder, exist_ok=True)
        data = finish(name, tok)
        tok = Tokenizer.from_str(json.dumps(data))
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
            json.dump(data, f, ensure_ascii=name == "gpt2", indent=None if name == "qwen2" else 1)
        with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
            json.dump({"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>", "special": True},
                       "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}...{% endfor %}"}, f)
        if name in ("smollm", "llama3"):
            write_gguf(os.path.join(out, name + ".gguf"), data, {"llama3": "llama-bpe"}.get(name, name))
        with open(os.path.join(out, name + ".cases.jsonl"), "w", encoding="utf-8") as f:
            for text in TEXTS:
                tok.encode_special_tokens = False
                case = {"text": text, "ids": tok.encode(text).ids,
                        "bare": tok.encode(text, add_special_tokens=False).ids}
                tok.encode_special_tokens = True
                case["plain"] = tok.encode(text, add_special_tokens=False).ids
                f.write(json.dumps(case) + "\n")


if __name__ == "__main__":
    main()
