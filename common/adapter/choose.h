/*
 * choose.h - which linears of a base are adapted, and with which rank and alpha each, out of the
 * words of a command line: what LoraConfig calls target_modules, exclude_modules,
 * layers_to_transform, rank_pattern and alpha_pattern.
 *
 * Source: huggingface/peft, check_target_module_exists() and get_pattern_key().
 * Threads: pure functions of their arguments.
 */
#ifndef FL_ADAPTER_CHOOSE_H
#define FL_ADAPTER_CHOOSE_H

#include "adapter/adapter.h"

struct fl_choice {
    const char *targets; /* as for fl_inventory_select() */
    const char *exclude; /* names or ends of names, separated by commas; NULL: none */
    const char *layers;  /* numbers and ranges of blocks, "0,4-7"; NULL: all */
    double alpha;        /* finite, > 0 */
    uint32_t rank;       /* 1..FL_RANK_MAX; cut to what a linear allows */
    /* "NAME=NUMBER,...", the first NAME that matches wins: a name, the end of one, or a regular
       expression for it, without commas; NULL: none */
    const char *rank_pattern, *alpha_pattern;
};

/*
 * The modules that are adapted, in self's order; *out is new. FL_EINVAL with the option's name and
 * the entry that is wrong: it matches nothing, is no number, or nothing is left.
 */
FL_CHECKED enum fl_status fl_choose_modules(const struct fl_inventory *self,
                                            const struct fl_choice *choice,
                                            struct fl_inventory *out, struct fl_error *error);
/*
 * A = B = 0 for each of those modules, with the rank and alpha that the patterns give it. *out is
 * new. FL_EINVAL: as above; a rank that the linear does not allow.
 */
FL_CHECKED enum fl_status fl_choose_adapter(const struct fl_inventory *self,
                                            const struct fl_choice *choice, struct fl_adapter **out,
                                            struct fl_error *error);

#endif
