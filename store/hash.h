/*
 * XXH3 as the store uses it. Where the library was built with it, the variant that chooses the
 * processor's widest instructions at run time: half the time of the plain one with AVX2.
 */
#pragma once

/* The streaming state lives on the stack; its layout is fixed since 0.8. */
#define XXH_STATIC_LINKING_ONLY
#ifdef GRANARY_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif
