"""Merges concurrent requests into batches, as the real server's shared batch scheduler does.

Each set of feeds and fetches of a model version has a queue of batches; all queues share the threads. A batch
runs when it is full or its time is up; a queue holds at most `max_enqueued_batches` that no thread has taken.
"""

import threading
import time

import numpy as np

from tfserving import metrics
from tfserving.status import Status, failed_precondition, invalid, of_exception


class Parameters:
    """What a batching parameters file says, with the defaults of the real server."""

    def __init__(self, proto, cpus):
        def given(field, default):
            return getattr(proto, field).value if proto.HasField(field) else default

        self.max_batch_size = given("max_batch_size", 1000)
        self.timeout_s = given("batch_timeout_micros", 0) / 1e6
        self.max_enqueued_batches = given("max_enqueued_batches", 10)
        self.threads = given("num_batch_threads", cpus)
        self.pool_name = given("thread_pool_name", "batch_threads")
        self.allowed = list(proto.allowed_batch_sizes)
        self.pad = proto.pad_variable_length_inputs
        self._check()

    def _check(self):
        if self.max_batch_size < 1:
            raise invalid(f"max_batch_size must be positive; was {self.max_batch_size}")
        if self.max_enqueued_batches < 0:
            raise invalid(f"max_enqueued_batches must be non-negative; was {self.max_enqueued_batches}")
        if self.threads < 1:
            raise invalid(f"num_batch_threads must be positive; was {self.threads}")
        if any(a >= b for a, b in zip(self.allowed, self.allowed[1:])):
            raise invalid("allowed_batch_sizes entries must be monotonically increasing")
        if self.allowed and self.allowed[-1] != self.max_batch_size:
            raise invalid(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
                f"{self.allowed[-1]}; expected {self.max_batch_size}"
            )


class _Task:
    def __init__(self, feeds, size):
        self.feeds, self.size, self.start = feeds, size, time.monotonic()
        self.done, self.outputs, self.error = threading.Event(), None, None


class _Batch:
    def __init__(self):
        self.tasks, self.size, self.start, self.closed = [], 0, time.monotonic(), False


class _Queue:
    def __init__(self, model, fetches):
        self.model, self.fetches, self.batches = model, fetches, []


class Scheduler:
    """The queues of all models and the threads that serve them."""

    def __init__(self, parameters):
        self._p = parameters
        self._changed = threading.Condition()
        self._queues = {}
        for _ in range(parameters.threads):
            threading.Thread(target=self._work, daemon=True).start()

    def run(self, model, feeds, fetches):
        """Like `SavedModel.run`, but merged with others."""
        sizes = {array.shape[0] if array.ndim else None for array in feeds.values()}
        if None in sizes:
            raise invalid("Batching session Run() input tensors must have at least one dimension.")
        if len(sizes) != 1:
            raise invalid("Batching session Run() input tensors must have equal 0th-dimension size.")
        task = _Task(feeds, sizes.pop())
        if task.size > self._p.max_batch_size:
            raise invalid(f"Task size {task.size} is larger than maximum input batch size {self._p.max_batch_size}")
        self._enqueue((model, tuple(sorted(feeds)), tuple(fetches)), task)
        task.done.wait()
        if task.error:
            raise task.error
        return task.outputs

    def _enqueue(self, key, task):
        with self._changed:
            queue = self._queues.setdefault(key, _Queue(key[0], key[2]))
            open_ = queue.batches[-1] if queue.batches and not queue.batches[-1].closed else None
            if open_ is None or open_.size + task.size > self._p.max_batch_size:
                if len(queue.batches) >= self._p.max_enqueued_batches:
                    raise Status(
                        "UNAVAILABLE",
                        "The batch scheduling queue to which this task was submitted is full; currently "
                        f"{len(queue.batches)} batches enqueued and max_enqueued_batches is {self._p.max_enqueued_batches}",
                    )
                if open_:
                    open_.closed = True
                open_ = _Batch()
                queue.batches.append(open_)
            open_.tasks.append(task)
            open_.size += task.size
            open_.closed = open_.size >= self._p.max_batch_size
            self._changed.notify()

    def _next(self):
        """Takes a batch that is to run, or says how long to wait for one; holds the lock."""
        now, soonest = time.monotonic(), None
        for key, queue in list(self._queues.items()):
            if not queue.batches:
                del self._queues[key]
                continue
            due = queue.batches[0].start + self._p.timeout_s
            if queue.batches[0].closed or due <= now:
                return queue, queue.batches.pop(0), None
            soonest = due if soonest is None else min(soonest, due)
        return None, None, None if soonest is None else soonest - now

    def _work(self):
        while True:
            with self._changed:
                queue, batch, wait = self._next()
                if batch is None:
                    self._changed.wait(wait)
                    continue
            try:
                self._process(queue, batch)
            except Exception as error:  # a batch that fails must not end the thread
                for task in batch.tasks:
                    task.error = of_exception(error)
            for task in batch.tasks:
                task.done.set()

    def _process(self, queue, batch):
        for task in batch.tasks:
            metrics.BATCH_DELAY.observe((time.monotonic() - task.start) * 1e6, self._p.pool_name)
        padded = next((size for size in self._p.allowed if size >= batch.size), batch.size)
        metrics.BATCH_SIZE.observe(batch.size, queue.model.name)
        feeds = {name: self._merge(name, batch, padded) for name in batch.tasks[0].feeds}
        outputs = queue.model.run(feeds, queue.fetches)
        for output in outputs:
            if np.ndim(output) == 0:
                raise failed_precondition("Batched output tensor has 0 dimensions")
            if output.shape[0] != padded:
                raise failed_precondition(
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors"
                )
        at = 0
        for task in batch.tasks:
            task.outputs = [output[at : at + task.size] for output in outputs]
            at += task.size

    def _merge(self, name, batch, padded):
        arrays = [task.feeds[name] for task in batch.tasks]
        if any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
            if not self._p.pad or any(array.ndim != arrays[0].ndim for array in arrays):
                raise failed_precondition(
                    f"Tensors with name '{name}' from different tasks have different shapes and padding is turned off. "
                    "Set pad_variable_length_inputs to true, or ensure that all tensors with the same name have equal "
                    "dimensions starting with the first dim."
                )
            widest = np.max([array.shape[1:] for array in arrays], axis=0)
            arrays = [self._padded(array, widest) for array in arrays]
        if padded > batch.size:
            arrays.append(np.repeat(arrays[0][:1], padded - batch.size, axis=0))
        return np.concatenate(arrays)

    @staticmethod
    def _padded(array, widest):
        pads = [(0, 0)] + [(0, int(want) - have) for want, have in zip(widest, array.shape[1:])]
        return np.pad(array, pads, constant_values=b"" if array.dtype == object else 0)
