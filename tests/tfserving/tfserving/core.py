"""The server's configuration: which models, under which labels; and who serves a request."""

import contextlib
import threading
import time


from tfserving import log, manager
from tfserving.manager import AVAILABLE, servable
from tfserving.protos import ModelServerConfig, read_text
from tfserving.status import Status, failed_precondition, invalid, not_found

_SOURCE = "tensorflow_serving/model_servers/server_core.cc"


def _check(config):
    names = set()
    for model in config.config:
        if model.name in names:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
    for model in config.config:
        if not model.base_path.startswith("/") and "://" not in model.base_path:
            raise invalid(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}")
        if not model.model_platform and not model.model_type:
            raise invalid(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
                f"model name is {model.name}")
        if model.model_platform and model.model_platform != "tensorflow":
            raise invalid(f"Model {model.name} requests unsupported platform {model.model_platform}")


class Core:
    """Models, versions, labels; one per server."""

    def __init__(self, load, options):
        self._options = options
        self.manager = manager.Manager(load, options)
        # Held over a whole reload, as the real server does: one that waits for ever blocks every later one.
        self._reload = threading.Lock()
        self._config, self._listed, self._labels = ModelServerConfig(), set(), {}

    def reload(self, new):
        """Replaces the configuration; waits for models that are new in it, and only for those."""
        with self._reload:
            self._reload_locked(new)

    def _reload_locked(self, new):
        kind, old_kind = new.WhichOneof("config"), self._config.WhichOneof("config")
        if old_kind and kind != old_kind:
            raise failed_precondition(
                "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another.")
        if kind is None:
            log.info(f"{_SOURCE}:501", "Taking no action for empty config.")
            return
        if kind != "model_config_list":
            raise invalid("ModelServer does not yet support custom model config.")
        _check(new.model_config_list)
        first, self._config = old_kind is None, new
        self._labels = self._checked_labels(new)
        log.info(f"{_SOURCE}:505", "Adding/updating models.")
        configs = list(new.model_config_list.config)
        for model in configs:
            log.info(f"{_SOURCE}:625", f" (Re-)adding model: {model.name}")
        names = {model.name for model in configs}
        fresh, self._listed = sorted(names - self._listed), names
        self.manager.set_configs(configs)
        failed = self.manager.wait_for(fresh)
        if failed:
            listed = "".join(f"{{{servable(n, v)} due to error: {e}}}, " if e else f"{{{servable(n, v)}}}, " for n, v, e in failed)
            what = "servable(s)" if first else "model(s)"
            raise Status("UNKNOWN", f"{len(failed)} {what} did not become available: {{{listed}}}")
        log.info(f"{_SOURCE}:545", "Finished reloading config")

    def _checked_labels(self, new):
        labels = {}
        for model in new.model_config_list.config:
            for label, version in sorted(model.version_labels.items()):
                old = self._labels.get(model.name, {}).get(label)
                free = self._options.allow_version_labels_for_unavailable_models and old in (None, version)
                seen = self.manager.models.get(model.name, {}).get(version)
                if not free and (seen is None or seen.state != AVAILABLE):
                    raise failed_precondition(
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference")
                labels.setdefault(model.name, {})[label] = version
        return labels

    def poll_config(self, path, interval):
        """Reads the configuration file again and again; a broken one is logged and changes nothing."""
        while True:
            time.sleep(interval)
            try:
                new = read_text(path, ModelServerConfig())
            except Status as error:
                log.error("tensorflow_serving/model_servers/server.cc:155", f"Failed to read ModelServerConfig file: {error.message}")
                continue
            try:
                self.reload(new)
            except Status as error:
                log.error("tensorflow_serving/model_servers/server.cc:162", f"PollFilesystemAndReloadConfig failed to ReloadConfig: {error.message}")

    @contextlib.contextmanager
    def use(self, spec):
        """The loaded model that a ModelSpec names, kept from being unloaded meanwhile."""
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        wanted = self._version(spec)
        with self.manager.changed:
            known = self.manager.models.get(spec.name, {})
            ready = [version for version, seen in known.items() if seen.state == AVAILABLE]
            version = wanted if wanted in ready else max(ready, default=None) if wanted is None else None
            if version is None:
                request = f"Latest({spec.name})" if wanted is None else f"Specific({spec.name}, {wanted})"
                raise not_found(f"Servable not found for request: {request}")
            seen = known[version]
            seen.using += 1
            model = seen.model
        try:
            yield model
        finally:
            with self.manager.changed:
                seen.using -= 1
                self.manager.changed.notify_all()

    def _version(self, spec):
        choice = spec.WhichOneof("version_choice")
        if choice == "version":
            return spec.version.value
        if choice == "version_label":
            version = self._labels.get(spec.name, {}).get(spec.version_label)
            if version is None:
                raise invalid(f"Unrecognized servable version label: {spec.version_label}")
            return version
        return None

    def fill_status(self, spec, response):
        """GetModelStatus: one version or all, newest first; labels are not looked at."""
        with self.manager.changed:
            known = self.manager.models.get(spec.name, {})
            if spec.HasField("version"):
                version = spec.version.value
                if version not in known:
                    raise not_found(f"Could not find version {version} of model {spec.name}")
                known = {version: known[version]}
            if not known:
                raise not_found(f"Could not find any versions of model {spec.name}")
            for version in sorted(known, reverse=True):
                seen = known[version]
                entry = response.model_version_status.add(version=version, state=seen.state)
                if seen.error:
                    seen.error.to_proto(entry.status)
                else:
                    entry.status.error_code = 0
                    entry.status.SetInParent()
        return response
