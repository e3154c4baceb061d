"""Which versions are on disk, which are wanted, and the state of each: found, loaded, served, unloaded."""

import os
import threading
import time

from tfserving import log
from tfserving.status import Status, invalid

START, LOADING, AVAILABLE, UNLOADING, END = 10, 20, 30, 40, 50
_SOURCE = "tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc"
_HARNESS = "tensorflow_serving/core/loader_harness.cc"


def servable(name, version):
    return f"{{name: {name} version: {version}}}"


def _versions_on_disk(base):
    found = {}
    for child in sorted(os.listdir(base)):
        if child.isdecimal() and int(child) < 2**63:
            found[int(child)] = os.path.join(base, child)
    return found


def _aspired(config):
    """Version → folder of what one model's policy asks for; an error when its base path is not there."""
    base, name, policy = config.base_path, config.name, config.model_version_policy
    if not os.path.exists(base):
        raise invalid(f"Could not find base path {base} for servable {name} with error NOT_FOUND: {base} not found")
    if not os.path.isdir(base):
        raise Status("FAILED_PRECONDITION", f"{base}; Not a directory")
    found = _versions_on_disk(base)
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        wanted = found
    elif choice == "specific":
        wanted = {version: found[version] for version in policy.specific.versions if version in found}
        for version in policy.specific.versions:
            if version not in found:
                log.warning(
                    f"{_SOURCE}:238", f"Version {version} of servable {name}, which was requested to be served as a "
                    "'specific' version in the servable's version policy, was not found in the file system")
    else:
        newest = sorted(found, reverse=True)[: max(1, policy.latest.num_versions)]
        wanted = {version: found[version] for version in newest}
    if not (wanted if choice == "specific" else found):
        log.warning(
            f"{_SOURCE}:314", f"No versions of servable {name} found under base path {base}. "
            "Did you forget to name your leaf directory as a number (eg. '/1/')?")
    return wanted


class Version:
    """One version's state; a failed load keeps its error."""

    def __init__(self):
        self.state, self.error, self.model, self.using = START, None, None, 0
        # Whether it was dropped since it ended, so that wanting it again loads it again.
        self.dropped = False


class Manager:
    """Loads and unloads versions in a thread of its own, as the files and the configuration change."""

    def __init__(self, load, options):
        self._load, self._options = load, options
        self.changed = threading.Condition()
        self.models = {}
        self._configs, self._polled, self._wanted, self._started = {}, -1, {}, False
        self._generation = 0

    def set_configs(self, configs):
        """Takes over a new list of models; those not in it are unloaded."""
        with self.changed:
            self._configs = {config.name: config for config in configs}
            self._generation += 1
            for name in list(self._wanted):
                if name not in self._configs:
                    self._wanted[name] = {}
            self.changed.notify_all()
            if self._started:
                return
            self._started = True
        threading.Thread(target=self._poll, daemon=True).start()
        threading.Thread(target=self._work, daemon=True).start()

    def _poll(self):
        """Looks at the disk every interval; one missing base path keeps everything as it was."""
        interval = self._options.file_system_poll_wait_seconds
        while True:
            with self.changed:
                configs, generation = dict(self._configs), self._generation
            try:
                found = {name: _aspired(config) for name, config in configs.items()}
                with self.changed:
                    if generation == self._generation:
                        self._wanted.update(found)
                        self.changed.notify_all()
            except (Status, OSError) as error:
                text = error.message if isinstance(error, Status) else str(error)
                log.error(f"{_SOURCE}:353", f"FileSystemStoragePathSource encountered a filesystem access error: {text}")
            if interval <= 0:
                return
            time.sleep(interval)

    def _next(self):
        """What to do next: loads come before unloads, so that something is always served; holds the lock."""
        for name, wanted in self._wanted.items():
            known = self.models.setdefault(name, {})
            for version in sorted(wanted, reverse=True):
                seen = known.get(version)
                if seen is None or (seen.state == END and seen.dropped):
                    known[version] = Version()
                    return "load", name, version, wanted[version]
        for name, known in self.models.items():
            for version, seen in known.items():
                if version in self._wanted.get(name, {}):
                    continue
                seen.dropped = True
                if seen.state == AVAILABLE:
                    return "unload", name, version, None
        return None

    def _work(self):
        while True:
            with self.changed:
                step = self._next()
                if step is None:
                    self.changed.wait()
                    continue
                action, name, version, path = step
                seen = self.models[name][version]
            if action == "load":
                self._bring_up(name, version, path, seen)
            else:
                self._take_down(name, version, seen)

    def _set(self, seen, state, error=None):
        with self.changed:
            seen.state, seen.error = state, error
            self.changed.notify_all()

    def _bring_up(self, name, version, path, seen):
        named = servable(name, version)
        log.info("tensorflow_serving/core/basic_manager.cc:740", f"Successfully reserved resources to load servable {named}")
        log.info(f"{_HARNESS}:71", f"Approving load for servable version {named}")
        log.info(f"{_HARNESS}:79", f"Loading servable version {named}")
        self._set(seen, LOADING)
        attempt = 0
        while True:
            try:
                seen.model = self._load(name, version, path)
                break
            except Status as error:
                log.error("tensorflow_serving/util/retrier.cc:46", f"Loading servable: {named} failed: {error}")
                if attempt >= self._options.max_num_load_retries:
                    log.info(f"{_HARNESS}:186", f"Encountered an error for servable version {named}: {error}")
                    self._set(seen, END, error)
                    return
                attempt += 1
                time.sleep(max(0, self._options.load_retry_interval_micros) / 1e6)
                log.info("tensorflow_serving/util/retrier.cc:33", f"Retrying of Loading servable: {named} retry: {attempt}")
        log.info(f"{_HARNESS}:105", f"Successfully loaded servable version {named}")
        self._set(seen, AVAILABLE)

    def _take_down(self, name, version, seen):
        named = servable(name, version)
        log.info(f"{_HARNESS}:170", f"Quiescing servable version {named}")
        with self.changed:
            seen.state = UNLOADING
            while seen.using:
                self.changed.wait()
            model, seen.model = seen.model, None
        log.info(f"{_HARNESS}:177", f"Done quiescing servable version {named}")
        log.info(f"{_HARNESS}:133", f"Unloading just-loaded servable version {named}")
        model.close()
        log.info(f"{_HARNESS}:142", f"Done unloading servable version {named}")
        self._set(seen, END)

    def wait_for(self, names):
        """Waits until each of the models has a version that is served or has failed; returns those that failed."""
        def ended(name):
            known = self.models.get(name, {})
            for version in sorted(known, reverse=True):
                if known[version].state in (AVAILABLE, END):
                    return version, known[version]
            return None

        with self.changed:
            reached = {}
            while True:
                reached = {name: ended(name) for name in names}
                if all(reached.values()):
                    break
                self.changed.wait()
            return [(name, version, seen.error) for name, (version, seen) in reached.items() if seen.state != AVAILABLE]
