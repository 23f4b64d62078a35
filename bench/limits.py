"""What no mount beats, beside the sides of peers.py: a client of the same server that only GETs,
and the same files on this machine's file system. Figures have the names of peers.Comparison's."""

import random
import resource

from harness import page_cache

import host_pages
import large_file
import peers
import raw_http

NAME = "raw client, ext4"


def cpu_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Limits:
    """small: its bucket and the folder with its files; large: its bucket and the file."""

    def __init__(self, server, small, large, connections, epochs):
        self.server, self.connections, self.epochs = server, connections, epochs
        self.small_bucket, self.folder = small
        self.large_bucket, self.file = large

    def urls(self, bucket, keys):
        return self.server.minio.signed_urls(bucket, keys, self.server.proxy.endpoint)

    def epoch(self):
        return self.epochs(self.folder, 1)[0]

    def small(self):
        sizes = {str(path.relative_to(self.folder)): path.stat().st_size
                 for path in self.folder.rglob("*") if path.is_file()}
        urls, size = self.urls(self.small_bucket, sorted(sizes)), sum(sizes.values())
        page_cache.drop(self.folder)
        host_pages.back()
        before = cpu_of_children()
        raw = raw_http.get(urls, self.connections).files
        cpu = cpu_of_children() - before
        page_cache.drop(self.folder)
        host_pages.back()
        dropped = self.epoch()
        self.epoch()
        return {"cold epoch, files/s": raw,
                "cold epoch, CPU seconds / GB": cpu / (size / 1e9),
                "page cache dropped, cache warm, files/s": dropped,
                "page cache warm, files/s": self.epoch()}

    def records(self, url):
        draw, length = random.Random(0), peers.RECORD_BYTES
        first = [draw.randrange(self.file.stat().st_size // length) * length
                 for _ in range(peers.RECORDS)]
        page_cache.drop(self.file.parent)
        host_pages.back()
        return raw_http.get([f"{url} {at}-{at + length - 1}" for at in first], 1)

    def large(self):
        url, = self.urls(self.large_bucket, [self.file.name])
        records = self.records(url).files
        target = self.file.with_name("download")
        sequence = []
        for count in large_file.CONNECTIONS:
            page_cache.drop(self.file.parent)
            sequence.append(large_file.download(url, self.file.stat().st_size, count, target))
        page_cache.drop(self.file.parent)
        dropped = large_file.read_through(self.file)
        return {"random records of 114,660 B, cold, records/s": records,
                "large file in sequence, cold, MB/s": max(sequence),
                "large file, page cache dropped, cache warm, MB/s": dropped,
                "large file, page cache warm, MB/s": large_file.read_through(self.file)}

    def parts(self):
        return {"small": self.small, "large": self.large}
