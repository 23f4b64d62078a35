"""Readers like those of a training loader: several processes, a fresh shuffle each epoch."""

import hashlib
import os
import pickle
import random


class Running:
    """function(argument) for each argument, each in a process of its own, all at once."""

    def __init__(self, function, arguments):
        self._children = [self._start(function, argument) for argument in arguments]

    @staticmethod
    def _start(function, argument):
        source, sink = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                outcome = (True, function(argument))
            except BaseException as failure:  # pylint: disable=broad-except
                outcome = (False, repr(failure))
            with os.fdopen(sink, "wb") as out:
                pickle.dump(outcome, out)
            os._exit(0)
        os.close(sink)
        return pid, source

    def results(self):
        """Waits for all of them."""
        results = []
        for pid, source in self._children:
            with os.fdopen(source, "rb") as stream:
                data = stream.read()
            os.waitpid(pid, 0)
            good, value = pickle.loads(data) if data else (False, "it died")
            results.append((good, value))
        self._children = []
        for good, value in results:
            if not good:
                raise AssertionError(f"a reader failed: {value}")
        return [value for _, value in results]


def in_processes(function, arguments):
    return Running(function, arguments).results()


class Outcome:
    """Of an epoch: bytes read, and what went wrong as {path: text}."""

    def __init__(self):
        self.bytes = 0
        self.wrong = {}
        self.failed = {}

    def add(self, other):
        self.bytes += other.bytes
        self.wrong.update(other.wrong)
        self.failed.update(other.failed)


def read_share(expected, paths):
    outcome = Outcome()
    for path in paths:
        try:
            total = hashlib.sha1()
            with open(path, "rb", buffering=0) as source:
                while chunk := source.read(1 << 20):
                    outcome.bytes += len(chunk)
                    total.update(chunk)
        except OSError as failure:
            outcome.failed[path] = failure.errno
            continue
        if total.hexdigest() != expected[path]:
            outcome.wrong[path] = total.hexdigest()
    return outcome


class Epoch:
    """Reads each path of expected = {path: digest} once, in the order that the seed gives."""

    def __init__(self, expected, seed, processes=4):
        order = sorted(expected)
        random.Random(seed).shuffle(order)
        self._running = Running(lambda n: read_share(expected, order[n::processes]),
                                range(processes))

    def outcome(self):
        total = Outcome()
        for outcome in self._running.results():
            total.add(outcome)
        return total


def epoch(expected, seed, processes=4):
    return Epoch(expected, seed, processes).outcome()


def assert_clean(case, outcome):
    case.assertEqual(outcome.failed, {})
    case.assertEqual(outcome.wrong, {})
