#!/usr/bin/env python3
"""Frozen scores of published implementations, one pair of texts a line, written to metrics.jsonl:
exact_match and f1 as torchmetrics' SQuAD scores one prediction against one answer, rouge_l as
Google's rouge_score without stemming; and Python's str.lower and str.strip.
usage: make_metrics.py     (needs torchmetrics, rouge-score)
"""
import json
import os
import random

from rouge_score import rouge_scorer
from torchmetrics.functional.text.squad import (_compute_exact_match_score, _compute_f1_score)

PAIRS = [
    ("", ""), ("", "cat"), ("cat", ""), ("the", "a"), ("The", ""), ("...", "!"),
    ("The cat sat.", "the cat sat"), ("cat the sat", "a cat sat"), ("a a a", "a"),
    ("sat cat", "cat sat"), ("The  cat\tsat\non", "cat sat on"), ("another", "an other"),
    ("theatre a", "theatre"), ("x-y z", "xy z"), ("it's", "its"), ("$1,000.50", "1000.50"),
    ("under_score", "underscore"), ("Ünïcödé ŒUVRE", "ünïcödé œuvre"), ("İstanbul", "i̇stanbul"),
    ("\u212Aelvin 300", "kelvin 300"), ("日本語 の text", "日本語 text"), ("the—cat", "cat"),
    ("naïve the-end", "naïve theend"), ("a\u00a0cat", "cat"), ("a\u2003b", "b"), ("x\x1cy", "x y"),
    ("ÀÈ the ÎÔ", "àè îô"), ("один два ТРИ", "Один ДВА три"), ("1 2 3 4 5", "1 3 5 2 4"),
    ("the quick brown fox jumps over the lazy dog", "the lazy dog jumps over the quick brown fox"),
    ("To be, or not to be", "to be or not to be: that is the question"), ("an", "an an"),
    ("word\u0301 the", "word\u0301"), ("a\u0301 b", "b"), ("ǅ Ǆ", "ǆ ǆ"), ("ⅷ Ⅷ", "ⅷ ⅷ"),
]
WORDS = ["a", "an", "the", "The", "cat", "Cat.", "dog", "runs,", "fast", "42", "3.14", "it's", "-",
         "naïve", "ÉTÉ", "\n", "  ", "and", "(and)", "x_y"]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    random.seed(7)
    pairs = list(PAIRS)
    for _ in range(120):
        make = lambda: " ".join(random.choices(WORDS, k=random.randint(0, 14)))
        pairs.append((make(), make()))
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    with open(os.path.join(here, "metrics.jsonl"), "w") as file:
        for text, reference in pairs:
            row = {"text": text, "reference": reference,
                   "exact_match": float(_compute_exact_match_score(text, reference)),
                   "f1": float(_compute_f1_score(text, reference)),
                   "rouge_l": scorer.score(reference, text)["rougeL"].fmeasure,
                   "accuracy": float(text.strip() == reference.strip()), "lower": text.lower()}
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
