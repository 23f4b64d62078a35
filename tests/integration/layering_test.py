#!/usr/bin/env python3
"""Holds the includes of every folder against the may-use table of docs/architecture.md."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SYSTEM_OWNERS = {"grpc/": {"common/rpc"}, "libs3.h": {"origin"}, "curl/": {"origin"}, "rocksdb/": {"common/database", "master", "store"}}


def may_use_table():
    """Folder -> set of folders, from the table's rows `| `folder/` | what | `a/`, `b/` |`."""
    table = {}
    for line in (ROOT / "docs/architecture.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 3 or not cells[0].startswith("`"):
            continue
        folder = cells[0].strip("`").rstrip("/")
        table[folder] = {name.rstrip("/") for name in re.findall(r"`([^`]+)/`", cells[2])}
        if cells[2] == "all":
            table[folder] = None
    return table


def folder_of(path, folders):
    """The longest folder of the table that holds the path."""
    best = ""
    for folder in folders:
        if path.startswith(folder + "/") and len(folder) > len(best):
            best = folder
    return best


def included_folder(include, folders):
    if include.endswith(".pb-c.h"):
        return "proto"
    return folder_of(include, folders)


def main():
    table = may_use_table()
    # The checkout may be somebody else's: in a container it often is.
    files = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "*.c", "*.h"], cwd=ROOT,
                           check=True, text=True, capture_output=True).stdout.split()
    wrong, checked = [], 0
    for name in files:
        folder = folder_of(name, table)
        if not folder:
            continue
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), 1):
            found = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if not found:
                continue
            checked += 1
            include = found.group(2)
            if found.group(1) == "<":
                for prefix, owners in SYSTEM_OWNERS.items():
                    if include.startswith(prefix) and folder not in owners:
                        wrong.append(f"{name}:{number}: <{include}> belongs to {sorted(owners)}")
                continue
            used = included_folder(include, table)
            if used and used != folder and table[folder] is not None and used not in table[folder]:
                wrong.append(f"{name}:{number}: {folder}/ may not use {used}/ ({include})")
    for text in wrong:
        print(text)
    if checked < 100:
        print(f"only {checked} includes found: is the table still read right?")
        return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
