"""Bare nodes: machines with systemd and SSH and nothing else, as containers of podman, for playbooks to install on."""
