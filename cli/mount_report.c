#include "cli/mount_report.h"

#include "cli/output.h"

void mount_report_print(const struct mount_report *r)
{
	output_json(json_pack("{s:o, s:o, s:o, s:s, s:I, s:I, s:I, s:I, s:b, s:o}", "dataset",
		output_text(r->dataset), "mountpoint", output_text(r->mountpoint), "origin",
		output_text(r->origin), "mode", r->mode, "snapshot", (json_int_t)r->snapshot,
		"files", (json_int_t)r->files, "bytes", (json_int_t)r->bytes, "pid",
		(json_int_t)r->pid, "joined", r->joined, "master", output_text(r->master)));
}
