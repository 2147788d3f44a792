import contextlib, subprocess, sys
from pathlib import Path
import pytest
from kubernetes import client, config

class C:
    kubeconfig = Path('/root/.cache/sidecar-mesh/cluster-f/kubeconfig')
    @contextlib.contextmanager
    def namespace(self):
        core = client.CoreV1Api(config.new_client_from_config(str(self.kubeconfig)))
        name = "f-load"
        with contextlib.suppress(client.ApiException):
            core.create_namespace({"metadata": {"name": name}})
        yield name
        #core.delete_namespace(name)
    def stop(self, *names):
        from cluster import supervision
        supervision.stop(*names)
    def start(self, *names):
        from cluster import supervision
        supervision.start(*names)

@pytest.fixture(scope="session")
def cluster():
    return C()
