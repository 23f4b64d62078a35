"""Tells a Granary mount in which order a job will read, so that it brings the bytes ahead.

    import granary_order

    batches = granary_order.BatchSampler(batch_sampler, paths, "/mnt/imagenet", workers=8)
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=batches, num_workers=8)

Nothing but the standard library is needed, and nothing changes where it cannot help: on a directory
that is no mount of Granary, or one whose socket this user may not use, every call does nothing.
docs/order.md has the protocol.
"""

import itertools
import os
import socket
import struct
import threading
import time
import warnings

__all__ = ["BatchSampler", "Order", "OrderError", "Record", "Sampler", "interleave", "timed"]

ATTRIBUTE = "user.granary.order"
VERSION = 1
FRAME_BYTES = 64 << 10
CONNECT_SECONDS = 10
ANSWER_SECONDS = 60
PACE_SECONDS = 1

_BEGIN, _PATHS, _RECORDS, _END, _STEP, _STATUS, _DROP, _PACE = range(1, 9)
_FAILED, _BEGUN, _ENDED, _STATE = range(100, 104)
_TIED = 1
_STATE_FIELDS = ("lists", "announced", "passed", "step", "entries", "fetched_bytes", "used_bytes",
                 "dropped_bytes", "in_flight_limit")


class OrderError(Exception):
    """What the mount said against an announcement."""


class Record(tuple):
    """A range of a file: Record(path, offset, length)."""

    def __new__(cls, path, offset, length):
        if offset < 0 or length <= 0:
            raise ValueError("a record has an offset of 0 or more and a length of 1 or more")
        return super().__new__(cls, (path, offset, length))


def mount_root(path):
    """The mount point that `path` lies on."""
    path = os.path.realpath(os.fspath(path))
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def _socket_path(root):
    try:
        return os.getxattr(root, ATTRIBUTE)
    except OSError:
        return None


class _Connection:
    """Frames over the mount's socket."""

    def __init__(self, path, patient=False):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(CONNECT_SECONDS)
            self._socket.connect(path)
            self._seconds = None if patient else CONNECT_SECONDS
            self._socket.settimeout(self._seconds)
        except OSError:
            self._socket.close()
            raise

    def send(self, kind, payload=b""):
        self._socket.sendall(struct.pack("<II", kind, len(payload)) + payload)

    def _receive(self, count):
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise OrderError("the mount has gone away")
            data += part
        return data

    def answer(self, kind):
        found, length = struct.unpack("<II", self._receive(8))
        payload = self._receive(length)
        if found == _FAILED:
            raise OrderError(payload[4:].decode(errors="replace"))
        if found != kind:
            raise OrderError(f"an answer of kind {found} instead of {kind}")
        return payload

    def ask(self, kind, payload, answer):
        self.send(kind, payload)
        self._socket.settimeout(ANSWER_SECONDS)
        try:
            return self.answer(answer)
        finally:
            self._socket.settimeout(self._seconds)

    def close(self):
        # Also where forked processes hold it open.
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()


class Order:
    """The announcements of one job to the mount that `path` lies on.

    `available` says whether there is anybody to tell. Errors end the announcing, not the job: they
    are warned of once, and kept in `error`.
    """

    def __init__(self, path):
        self.root = mount_root(path)
        self.error = None
        self._prefix = os.fsencode(self.root.rstrip("/") + "/")
        self._path = _socket_path(self.root)
        self._list = 0
        self._feeder = self._feed = self._control = None
        self._lock = threading.Lock()  # of the control connection
        self._pid = os.getpid()
        if self._path is not None:
            try:
                self._control = _Connection(self._path)
            except OSError as failure:
                self._fail(failure)

    @property
    def available(self):
        return self._control is not None and self._pid == os.getpid()

    def _fail(self, failure):
        if self.error is None:
            warnings.warn(f"no order is announced to {self.root}: {failure}", RuntimeWarning,
                          stacklevel=3)
        self.error = failure

    # ---- announcing ------------------------------------------------------------------------

    def announce(self, entries):
        """Announces paths and Records, in the order of reading, in place of what was announced.

        Returns at once; a thread sends them as far as the mount takes them. Paths are absolute, or
        relative to the mount's root.
        """
        if not self.available:
            return
        self._stop_feeding()
        try:
            # The mount takes more when it has room: however long that takes.
            feeder = _Connection(self._path, patient=True)
            begin = struct.pack("<IIQ", VERSION, _TIED, self._list)
            self._list, _ = struct.unpack("<QQ", feeder.ask(_BEGIN, begin, _BEGUN))
        except (OSError, OrderError) as failure:
            self._fail(failure)
            return
        self._feeder = feeder
        self._feed = threading.Thread(target=self._send, args=(feeder, entries), daemon=True,
                                      name="granary-order")
        self._feed.start()

    def wait_announced(self, seconds=None):
        """Waits until the mount has taken all of it; whether it has."""
        feed = self._feed
        if feed is not None:
            feed.join(seconds)
        return feed is None or not feed.is_alive()

    def _stop_feeding(self):
        if self._feeder is not None:
            self._feeder.close()
            self._feed.join()
            self._feeder = self._feed = None

    def _entry(self, entry):
        """(kind, bytes) of one."""
        record = isinstance(entry, Record)
        path = os.fsencode(entry[0] if record else entry)
        if path.startswith(self._prefix):
            path = path[len(self._prefix):]
        if record:
            return _RECORDS, struct.pack("<QQH", entry[1], entry[2], len(path)) + path
        return _PATHS, struct.pack("<H", len(path)) + path

    def _send(self, feeder, entries):
        try:
            for kind, group in itertools.groupby(map(self._entry, entries), lambda e: e[0]):
                frame = bytearray()
                for _, data in group:
                    if len(frame) + len(data) > FRAME_BYTES:
                        feeder.send(kind, bytes(frame))
                        frame.clear()
                    frame += data
                feeder.send(kind, bytes(frame))
            feeder.send(_END)
            accepted, unknown = struct.unpack_from("<QQ", feeder.answer(_ENDED))
            if unknown and not accepted:
                raise OrderError("none of the paths is a file of the snapshot")
        except (OSError, OrderError, struct.error) as failure:
            if self._feeder is feeder:
                self._fail(self._reason(feeder, failure))

    @staticmethod
    def _reason(feeder, failure):
        """A mount that breaks off has said why."""
        if isinstance(failure, OrderError):
            return failure
        try:
            feeder.answer(_ENDED)
        except OrderError as reason:
            return reason
        except OSError:
            pass
        return failure

    # ---- progress --------------------------------------------------------------------------

    def step(self, number, entries):
        """The job is at step `number` and has the first `entries` of what it announced behind it."""
        if not self.available or not self._list:
            return
        with self._lock:
            try:
                self._control.send(_STEP, struct.pack("<QQQ", self._list, number, entries))
            except OSError as failure:
                self._fail(failure)
                self._control.close()
                self._control = None

    def status(self):
        """What the mount knows and did, as a dictionary; None where nobody can be asked."""
        if not self.available:
            return None
        with self._lock:
            reply = self._control.ask(_STATUS, struct.pack("<Q", self._list), _STATE)
        return dict(zip(_STATE_FIELDS, struct.unpack(f"<{len(_STATE_FIELDS)}Q", reply)))

    def close(self):
        """Drops what was announced and not read."""
        if self._pid != os.getpid():
            return
        self._stop_feeding()
        if self._control is not None:
            self._control.close()
            self._control = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- samplers ----------------------------------------------------------------------------------


def interleave(batches, workers):
    """The order in which `workers` processes read batches that they get in turn: each is at its own."""
    if workers <= 1:
        yield from itertools.chain.from_iterable(batches)
        return
    missing = object()
    for first in range(0, len(batches), workers):
        for row in itertools.zip_longest(*batches[first:first + workers], fillvalue=missing):
            yield from (index for index in row if index is not missing)


class _Announcing:
    def __init__(self, sampler, paths, root, workers, prefetch_factor):
        self.sampler = sampler
        self.paths = paths
        self.order = Order(root)
        self.workers = workers
        # Batches that a DataLoader asked its sampler for and has not given to the job yet.
        self.ahead = workers * prefetch_factor

    def __len__(self):
        return len(self.sampler)

    def __getattr__(self, name):
        # set_epoch and the like. Not while a copy of it is being made without an __init__.
        if name == "sampler":
            raise AttributeError(name)
        return getattr(self.sampler, name)

    def _entries(self, indices):
        for index in indices:
            entry = self.paths[index]
            if isinstance(entry, list):
                yield from entry
            else:
                yield entry

    def _count(self, indices):
        return sum(len(self.paths[i]) if isinstance(self.paths[i], list) else 1 for i in indices)

    def _run(self, batches):
        """Yields the batches, and reports those that the job has had."""
        if not self.order.available:
            yield from batches
            return
        self.order.announce(self._entries(interleave(batches, self.workers)))
        passed = 0
        # Batches of different workers are mixed in the list: a group counts when all of it is read.
        group = max(self.workers, 1)
        for number, batch in enumerate(batches):
            done = number - self.ahead
            if done > 0 and done % group == 0:
                passed += sum(map(self._count, batches[done - group:done]))
            if done > 0:
                self.order.step(done, passed)
            yield batch
        self.order.step(len(batches), passed)


class BatchSampler(_Announcing):
    """A batch sampler that announces each epoch to a mount, in the order that its seed gives.

    sampler: torch.utils.data.BatchSampler, or anything that yields lists of indices
    paths: the path of each index, a Record, or a list of these
    root: anything on the mount
    workers, prefetch_factor: as the DataLoader has them
    """

    def __init__(self, sampler, paths, root, workers=0, prefetch_factor=2):
        super().__init__(sampler, paths, root, workers, prefetch_factor)

    def __iter__(self):
        if not self.order.available:
            return iter(self.sampler)
        return self._run([list(batch) for batch in self.sampler])


class Sampler(_Announcing):
    """The same for a sampler of single indices, which the DataLoader makes batches of."""

    def __init__(self, sampler, paths, root, batch_size=1, workers=0, prefetch_factor=2):
        super().__init__(sampler, paths, root, workers, prefetch_factor)
        self.batch_size = batch_size

    def __iter__(self):
        if not self.order.available:
            return iter(self.sampler)
        indices = list(self.sampler)
        batches = [indices[first:first + self.batch_size]
                   for first in range(0, len(indices), self.batch_size)]
        return itertools.chain.from_iterable(self._run(batches))


# ---- pace --------------------------------------------------------------------------------------


def timed(loader, root, samples=None, workers=None):
    """The batches of `loader`; tells the mount how long each was waited for and how long the job
    computed, from which the master knows how fast the job could read (`granary job explain`).

        for batch in granary_order.timed(loader, "/mnt/imagenet"):
            train(batch)

    samples: how many a batch has; by itself the loader's batch_size, else the batch's length
    workers: processes that read for it; by itself the loader's num_workers
    """
    path = _socket_path(mount_root(root))
    connection = None
    if path is not None:
        try:
            connection = _Connection(path)
        except OSError:
            pass
    if connection is None:
        yield from loader
        return
    try:
        yield from _timed(loader, connection, samples or getattr(loader, "batch_size", None),
                          workers if workers is not None else getattr(loader, "num_workers", 0))
    finally:
        connection.close()


def _timed(loader, connection, samples, workers):
    steps = count = waited = computed = 0
    told = began = time.monotonic()
    for batch in loader:
        had = time.monotonic()
        waited += had - began
        yield batch
        began = time.monotonic()
        computed += began - had
        steps += 1
        count += samples or len(batch)
        if connection is not None and began - told >= PACE_SECONDS:
            told = began
            connection = _tell_pace(connection, struct.pack(
                "<QQQQQII", steps, count, 0, int(waited * 1e6), int(computed * 1e6), workers, 0))
    if connection is not None and steps:
        _tell_pace(connection, struct.pack(
            "<QQQQQII", steps, count, 0, int(waited * 1e6), int(computed * 1e6), workers, 0))


def _tell_pace(connection, payload):
    """The connection, or None when nobody listens any more: the job goes on untold."""
    try:
        connection.send(_PACE, payload)
    except OSError:
        return None
    return connection
