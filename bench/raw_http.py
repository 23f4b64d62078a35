"""The limit of the cold path: raw_http.c does nothing but GET."""

import json
import os
import pathlib
import subprocess
import typing

PROGRAM = os.environ.get("GRANARY_RAW_HTTP", str(pathlib.Path(__file__).resolve().parents[1] /
                                                 "build/bench/raw_http"))


class Speed(typing.NamedTuple):
    files: float  # or ranges, a second
    bytes: float


def get(requests, connections, file=None):
    """Of requests "URL" or "URL FIRST-LAST", over so many kept connections; ranges go into the file."""
    done = subprocess.run([PROGRAM, str(connections), *([file] if file else [])], input="\n".join(requests), check=True,
                          text=True, capture_output=True)
    result = json.loads(done.stdout)
    if result["failed"]:
        raise AssertionError(f"the raw client failed {result['failed']} times")
    return Speed(result["files"] / result["seconds"], result["bytes"] / result["seconds"])
