#include "scheduler/level.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>

#define STEPS_MAX 400
#define CREEPS_MAX 8
#define ROUNDING 1e-13

/* The result lies in [low, high]; `at` is the point that was looked at last. */
struct bracket {
	double low, high;
	double at, value, slope;
	bool top_open; /* nobody looked at `high`, which may be the result */
};

static void look(struct bracket *b, level_fn *fn, void *arg, double level, double target)
{
	b->at = level;
	b->value = fn(arg, level, &b->slope);
	if (b->value <= target) {
		b->low = level;
	} else {
		b->high = level;
		b->top_open = false;
	}
}

/* Where the line through the last point meets the target: of a concave total never beyond the
 * result, from whichever side. */
static double newton(const struct bracket *b, double target)
{
	double next = b->slope > 0 ? b->at + (target - b->value) / b->slope : b->high;

	if (next >= b->high)
		return b->top_open ? b->high : b->low + (b->high - b->low) / 2;
	return next > b->low ? next : b->low + (b->high - b->low) / 2;
}

static bool met(const struct bracket *b, double target)
{
	return fabs(b->value - target) <= ROUNDING * target;
}

double level_solve(level_fn *fn, void *arg, double top, double target, double guess)
{
	struct bracket b = {.high = level_least(top, DBL_MAX), .top_open = true};
	int creeps = 0;

	look(&b, fn, arg, guess < b.high ? guess : 0, target);
	for (int i = 0; i < STEPS_MAX && !met(&b, target); i++) {
		double width = b.high - b.low, next = newton(&b, target);

		/* Steps that leave most of the bracket are fine a few times. */
		if (creeps >= CREEPS_MAX && !b.top_open) {
			next = b.low + width / 2;
			creeps = 0;
		}
		if (!(next > b.low && (next < b.high || b.top_open)))
			break;
		look(&b, fn, arg, next, target);
		if (b.low == b.high)
			return b.high;
		creeps += b.high - b.low > width / 2;
	}
	return met(&b, target) ? b.at : b.low;
}
