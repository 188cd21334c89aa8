/*
 * rope.h - rotary position embedding: frequencies of the scaling kinds, and the cos/sin table.
 *
 *   inv_freq_i = theta^(-2i/D), i < D/2; angle = position * inv_freq_i (float32, as Hugging Face)
 *   linear:  inv_freq / factor
 *   llama3:  by wavelength w = 2 pi / inv_freq, L = original context: w < L/high: unchanged;
 *            w > L/low: inv_freq / factor; between: (1 - s) inv_freq / factor + s inv_freq with
 *            s = (L/w - low) / (high - low)
 *   yarn:    c(b) = D ln(L / (2 pi b)) / (2 ln theta), low = floor(c(beta_fast)) but at least 0,
 *            high = ceil(c(beta_slow)) but at most D - 1; e = 1 - clamp((i - low) / (high - low))
 *            between 0 and 1; (1 - e) inv_freq / factor + e inv_freq
 *   divisors (GGUF's rope_freqs.weight): inv_freq_i / divisor_i
 *
 * Source: Su et al., "RoFormer"; transformers' modeling_rope_utils. Layout: pairs (i, i + D/2).
 * Threads: pure.
 */
#ifndef FL_ENGINE_ROPE_H
#define FL_ENGINE_ROPE_H

#include <stddef.h>
#include <stdint.h>

enum fl_rope_kind { FL_ROPE_DEFAULT, FL_ROPE_LINEAR, FL_ROPE_LLAMA3, FL_ROPE_YARN };

struct fl_rope {
    enum fl_rope_kind kind;
    double theta;
    double factor;             /* of every kind but the default */
    double low, high;          /* llama3: low_freq_factor, high_freq_factor */
    double original_positions; /* llama3, yarn */
    double fast, slow;         /* yarn: beta_fast, beta_slow, rotations over the original context */
    double attention;          /* yarn: cosines and sines are multiplied by it */
    const float *divisors;     /* (head_dim / 2), NULL: none; borrowed */
};

/* attention_factor of yarn where the configuration states none: 0.1 ln(factor) + 1, at least 1. */
double fl_rope_yarn_attention(double factor);
/* inverse (head_dim / 2) */
void fl_rope_frequencies(const struct fl_rope *rope, uint32_t head_dim, float *inverse);
/* cosine, sine (positions, head_dim / 2) */
void fl_rope_table(const struct fl_rope *rope, uint32_t head_dim, size_t positions, float *cosine,
                   float *sine);

#endif
