#include "cli/commands.h"

#include <stddef.h>

static const struct flag general_flags[] = {
	{"config", 0, FLAG_TEXT, "FILE", NULL, NULL, "Read settings from FILE (name = value)"},
	{"log-level", 0, FLAG_CHOICE, "LEVEL", "error,warn,info,debug", "info", "How much to log"},
	{"output", 'o', FLAG_CHOICE, "FORMAT", "table,json", "table",
		"A table for people or json for programs"},
	{0},
};

static const struct flag master_flags[] = {
	{"master", 0, FLAG_ADDRESS, "ADDRESS", NULL, NULL,
		"The master: unix:PATH or HOST:PORT; without it the one of the state "
		"directory"},
	{"state-dir", 0, FLAG_TEXT, "DIR", NULL, NULL,
		"Where the state is (as root /var/lib/granary, else "
		"~/.local/state/granary)"},
	{"token-file", 0, FLAG_TEXT, "FILE", NULL, NULL,
		"The secret that HOST:PORT addresses want, one word"},
	{0},
};

static const struct flag state_flags[] = {
	{"state-dir", 0, FLAG_TEXT, "DIR", NULL, NULL,
		"Where the state is (as root /var/lib/granary, else "
		"~/.local/state/granary)"},
	{"listen", 0, FLAG_ADDRESS, "HOST:PORT", NULL, NULL,
		"Serve other hosts too; wants --token-file"},
	{"advertise", 0, FLAG_ADDRESS, "HOST:PORT", NULL, NULL,
		"How other hosts reach what listens (this host's name where --listen names every "
		"address)"},
	{"token-file", 0, FLAG_TEXT, "FILE", NULL, NULL,
		"The secret that callers of HOST:PORT have to know, one word"},
	{"group", 0, FLAG_TEXT, "NAME", NULL, NULL, "Users of this group may use the unix socket"},
	{"metrics", 0, FLAG_ADDRESS, "HOST:PORT", NULL, NULL,
		"Serve Prometheus metrics there (always on the unix socket "
		"*.metrics.sock in the state directory)"},
	{"daemon", 0, FLAG_SWITCH, NULL, NULL, NULL,
		"Go to the background once everything answers; logs go to the state "
		"directory"},
	{0},
};

static const struct flag cache_flags[] = {
	{"cache-dir", 0, FLAG_TEXT, "DIR", NULL, NULL,
		"Where cached blocks are (as root /var/cache/granary, else "
		"~/.cache/granary)"},
	{"cache-size", 0, FLAG_SIZE, "SIZE", NULL, NULL,
		"The most that the cache may take (80 % of what is free)"},
	{"free-floor", 0, FLAG_SIZE, "SIZE", NULL, NULL,
		"Never leave less than this free on the filesystem (5 % of it)"},
	{"scrub-rate", 0, FLAG_RATE, "RATE", NULL, NULL,
		"Read the stored blocks again at this rate to find damage, or off (all of them "
		"once a week)"},
	{0},
};

static const struct flag mount_flags[] = {
	{"allow-other", 0, FLAG_SWITCH, NULL, NULL, NULL,
		"Other users may read the mount (the default for root)"},
	{"uid", 0, FLAG_NUMBER, "UID", NULL, NULL,
		"Owner of files whose origin knows none (yourself)"},
	{"gid", 0, FLAG_NUMBER, "GID", NULL, NULL, "Group of such files"},
	{"job", 0, FLAG_TEXT, "NAME", NULL, NULL,
		"The training job that reads here; started when it is unknown"},
	{"mode", 0, FLAG_CHOICE, "MODE", "auto,no-open,open", "auto",
		"How files are opened; auto looks at the file sizes"},
	{"order-memory", 0, FLAG_SIZE, "SIZE", NULL, "64MiB",
		"What may be held that was announced and not read yet"},
	{"no-preload", 0, FLAG_SWITCH, NULL, NULL, NULL,
		"Do not give small files to the kernel before they are asked for"},
	{"no-passthrough", 0, FLAG_SWITCH, NULL, NULL, NULL,
		"Do not let the kernel read cached large files by itself"},
	{"sample", 0, FLAG_TEXT, "PERCENT", NULL, NULL,
		"Of the dataset, that is always asked for again, so that the job is seen to read; 0: "
		"nothing (1 % with --job)"},
	{"read-timeout", 0, FLAG_NUMBER, "SECONDS", NULL, "60",
		"A read that nobody could answer by then fails"},
	{0},
};

static const struct flag sharing_flags[] = {
	{"origin-limit", 0, FLAG_LIMITS, "[PREFIX=]RATE", NULL, NULL,
		"All origins together, at most, over all workers: 10Gbps, 1GB/s (not limited); with "
		"PREFIX those whose URL begins so: s3://bucket=2Gbps. May be given again"},
	{"policy", 0, FLAG_CHOICE, "POLICY", "fifo,sjf,max-min", "max-min",
		"By what jobs share cache and origin bandwidth"},
	{"storage", 0, FLAG_CHOICE, "ALLOCATOR", "joint,lru,private,whole", "joint",
		"How they are divided: joint, or as other caches do"},
	{0},
};

/* Besides these come the options that origin/options.c declares. */
static const struct flag origin_flags[] = {
	{"include", 0, FLAG_LIST, "GLOB", NULL, NULL, "Only files that match; may be given again"},
	{"exclude", 0, FLAG_LIST, "GLOB", NULL, NULL,
		"Not the files that match; may be given again"},
	{"no-sign-request", 0, FLAG_SWITCH, NULL, NULL, NULL,
		"S3: public bucket, use no credentials"},
	{0},
};

static const struct flag up_flags[] = {
	{"name", 0, FLAG_TEXT, "NAME", NULL, NULL,
		"The dataset's name (the last part of the origin)"},
	{"quota", 0, FLAG_QUOTA, "SIZE", NULL, NULL,
		"Cache for this dataset, or unlimited; only when it is new"},
	{"refresh", 0, FLAG_SWITCH, NULL, NULL, NULL,
		"List the origin again before mounting a known dataset"},
	{0},
};

static const struct flag add_flags[] = {
	{"quota", 0, FLAG_QUOTA, "SIZE", NULL, NULL, "Cache for this dataset, or unlimited"},
	{0},
};

static const struct flag refresh_flags[] = {
	{"switch", 0, FLAG_SWITCH, NULL, NULL, NULL,
		"Move live mounts to the new snapshot; without it only new mounts see "
		"it"},
	{0},
};

static const struct flag rm_flags[] = {
	{"force", 0, FLAG_SWITCH, NULL, NULL, NULL, "Also while it is mounted"},
	{0},
};

static const struct flag umount_flags[] = {
	{"lazy", 0, FLAG_SWITCH, NULL, NULL, NULL,
		"Detach now, even while files are open; ends when they are closed"},
	{0},
};

static const struct flag purge_flags[] = {
	{"state-dir", 0, FLAG_TEXT, "DIR", NULL, NULL, "The state directory to remove"},
	{"cache-dir", 0, FLAG_TEXT, "DIR", NULL, NULL, "The cache directory to remove"},
	{"yes", 0, FLAG_SWITCH, NULL, NULL, NULL, "Do it"},
	{0},
};

static const struct flag doctor_flags[] = {
	{"state-dir", 0, FLAG_TEXT, "DIR", NULL, NULL, "The state directory to look at"},
	{"cache-dir", 0, FLAG_TEXT, "DIR", NULL, NULL, "The cache directory to look at"},
	{0},
};

static const struct flag epoch_flags[] = {
	{"epochs", 0, FLAG_NUMBER, "N", NULL, "2", "How often to read everything"},
	{"readers", 0, FLAG_NUMBER, "N", NULL, "4", "Processes that read at once"},
	{"seed", 0, FLAG_NUMBER, "N", NULL, "1", "Of the shuffles"},
	{"announce", 0, FLAG_SWITCH, NULL, NULL, NULL,
		"Tell the mount the order of each epoch, as `hint` does"},
	{"limit", 0, FLAG_NUMBER, "FILES", NULL, NULL, "Read only so many files"},
	{0},
};

static const struct flag hint_flags[] = {
	{"null", '0', FLAG_SWITCH, NULL, NULL, NULL, "Lines end with a NUL instead of a newline"},
	{"records", 0, FLAG_SWITCH, NULL, NULL, NULL,
		"Lines are OFFSET BYTES PATH, ranges of files in bytes"},
	{0},
};

static const struct flag job_flags[] = {
	{"dataset", 0, FLAG_TEXT, "NAME", NULL, NULL, "What it reads; a known job keeps its own"},
	{"gpus", 0, FLAG_NUMBER, "N", NULL, NULL, "How many it has (1)"},
	{"ideal-rate", 0, FLAG_RATE, "RATE", NULL, NULL,
		"What all its GPUs together consume when nothing waits for data: 800MB/s"},
	{"weight", 0, FLAG_TEXT, "W", NULL, NULL, "Of max-min fairness: twice is twice (1)"},
	{"epochs", 0, FLAG_NUMBER, "N", NULL, NULL, "How often it reads everything"},
	{"min-rate", 0, FLAG_RATE, "RATE", NULL, NULL,
		"Origin bandwidth that it is granted first, as far as it can use it"},
	{"irregular", 0, FLAG_SWITCH, NULL, NULL, NULL,
		"Does not read by epochs (curricula, random subsets)"},
	{0},
};

static const struct flag top_flags[] = {
	{"interval", 0, FLAG_NUMBER, "SECONDS", NULL, "2", "How often to show it anew"},
	{"count", 0, FLAG_NUMBER, "N", NULL, NULL, "How often in all (until Ctrl-C)"},
	{0},
};

static const struct flag live_flags[] = {
	{"live", 0, FLAG_SWITCH, NULL, NULL, NULL,
		"Ask the running cluster what one more job would do to it; --dataset and the flags "
		"of `job start` describe that job"},
	{0},
};

static const struct flag plan_flags[] = {
	{"policy", 0, FLAG_CHOICE, "POLICY", "fifo,sjf,max-min", "max-min", "Who gets GPUs"},
	{"storage", 0, FLAG_CHOICE, "ALLOCATOR", "joint,lru,private,whole", "joint",
		"How cache and origin bandwidth are divided among those"},
	{0},
};

static const struct flag sim_flags[] = {
	{"trace", 0, FLAG_TEXT, "FILE", NULL, NULL,
		"Jobs: a CSV file with timestamp, duration and num_gpus (made up)"},
	{"jobs", 0, FLAG_NUMBER, "N", NULL, "5000", "How many of the trace, drawn by the seed"},
	{"gpus", 0, FLAG_NUMBER, "N", NULL, "400", "GPUs of the cluster"},
	{"cache", 0, FLAG_SIZE, "SIZE", NULL, "28TB", "Cache of the cluster"},
	{"origin-limit", 0, FLAG_RATE, "RATE", NULL, "32Gbps", "Bandwidth of all origins together"},
	{"policy", 0, FLAG_CHOICE, "POLICY", "all,fifo,sjf,max-min", "all", "Who gets GPUs"},
	{"storage", 0, FLAG_CHOICE, "ALLOCATOR", "all,joint,lru,private,whole", "all",
		"How cache and origin bandwidth are divided among those"},
	{"datasets", 0, FLAG_NUMBER, "N", NULL, "100",
		"How many the jobs share among them; 0 is one for each"},
	{"load", 0, FLAG_NUMBER, "PERCENT", NULL, "100",
		"Arrivals are stretched until the jobs would keep this share of the GPUs busy "
		"without waiting for IO; 0 leaves them as they are"},
	{"mix", 0, FLAG_TEXT, "SHARES", NULL, "1,1,1", "Of unet3d, resnet50 and cosmoflow"},
	{"seed", 0, FLAG_NUMBER, "N", NULL, "1", "Of all that is drawn"},
	{"plot", 0, FLAG_TEXT, "FILE", NULL, NULL, "Draw the results into an SVG file"},
	{0},
};

static const struct flag man_flags[] = {
	{"dir", 0, FLAG_TEXT, "DIR", NULL, ".", "Where to write the pages"},
	{0},
};

const struct command commands[] = {
	{"up", "ORIGIN MOUNTPOINT", 2, 2, "Mount a dataset here: master, worker and mount in one",
		"ORIGIN is s3://BUCKET/PREFIX, http(s)://HOST/PATH/, file:///DIR or a "
		"directory. The first time it is listed; later the last listing is used "
		"and --refresh makes a new one. A second `up` adds its dataset to the "
		"process that runs.\n"
		"\n"
		"  granary up s3://bucket/imagenet /mnt/imagenet\n"
		"  granary up s3://bucket/set /mnt/set --endpoint http://minio:9000\n"
		"  granary up https://host/data/ /mnt/data --quota 200G --daemon",
		{general_flags, up_flags, mount_flags, cache_flags, sharing_flags, state_flags,
			origin_flags},
		command_up},
	{"mount", "[DATASET] MOUNTPOINT", 1, 2, "Mount a dataset that a master knows",
		"A small process without threads supervises the one that serves the mount, and "
		"starts another when that one dies: who reads waits for a moment. With --takeover "
		"this granary, of another version perhaps, goes on with a mount that is there; it "
		"keeps the options that it was mounted with.\n"
		"\n"
		"  granary mount imagenet /mnt/imagenet\n"
		"  granary mount imagenet /mnt/in --master node1:9400 --token-file T\n"
		"  granary mount --takeover /mnt/imagenet --daemon",
		{general_flags, mount_flags, master_flags,
			(const struct flag[]){{"metrics", 0, FLAG_ADDRESS, "HOST:PORT", NULL, NULL,
						      "Serve Prometheus metrics there"},
				{"takeover", 0, FLAG_SWITCH, NULL, NULL, NULL,
					"Go on with the mount that another process serves, "
					"while it is read"},
				{"daemon", 0, FLAG_SWITCH, NULL, NULL, NULL,
					"Go to the background once the mount "
					"answers"},
				{0}}},
		command_mount},
	{"umount", "MOUNTPOINT", 1, 1, "Unmount; the last mount of an `up` ends it",
		"  granary umount /mnt/imagenet", {general_flags, umount_flags}, command_umount},
	{"dataset add", "NAME ORIGIN", 2, 2, "List an origin and make it a dataset",
		"A pattern without / matches file names; * does not cross /, ** does.\n"
		"\n"
		"  granary dataset add imagenet s3://bucket/imagenet --exclude '*.tmp'",
		{general_flags, master_flags, add_flags, origin_flags}, command_dataset_add},
	{"dataset refresh", "NAME", 1, 1, "List the origin again: the next snapshot",
		"  granary dataset refresh imagenet --switch",
		{general_flags, master_flags, refresh_flags}, command_dataset_refresh},
	{"dataset ls", "", 0, 0, "All datasets", NULL, {general_flags, master_flags},
		command_dataset_ls},
	{"dataset stat", "NAME", 1, 1, "Everything about a dataset", NULL,
		{general_flags, master_flags}, command_dataset_stat},
	{"dataset rm", "NAME", 1, 1, "Forget a dataset and its cached blocks",
		"The origin is never touched.", {general_flags, master_flags, rm_flags},
		command_dataset_rm},
	{"quota set", "DATASET SIZE", 2, 2, "Give a dataset cache of its own, or `unlimited`",
		"Sizes: 500G = 500GB = 500,000,000,000; 1.5TiB.\n"
		"\n"
		"  granary quota set imagenet 80GB\n"
		"  granary quota set imagenet unlimited",
		{general_flags, master_flags}, command_quota_set},
	{"quota ls", "", 0, 0, "Quotas and what is granted and cached", NULL,
		{general_flags, master_flags}, command_quota_ls},
	{"job start", "NAME", 1, 1, "Tell the master of a training job",
		"A job gets a part of the cache and of the origins' bandwidth by how fast it could "
		"read (--ideal-rate). A mount says which job it is for. For a job that is known the flags "
		"change what they name.\n"
		"\n"
		"  granary job start resnet --dataset imagenet --gpus 8 --ideal-rate 800MB/s\n"
		"  granary job end resnet",
		{general_flags, master_flags, job_flags}, command_job_start},
	{"job end", "NAME", 1, 1, "A job is over: others get its part",
		"Its mounts go on without a job.", {general_flags, master_flags}, command_job_end},
	{"job ls", "", 0, 0, "Jobs, what they were given and what they get", NULL,
		{general_flags, master_flags}, command_job_ls},
	{"job explain", "NAME", 1, 1, "Why a job is as fast as it is",
		"Predicted by min(f*, b / (1 - c/d)) from what it was given, beside what was "
		"measured, and what more cache or more bandwidth would give.",
		{general_flags, master_flags}, command_job_explain},
	{"job top", "", 0, 0, "As `job ls`, again and again", NULL,
		{general_flags, master_flags, top_flags}, command_job_top},
	{"status", "", 0, 0, "Datasets, workers, mounts, hit ratios", NULL,
		{general_flags, master_flags}, command_status},
	{"epoch", "DIR", 1, 1, "Read a tree like a training loader: shuffled, several readers",
		"Prints files/s and MB/s of each epoch and, on a mount of Granary, the "
		"bytes that came from the origin and the hit ratio.\n"
		"\n"
		"  granary epoch /mnt/imagenet --epochs 3 --readers 8",
		{general_flags, master_flags, epoch_flags}, command_epoch},
	{"hint", "MOUNTPOINT [FILE]", 1, 2, "Announce what will be read, in order",
		"Reads paths, one a line, from FILE or (none, or -) from stdin: below the mount "
		"point, or absolute. The mount brings them ahead of the reader. A list of more "
		"than two million lines waits until the reader has read some of it.\n"
		"\n"
		"  shuf train.lst > epoch.lst; granary hint /mnt/imagenet epoch.lst\n"
		"  granary hint /mnt/set --records < ranges.txt",
		{general_flags, hint_flags}, command_hint},
	{"plan", "[FILE]", 0, 1, "What jobs would get: GPUs, cache, origin bandwidth",
		"FILE (- is stdin) is a scheduling problem in JSON: what there is, the datasets, "
		"and jobs with the rate at which each consumes data when nothing waits for IO. It "
		"is solved as a live cluster would be; nothing is changed anywhere.\n"
		"\n"
		"Policies: fifo and max-min admit by arrival, sjf the shortest first. Allocators: "
		"joint divides cache and bandwidth together by the policy's own objective (for "
		"max-min: the same multiple for all of what each would reach with an equal share); "
		"lru, private and whole are what other caches do, to compare with.\n"
		"\n"
		"  {\"capacity\": {\"gpus\": 8, \"cache_bytes\": 50e9,\n"
		"                \"remote_bytes_per_s\": 250e6},\n"
		"   \"datasets\": [{\"name\": \"imagenet\", \"bytes\": 100e9}],\n"
		"   \"jobs\": [{\"name\": \"a\", \"dataset\": \"imagenet\", \"gpus\": 4,\n"
		"             \"ideal_bytes_per_s\": 1e9, \"remaining_bytes\": 300e9,\n"
		"             \"arrival_s\": 0}]}\n"
		"\n"
		"A dataset may have min_cache_bytes and max_cache_bytes, a job "
		"min_remote_bytes_per_s, "
		"weight and irregular.\n"
		"\n"
		"  granary plan problem.json --policy sjf --storage lru -o json\n"
		"\n"
		"With --live and no FILE: what the jobs of the running cluster would get, were one "
		"more started. It advises; it starts and queues nothing.\n"
		"\n"
		"  granary plan --live --dataset imagenet --gpus 8 --ideal-rate 800MB/s",
		{general_flags, plan_flags, live_flags, job_flags, master_flags}, command_plan},
	{"sim", "[FILE]", 0, 1, "Simulate a cluster's jobs under each policy",
		"Event by event: jobs arrive, wait for GPUs, read epoch after epoch at the rate "
		"that cache and bandwidth allow, and leave. Nothing that a job missed can hit for "
		"it before its next epoch. Each job of the trace is given a model and one of its "
		"datasets by the seed. With FILE (- is stdin) the jobs and the cluster are those "
		"of a problem as `granary plan` reads it, and the end of each job is told.\n"
		"\n"
		"  granary sim --trace philly.csv --gpus 400 --cache 28TB --origin-limit 32Gbps\n"
		"  granary sim --gpus 96 --policy sjf --plot sjf.svg\n"
		"  granary sim problem.json --policy fifo",
		{general_flags, sim_flags}, command_sim},
	{"doctor", "[ORIGIN]", 0, 1, "Check this host: kernel, privileges, disk, origin",
		"Says what each missing thing costs and how to get it.",
		{general_flags, doctor_flags, origin_flags}, command_doctor},
	{"purge", "", 0, 0, "Remove cache and state of this host",
		"Everything of Granary must be stopped. Origins are never touched.",
		{general_flags, purge_flags}, command_purge},
	{"master", "", 0, 0, "Run the master of a cluster", NULL,
		{general_flags, sharing_flags, state_flags}, command_master},
	{"worker", "", 0, 0, "Run a worker: the cache of one node", NULL,
		{general_flags, cache_flags, state_flags,
			(const struct flag[]){{"master", 0, FLAG_ADDRESS, "ADDRESS", NULL, NULL,
						      "The master: unix:PATH or HOST:PORT; "
						      "without it the one of the state "
						      "directory"},
				{0}}},
		command_worker},
	{"completion", "", 0, 0, "Print bash completion", "  source <(granary completion)",
		{general_flags}, command_completion},
	{"man", "", 0, 0, "Write the man pages", NULL, {general_flags, man_flags}, command_man},
	{"version", "", 0, 0, "Print the version", NULL, {general_flags}, command_version},
	{0},
};
