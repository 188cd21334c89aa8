/*
 * attempt.h - how the attempts at a round are numbered, and in which order they come.
 *
 * A coordinator counts the attempts at a round from 1. A copy of its database (a backup) cannot
 * know how far the original counted afterwards, and no site can tell: each knows its own last
 * attempt only. So each life of a coordinator counts in a hundred of its own: 1.., 101.., 201..; a
 * job keeps its hundred from round to round, and a round that has used it up ends in a pause, since
 * the next number is the first of a copy's. A later hundred comes after all of an earlier one,
 * whatever the rounds: a job that goes on from an older version does earlier rounds again.
 * Threads: pure functions.
 */
#ifndef FL_JOB_ATTEMPT_H
#define FL_JOB_ATTEMPT_H

#include <stdbool.h>
#include <stdint.h>

#define FL_ATTEMPT_HUNDRED 100u

/* The hundred that an attempt was counted in. */
static inline uint32_t fl_attempt_life(uint32_t attempt)
{
    return attempt / FL_ATTEMPT_HUNDRED;
}

/* Would the attempt behind it be counted in another life's hundred? */
static inline bool fl_attempt_is_last(uint32_t attempt)
{
    return attempt % FL_ATTEMPT_HUNDRED == FL_ATTEMPT_HUNDRED - 1;
}

/* Does attempt a of round ra come before attempt b of round rb? */
static inline bool fl_attempt_before(uint32_t ra, uint32_t a, uint32_t rb, uint32_t b)
{
    if (fl_attempt_life(a) != fl_attempt_life(b))
        return a < b;
    return ra < rb || (ra == rb && a < b);
}

/* The first attempt of the next hundred; stays where numbers end. */
static inline uint32_t fl_attempt_next_life(uint32_t attempt)
{
    uint32_t life = fl_attempt_life(attempt);
    return life >= UINT32_MAX / FL_ATTEMPT_HUNDRED - 1 ? attempt
                                                       : (life + 1) * FL_ATTEMPT_HUNDRED + 1;
}

#endif
