"""Pages that a virtual machine has handed back to its host."""

import contextlib
import mmap
import os

MOST_BYTES = 3 << 29  # more than any side writes or reads
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, since Linux 5.14


def back():
    """Has the host put memory behind free pages again. Right before a side is measured.

    A machine that reports its free pages to its host loses them within seconds, and whoever takes one
    next waits for the host. Where this was measured ext4 took writes of 4 MiB at 5.1 GB/s or at
    0.45 GB/s, and which of the two was left to what had run before. Only whole 2 MiB are reported, so
    these are what is taken here, and let go of.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with mmap.mmap(-1, min(MOST_BYTES, free // 2),
                   flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        with contextlib.suppress(OSError):  # a kernel without large pages reports none
            taken.madvise(mmap.MADV_HUGEPAGE)
            taken.madvise(POPULATE_WRITE)
