# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of modules that connect to a Kubernetes cluster: those of kubernetes.core, with the same variables."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  kubeconfig:
    description:
      - Path of a kubeconfig, several with a colon between them, or its content as a dictionary.
      - The default is E(K8S_AUTH_KUBECONFIG). Without it, a pod's own service account is used where there is one, else
        E(KUBECONFIG) or C(~/.kube/config).
    type: raw
  context:
    description: A context of the kubeconfig. The default is E(K8S_AUTH_CONTEXT), else the current context.
    type: str
  host:
    description: URL of the API server. The default is E(K8S_AUTH_HOST), else that of the kubeconfig.
    type: str
  api_key:
    description: A bearer token. The default is E(K8S_AUTH_API_KEY).
    type: str
  username:
    description: A user of HTTP basic authentication. The default is E(K8S_AUTH_USERNAME).
    type: str
  password:
    description: The password of O(username). The default is E(K8S_AUTH_PASSWORD).
    type: str
  validate_certs:
    description:
      - Whether the API server's certificate is verified. The default is E(K8S_AUTH_VERIFY_SSL), else what the
        kubeconfig says, else yes.
    type: bool
    aliases: [verify_ssl]
  ca_cert:
    description: A file with the certificate of the API server's CA. The default is E(K8S_AUTH_SSL_CA_CERT).
    type: path
    aliases: [ssl_ca_cert]
  client_cert:
    description: A file with a client certificate. The default is E(K8S_AUTH_CERT_FILE).
    type: path
    aliases: [cert_file]
  client_key:
    description: A file with the key of O(client_cert). The default is E(K8S_AUTH_KEY_FILE).
    type: path
    aliases: [key_file]
  proxy:
    description: URL of an HTTP proxy. The default is E(K8S_AUTH_PROXY).
    type: str
  no_proxy:
    description:
      - Hosts, with commas between them, that are reached without the proxy. The default is E(K8S_AUTH_NO_PROXY).
    type: str
  proxy_headers:
    description: Headers for the proxy.
    type: dict
    suboptions:
      proxy_basic_auth:
        description:
          - User and password with a colon between them. The default is E(K8S_AUTH_PROXY_HEADERS_PROXY_BASIC_AUTH).
        type: str
      basic_auth:
        description: User and password with a colon between them. The default is E(K8S_AUTH_PROXY_HEADERS_BASIC_AUTH).
        type: str
      user_agent:
        description: Name of the client. The default is E(K8S_AUTH_PROXY_HEADERS_USER_AGENT).
        type: str
  persist_config:
    description:
      - Whether a token that was renewed is written back into the kubeconfig. The default is E(K8S_AUTH_PERSIST_CONFIG),
        else no.
    type: bool
  impersonate_user:
    description: A user to act as. The default is E(K8S_AUTH_IMPERSONATE_USER).
    type: str
  impersonate_groups:
    description:
      - Groups to act as a member of. The default is E(K8S_AUTH_IMPERSONATE_GROUPS), with commas between them.
    type: list
    elements: str
requirements:
  - kubernetes >= 29.0.0
"""
