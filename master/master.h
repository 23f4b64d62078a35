/*
 * The master: datasets, snapshots, workers, mounts, jobs, and what each dataset is granted of the
 * cache and each job of the origins.
 *
 * State in RocksDB below state_dir/master (every write that a user sees is synced), manifests below
 * state_dir/manifests. The data path never waits for it.
 *
 * Memory, at worst: 32 MiB (RocksDB and code), 112 MiB for each running import of at most 4, 8 KiB
 * for each dataset of at most 10,000 and 6 MiB for all their configuration, 2 KiB for each worker
 * of at most 4,096 and 512 bytes for each dataset that it has blocks of, 9 KiB for each mount of at
 * most 65,536, 2 KiB for each job of at most 4,096, and 16 MiB for each call being answered.
 */
#pragma once

#include "common/error.h"
#include "common/rpc/rpc.h"
#include "origin/limits.h"
#include "scheduler/problem.h"

struct master;

struct master_options {
	const char *state_dir;		     /* made when missing, 0700 */
	const struct origin_limits *origins; /* copied; NULL: no limits */
	/* How cache and bandwidth are divided among jobs. */
	enum gpu_policy policy;
	enum storage_policy storage;
};

/* Opens the state and adds DatasetService, JobService and ClusterService to a server that is not
 * started yet.
 */
int master_new(const struct master_options *opts, struct rpc_server *server, struct master **ret,
	struct error *err);
/* Starts its threads: lost peers, garbage collection. */
int master_start(struct master *m, struct error *err);
void master_free(struct master *m); /* after the server is stopped; NULL is fine */
