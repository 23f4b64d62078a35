#include "cli/sim_plot.h"

#include <errno.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "scheduler/allocation.h"

#define PANELS 3
#define PANEL_WIDTH 300
#define PANEL_HEIGHT 220
#define MARGIN 48
#define GROUP_WIDTH ((PANEL_WIDTH - 20) / GPU_POLICIES)
#define BAR_WIDTH ((GROUP_WIDTH - 16) / STORAGE_POLICIES)

static const char *const colours[STORAGE_POLICIES] = {"#1b7f5c", "#c44e52", "#dd9c3f", "#6a7fb5"};

struct panel {
	const char *title;
	double factor; /* to the unit of the title */
	double (*value)(const struct sim_summary *s);
};

static double jct(const struct sim_summary *s)
{
	return s->average_jct_s;
}

static double utilization(const struct sim_summary *s)
{
	return s->gpu_utilization;
}

static double fairness(const struct sim_summary *s)
{
	return s->fairness;
}

static const struct panel panels[PANELS] = {
	{"average JCT, hours (less is better)", 1.0 / 3600, jct},
	{"GPU utilisation, %", 100, utilization},
	{"fairness: least rate / equal share", 1, fairness},
};

static double largest(const struct panel *p, const struct sim_outcome *outcomes, size_t count)
{
	double most = 0;

	for (size_t i = 0; i < count; i++) {
		double value = p->value(&outcomes[i].summary) * p->factor;

		most = value > most ? value : most;
	}
	return most > 0 ? most : 1;
}

static void write_bar(
	FILE *out, const struct panel *p, const struct sim_outcome *o, double left, double most)
{
	double value = p->value(&o->summary) * p->factor, height = value / most * PANEL_HEIGHT;
	double x = left + 10 + (double)o->gpus * GROUP_WIDTH + (double)o->storage * BAR_WIDTH;

	fprintf(out,
		"<rect x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%.1f\" fill=\"%s\">"
		"<title>%s, %s: %.3g</title></rect>\n",
		x, MARGIN + PANEL_HEIGHT - height, BAR_WIDTH - 2, height, colours[o->storage],
		gpu_policy_name(o->gpus), storage_policy_name(o->storage), value);
	fprintf(out,
		"<text x=\"%.1f\" y=\"%.1f\" font-size=\"8\" text-anchor=\"middle\">%.3g</text>\n",
		x + (BAR_WIDTH - 2) / 2.0, MARGIN + PANEL_HEIGHT - height - 3, value);
}

static void write_panel(FILE *out, const struct panel *p, const struct sim_outcome *outcomes,
	size_t count, double left)
{
	double most = largest(p, outcomes, count), base = MARGIN + PANEL_HEIGHT;

	fprintf(out, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", left, MARGIN - 16, p->title);
	fprintf(out, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"#333\"/>\n", left, base,
		left + PANEL_WIDTH - 20);
	for (size_t i = 0; i < count; i++)
		write_bar(out, p, &outcomes[i], left, most);
	for (int g = 0; g < GPU_POLICIES; g++)
		fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
			left + 10 + (g + 0.5) * GROUP_WIDTH - 8, base + 16, gpu_policy_name(g));
}

static void write_legend(FILE *out, int y)
{
	for (int s = 0; s < STORAGE_POLICIES; s++) {
		int x = MARGIN + s * 90;

		fprintf(out, "<rect x=\"%d\" y=\"%d\" width=\"10\" height=\"10\" fill=\"%s\"/>\n",
			x, y - 9, colours[s]);
		fprintf(out, "<text x=\"%d\" y=\"%d\">%s</text>\n", x + 14, y,
			storage_policy_name(s));
	}
}

/* Only the title comes from outside. */
static void write_escaped(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '&' || *text == '<' || *text == '>' || (unsigned char)*text < 0x20)
			fprintf(out, "&#%d;", (unsigned char)*text < 0x20 ? '?' : *text);
		else
			fputc(*text, out);
	}
}

int sim_plot_write(const char *path, const char *title, const struct sim_outcome *outcomes,
	size_t count, struct error *err)
{
	cleanup_file FILE *out = fopen(path, "we");
	int width = MARGIN + PANELS * (PANEL_WIDTH + 20), height = MARGIN + PANEL_HEIGHT + 70;

	if (!out)
		return error_set_errno(err, -errno, "cannot write %s", path);
	fprintf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
		"font-family=\"sans-serif\" font-size=\"12\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
		width, height);
	for (int i = 0; i < PANELS; i++)
		write_panel(out, &panels[i], outcomes, count, MARGIN + i * (PANEL_WIDTH + 20));
	write_legend(out, height - 32);
	fprintf(out, "<text x=\"%d\" y=\"%d\" font-size=\"10\">", MARGIN, height - 10);
	write_escaped(out, title);
	fputs("</text>\n</svg>\n", out);
	return fflush(out) != 0 ? error_set_errno(err, -errno, "cannot write %s", path) : 0;
}
