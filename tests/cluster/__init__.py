"""A real Kubernetes on this machine for the tests, from pinned Go modules and Debian packages.

The control plane runs on the machine itself; each node is a network namespace and a mount namespace with a containerd,
a kubelet and a kube-proxy of its own. ``python -m cluster`` (or `make cluster`) starts and ends it.
"""
