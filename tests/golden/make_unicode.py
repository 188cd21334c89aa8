#!/usr/bin/env python3
"""Write unicode_classes.c and unicode_compose.c: the character classes and the canonical composition that
Hugging Face's tokenizers uses, asked from the library itself, because its parts follow different
Unicode versions (regex engine, Rust's standard library, normaliser).

usage: make_unicode.py worker/data       (needs tokenizers; some seconds)
"""
import os
import sys
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

LETTER, NUMBER, SPACE, DIGIT, WORD, COMPOSES = 1, 2, 4, 8, 16, 32
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def matching(pattern):
    """Code points that the regex engine finds in the class."""
    gone = normalizers.Replace(Regex(pattern), "")
    return {c for c in CODE_POINTS if not gone.normalize_str(chr(c))}


def rust_numeric():
    """char::is_numeric as the Digits pre-tokenizer sees it."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return {c for c in CODE_POINTS if len(digits.pre_tokenize_str("a" + chr(c) + "a")) == 3}


def word():
    r"""\w as single_word added tokens see it."""
    tok = Tokenizer(models.BPE({"a": 0}, []))
    tok.add_tokens([AddedToken("@@", single_word=True, normalized=False)])
    return {c for c in CODE_POINTS if not tok.encode("@@" + chr(c)).ids}


def combining_classes(nfd):
    """ccc of every code point as the normaliser knows it (0 where it is too new for it)."""
    out = {}
    for c in CODE_POINTS:
        ccc = unicodedata.combining(chr(c))
        if not ccc:
            continue
        other = 0x0345 if ccc < 240 else 0x0334  # ccc 240 sorts last, ccc 1 first
        text = "a" + chr(other) + chr(c) if ccc < 240 else "a" + chr(c) + chr(other)
        if nfd.normalize_str(text) != text:
            out[c] = ccc
    return out


def ranges(values):
    """[(first, last, value)] of a dictionary, runs of equal values joined."""
    out = []
    for c in sorted(values):
        if out and out[-1][1] == c - 1 and out[-1][2] == values[c]:
            out[-1][1] = c
        else:
            out.append([c, c, values[c]])
    return out


def emit(out, kind, name, rows):
    out.append("const struct %s %s[] = {" % (kind, name))
    line = "   "
    for row in rows:
        item = " {" + ", ".join(map(str, row)) + "},"
        if len(line) + len(item) > 100:
            out.append(line)
            line = "   "
        line += item
    out += [line, "};", "const size_t %s_count = sizeof %s / sizeof %s[0];" % (name, name, name), ""]


def write(folder, name, tables):
    out = ["/*", " * %s - written by tests/golden/make_unicode.py from tokenizers %s; do not edit."
           % (name, tokenizers.__version__), " */", "// clang-format off", '#include "worker/data/unicode_tables.h"', ""]
    for table in tables:
        emit(out, *table)
    with open(os.path.join(folder, name), "w", encoding="ascii") as f:
        f.write("\n".join(out))


def main():
    nfc, nfd = normalizers.NFC(), normalizers.NFD()
    flags = {}
    for bit, members in ((LETTER, matching(r"\p{L}")), (NUMBER, matching(r"\p{N}")),
                         (SPACE, matching(r"\s")), (DIGIT, rust_numeric()), (WORD, word())):
        for c in members:
            flags[c] = flags.get(c, 0) | bit
    ccc = combining_classes(nfd)
    decompose, compose = [], []
    for c in CODE_POINTS:
        parts = unicodedata.decomposition(chr(c))
        if 0xAC00 <= c <= 0xD7A3 or not parts or parts.startswith("<"):
            continue
        if nfd.normalize_str(chr(c)) == chr(c):
            continue  # newer than the normaliser
        pair = [int(p, 16) for p in parts.split()]
        decompose.append((c, pair[0], pair[1] if len(pair) == 2 else 0))
        if nfc.normalize_str(chr(c)) == chr(c):
            assert len(pair) == 2
            compose.append((pair[0], pair[1], c))
        else:
            flags[c] = flags.get(c, 0) | COMPOSES
    for c in [c[1] for c in compose] + list(ccc) + list(range(0x1161, 0x1176)) + list(range(0x11A8, 0x11C3)):
        flags[c] = flags.get(c, 0) | COMPOSES
    compose.sort()
    write(sys.argv[1], "unicode_classes.c", [("fl_unicode_range", "fl_unicode_classes", ranges(flags)),
                                             ("fl_unicode_range", "fl_unicode_combining", ranges(ccc))])
    write(sys.argv[1], "unicode_compose.c", [("fl_unicode_triple", "fl_unicode_decompose", decompose),
                                             ("fl_unicode_triple", "fl_unicode_compose", compose)])


if __name__ == "__main__":
    main()
