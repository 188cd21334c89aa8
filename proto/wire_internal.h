/* wire_internal.h - what wire.c and wire_decode.c share: text rules and field lengths. */
#ifndef FL_PROTO_WIRE_INTERNAL_H
#define FL_PROTO_WIRE_INTERNAL_H

#include "proto/wire.h"

/* Which kinds carry no session nonce: they come before a session exists. */
bool fl_wire_is_sessionless(enum fl_wire_kind kind);

#endif
