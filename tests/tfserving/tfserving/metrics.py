"""Counters and histograms, and the page Prometheus reads."""

import bisect
import threading


def _exponential(scale, growth, count):
    return [scale * growth**i for i in range(count)]


def _labels(names, values):
    def escaped(value):
        return str(value).replace("\\", "\\\\").replace('"', '\\"')

    return ",".join(f'{name}="{escaped(value)}"' for name, value in zip(names, values))


class Counter:
    """A count for each set of label values."""

    def __init__(self, registry, name, labels):
        self.name, self.labels, self.cells, self.lock = name, labels, {}, threading.Lock()
        registry.append(self)

    def add(self, *values, by=1):
        with self.lock:
            self.cells[values] = self.cells.get(values, 0) + by

    def lines(self):
        yield f"# TYPE {self.name} counter"
        with self.lock:
            for values, count in sorted(self.cells.items()):
                yield f"{self.name}{{{_labels(self.labels, values)}}} {count}"


class Histogram:
    """A distribution for each set of label values."""

    def __init__(self, registry, name, labels, limits):
        self.name, self.labels, self.limits = name, labels, limits
        self.cells, self.lock = {}, threading.Lock()
        registry.append(self)

    def observe(self, value, *values):
        with self.lock:
            cell = self.cells.setdefault(values, [[0] * (len(self.limits) + 1), 0.0])
            cell[0][bisect.bisect_right(self.limits, value)] += 1
            cell[1] += value

    def lines(self):
        yield f"# TYPE {self.name} histogram"
        with self.lock:
            for values, (buckets, total) in sorted(self.cells.items()):
                labels, count = _labels(self.labels, values), 0
                for limit, n in zip([f"{limit:g}" for limit in self.limits] + ["+Inf"], buckets):
                    count += n
                    yield f'{self.name}_bucket{{{labels},le="{limit}"}} {count}'
                yield f"{self.name}_sum{{{labels}}} {total:g}"
                yield f"{self.name}_count{{{labels}}} {count}"


REGISTRY = []
_LATENCY = _exponential(10, 1.8, 33)
REQUEST_COUNT = Counter(REGISTRY, ":tensorflow:serving:request_count", ("model_name", "status"))
REQUEST_LATENCY = Histogram(REGISTRY, ":tensorflow:serving:request_latency", ("model_name", "API", "entrypoint"), _LATENCY)
RUNTIME_LATENCY = Histogram(REGISTRY, ":tensorflow:serving:runtime_latency", ("model_name", "API", "runtime"), _LATENCY)
EXAMPLE_COUNTS = Histogram(REGISTRY, ":tensorflow:serving:request_example_counts", ("model",), _exponential(1, 2, 15))
EXAMPLE_TOTAL = Counter(REGISTRY, ":tensorflow:serving:request_example_count_total", ("model",))
BATCH_SIZE = Histogram(
    REGISTRY, ":tensorflow:serving:batching_session:processed_batch_size", ("model_name",), _exponential(1, 2, 15)
)
BATCH_DELAY = Histogram(REGISTRY, ":tensorflow:serving:batching_session:queuing_latency", ("thread_pool_name",), _LATENCY)
LOADS = Counter(REGISTRY, ":tensorflow:cc:saved_model:load_attempt_count", ("model_path", "status"))


def page():
    return "\n".join(line for metric in REGISTRY for line in metric.lines()) + "\n"
