/* The bit of a RocksDB table that ends a process which opens it (common/database/database_trial.h). */
#pragma once

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void damage_find_table(const char *dir, char path[static 512])
{
	DIR *d = opendir(dir);
	struct dirent *entry;

	assert_non_null(d);
	path[0] = '\0';
	while ((entry = readdir(d))) {
		if (strstr(entry->d_name, ".sst"))
			snprintf(path, 512, "%s/%s", dir, entry->d_name);
	}
	closedir(d);
	assert_true(path[0]);
}

/* The number of restarts at the end of a table's properties block, which has one restart at 0: its
 * top bit says that a hash index follows. */
static void damage_deadly(const char *dir)
{
	static const unsigned char end[] = {0, 0, 0, 0, 1, 0, 0, 0};
	unsigned char bytes[1 << 16], *properties, *found;
	char path[512];
	size_t len;
	FILE *f;

	damage_find_table(dir, path);
	f = fopen(path, "r+");
	assert_non_null(f);
	len = fread(bytes, 1, sizeof(bytes), f);
	properties = memmem(bytes, len, "rocksdb.block.based.table", 25);
	assert_non_null(properties);
	found = memmem(properties, len - (size_t)(properties - bytes), end, sizeof(end));
	assert_non_null(found);
	assert_int_equal(fseek(f, found - bytes + (long)sizeof(end) - 1, SEEK_SET), 0);
	assert_int_equal(fputc(0x80, f), 0x80);
	fclose(f);
}
