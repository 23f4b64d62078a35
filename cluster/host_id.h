/*
 * Which host this is: equal for every process under one running kernel, whatever its mount, pid or
 * network namespace, and different for any two kernels. A mount whose host id is a worker's may use
 * that worker's local short circuit.
 *
 * It is the kernel's boot id, which no namespace virtualises. A container runtime that is a kernel
 * of its own (gVisor, Kata) has its own, and rightly so: descriptors cannot pass between them.
 */
#pragma once

#include "common/error.h"

#define HOST_ID_TEXT_BYTES 64

/* -EIO when /proc does not tell: then there is no short circuit, everything else works. */
int host_id_get(char ret_text[static HOST_ID_TEXT_BYTES], struct error *err);
