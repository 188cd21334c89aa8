#!/usr/bin/env python3
"""Compare our tokenizer with its peer on random texts: ids must be equal, in every mode, and
decoding must give the bytes back (byte-level BPE) or what the peer decodes (SentencePiece's way).

usage: fuzz_tokenizer.py LIBRARY.so MODEL PEER [COUNT [SEED]]

LIBRARY.so: the static libraries of the build made into one shared object:
  gcc -shared -o L.so -Wl,--whole-archive BUILD/.../libfl_{data,format,base}.a -Wl,--no-whole-archive -lsodium -ljansson -linih
MODEL: what ours opens (a directory or a GGUF file). PEER: a tokenizer.json for Hugging Face's
tokenizers, or a .model for sentencepiece as make_tokenizer_spm.py uses it.
"""
import ctypes
import random
import sys

from tokenizers import Tokenizer

import make_tokenizer_spm as spm

SCRIPTS = [(0x20, 0x7E), (0x41, 0x7A), (0xA0, 0xFF), (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x3FF),
           (0x400, 0x4FF), (0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1780, 0x17FF),
           (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x218F), (0x2190, 0x2BFF),
           (0x3000, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xACFF), (0xF900, 0xFAFF), (0xFB00, 0xFB4F),
           (0xFE00, 0xFE0F), (0x1D100, 0x1D1FF), (0x1D7C0, 0x1D7FF), (0x1F300, 0x1F6FF), (0x20000, 0x200FF),
           (0x2F800, 0x2F8FF), (0xE0000, 0xE01FF), (0, 0x10FFFF)]
SPACES = [" ", " ", " ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", "\u00a0", "\u2003", "\u3000", "\u0085",
          "\u200b", "\v", "\f", "\u2028", " \n ", "\n "]
BITS = ["'s", "'S", "'t", "'re", "'RE", "'ve", "'m", "'ll", "'LL", "'d", "'ſ", "'", "''", "don't", "the", "The", " the",
        "ing", "Hello", " world", "1", "12", "123", "1234567", "3.14", "²", "½", "٣", "!", "...", "!!\n", "();", "\x00",
        "\x01", "\x7f", "e\u0301", "é", "\u1112\u1161\u11ab", "👩‍👩‍👧", "🇩🇪", "_", "word", "-", "→", "\u0345\u0334",
        "\u2581", "\u2581\u2581", " \u2581", "\u2581the", "<0x0A>", "lazy dog", "café!", "fox", "\u4e01\u4e02"]


class Ids(ctypes.Structure):
    _fields_ = [("ids", ctypes.POINTER(ctypes.c_int32)), ("count", ctypes.c_size_t),
                ("capacity", ctypes.c_size_t)]


class Buf(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(ctypes.c_uint8)), ("length", ctypes.c_size_t),
                ("capacity", ctypes.c_size_t), ("maximum", ctypes.c_size_t), ("status", ctypes.c_int)]


class Ours:
    def __init__(self, library, model):
        self.lib = ctypes.CDLL(library)
        self.handle = ctypes.c_void_p()
        self.error = ctypes.create_string_buffer(1024)
        if self.lib.fl_tokenizer_open(model.encode(), ctypes.byref(self.handle), self.error):
            sys.exit("open: " + self.error.raw[4:].split(b"\0")[0].decode())

    def encode(self, text, flags):
        out = Ids()
        status = self.lib.fl_tokenizer_encode(self.handle, text, ctypes.c_size_t(len(text)), flags,
                                              ctypes.byref(out), self.error)
        assert status == 0, status
        ids = out.ids[:out.count] if out.count else []
        self.lib.fl_ids_free(ctypes.byref(out))
        return ids

    def decode(self, ids):
        out = Buf()
        self.lib.fl_buf_init(ctypes.byref(out), ctypes.c_size_t(1 << 26))
        status = self.lib.fl_tokenizer_decode(self.handle, (ctypes.c_int32 * len(ids))(*ids),
                                              ctypes.c_size_t(len(ids)), ctypes.byref(out), self.error)
        assert status == 0, status
        text = bytes(out.data[:out.length]) if out.length else b""
        self.lib.fl_buf_free(ctypes.byref(out))
        return text


def text_of(rng, specials, corpus):
    parts = []
    for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 30])):
        kind = rng.random()
        if kind < 0.25:
            parts.append(rng.choice(SPACES))
        elif kind < 0.5:
            parts.append(rng.choice(BITS))
        elif kind < 0.6:
            parts.append(rng.choice(specials))
        elif kind < 0.63:
            special = rng.choice(specials)
            parts.append(special[:rng.randrange(len(special) + 1)])
        elif kind < 0.73:
            at = rng.randrange(len(corpus))
            parts.append(corpus[at:at + rng.randrange(30)])
        else:
            low, high = rng.choice(SCRIPTS)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randrange(1, 6))))
    return "".join(c for c in "".join(parts) if not 0xD800 <= ord(c) < 0xE000)


class HuggingFace:
    def __init__(self, path):
        self.peer = Tokenizer.from_file(path)
        text = open(path, encoding="utf-8").read()
        self.specials = [t.content for t in self.peer.get_added_tokens_decoder().values()]
        self.marks = "\u2581" in text or "\\u2581" in text
        # does decoding give the very bytes back?
        self.exact = not (self.marks or self.peer.normalizer or '"lstrip": true' in text or '"rstrip": true' in text
                          or '"add_prefix_space": true' in text) and all(
                              len(self.peer.encode(chr(b), add_special_tokens=False).ids) for b in range(128))

    def encode(self, text):
        """With the template, without, and with specials as text."""
        self.peer.encode_special_tokens = False
        with_template = self.peer.encode(text).ids
        bare = self.peer.encode(text, add_special_tokens=False).ids
        self.peer.encode_special_tokens = True
        return with_template, bare, self.peer.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        return self.peer.decode(ids, skip_special_tokens=False).encode()


class SentencePiece:
    def __init__(self, path):
        self.peer = spm.Spm(spm.sentencepiece.SentencePieceProcessor(model_file=path))
        self.specials, self.marks, self.exact = list(self.peer.added), True, False

    def encode(self, text):
        bare = self.peer.encode(text, False)
        return [self.peer.sp.bos_id()] + bare, bare, self.peer.encode(text, True)

    def decode(self, ids):
        return spm.decode(self.peer, ids).removeprefix(" ").encode()


def main():
    library, model, path = sys.argv[1:4]
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 20000
    rng = random.Random(int(sys.argv[5]) if len(sys.argv) > 5 else 1)
    ours = Ours(library, model)
    theirs = SentencePiece(path) if path.endswith(".model") else HuggingFace(path)
    corpus = open(__file__, encoding="utf-8").read()
    bad = 0
    for n in range(count):
        text = text_of(rng, theirs.specials, corpus)
        raw = text.encode()
        pairs = list(zip([ours.encode(raw, flags) for flags in (1, 0, 2)], theirs.encode(text)))
        same = all(a == list(b) for a, b in pairs)
        if theirs.exact:
            same = same and ours.decode(pairs[2][0]) == raw
        elif theirs.marks:
            same = same and all(ours.decode(a) == theirs.decode(b) for a, b in pairs)
        if not same:
            bad += 1
            if bad <= 3:
                print("DIFFERENT", ascii(text))
                for a, b in pairs:
                    print("  ours  ", a, ascii(ours.decode(a)), "\n  theirs", b, ascii(theirs.decode(b)))
    for n in range(count // 10):  # any bytes at all: no crash, and the same bytes back
        raw = bytes(rng.randrange(256) for _ in range(rng.randrange(60)))
        ids = ours.encode(raw, 2)
        if theirs.exact and ours.decode(ids) != raw:
            bad += 1
            print("ROUND TRIP", raw)
    print("%s: %d texts, %d differences" % (model, count, bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
