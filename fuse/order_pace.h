/*
 * How many gets to have in flight: more as long as that brings more bytes a second, and no more than
 * that. An origin far away rewards many, a slow one few, and neither says so.
 *
 * Gets are counted in rounds of twice the limit, 100 ms at least; the first round after a change is
 * not judged, since the gets of before end in it. From ORDER_PACE_FIRST the limit doubles until two
 * rounds in turn bring less than a tenth more than before. Then it is held, and now and then another
 * is tried, in turn a quarter more and a quarter less: more is kept when it brings 5 % more, less
 * when it costs less than 3 %. A round in which fewer were in flight than allowed judges nothing. A
 * get that fails halves the limit.
 *
 * Threading: none of its own; time is passed in.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define ORDER_PACE_FIRST 32u
#define ORDER_PACE_LEAST 4u

struct order_pace {
	unsigned limit, most;
	/* the round under way */
	int64_t began_ms; /* 0: none */
	uint64_t bytes;
	unsigned gets;
	bool short_of_work, changed;
	/* what is known */
	enum { ORDER_PACE_GROWS, ORDER_PACE_HOLDS, ORDER_PACE_TRIES } state;
	double rate;	  /* bytes a ms, of `settled` */
	unsigned settled; /* the limit to go back to */
	unsigned held;	  /* rounds since a try */
	unsigned in_vain; /* rounds that brought no growth */
	bool less;	  /* what is tried next */
};

void order_pace_init(struct order_pace *p, unsigned most);
void order_pace_done(struct order_pace *p, uint64_t bytes, int64_t now_ms);
void order_pace_failed(struct order_pace *p);
/* There is nothing to get, or no room for it. */
void order_pace_short(struct order_pace *p);
