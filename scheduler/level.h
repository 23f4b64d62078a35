/*
 * Water filling: the highest level whose total still fits. Everything here that is max-min fair is
 * one such level: bandwidth for those who ask, cache by rate, a common multiple of a fair share.
 */
#pragma once

/* The total at a level >= 0, and how fast it grows to the right of it. It is finite, piecewise linear
 * and does not fall. */
typedef double level_fn(void *arg, double level, double *ret_slope);

/* The highest level in [0, top] with fn(level) <= target, or 0 when even that is over it. Exact to
 * rounding: where the total is concave these are Newton's steps from the left, which end on the
 * linear piece that meets the target; bisection keeps it safe where it is not. A guess near the
 * result saves steps, 0 is none. */
double level_solve(level_fn *fn, void *arg, double top, double target, double guess);

/* fmin and fmax without their care for NaN, which costs a call; nothing here is NaN. */
static inline double level_least(double a, double b)
{
	return a < b ? a : b;
}

static inline double level_most(double a, double b)
{
	return a > b ? a : b;
}
