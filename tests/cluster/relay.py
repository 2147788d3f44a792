"""A mesh to be asked under load: services that answer with their names, and with what their upstreams answer."""

from __future__ import annotations

from typing import Any

from cluster import images

Item = dict[str, Any]

HTTP = 8080
APPLICATION = """
const http = require('node:http')
const { PORT, POD_NAME, SERVICE_NAME, UPSTREAM } = process.env
const agent = new http.Agent({ keepAlive: true })

function serve(request, response) {
  const answer = (status, text) => {
    response.statusCode = status
    response.setHeader('hostname', POD_NAME)
    response.end(`${SERVICE_NAME} ${text}`)
  }
  if (!UPSTREAM) return answer(200, '')
  http.get(`http://${UPSTREAM}${request.url}`, { agent }, (called) => {
    let text = ''
    called.on('data', (data) => { text += data })
    called.on('end', () => answer(called.statusCode, text))
  }).on('error', (error) => answer(502, `${error}`))
}

// Envoy is to close idle connections first.
http.createServer({ keepAliveTimeout: 3700000 }, serve).listen(PORT)
process.on('SIGTERM', () => process.exit())
"""


def service(name: str, upstream: str = "") -> Item:
    """A service that answers with its name, and with what its upstream answers."""
    called = {"UPSTREAM": f"$(UPSTREAM_{upstream.upper().replace('-', '_')})"} if upstream else {}
    edge = {"service": upstream, "port": 8788, "idempotent": True}
    return {
        "name": name,
        "image": images.NODE,
        "environment": {"SERVICE_NAME": name, **called},
        "port": 8081,
        "replicas": 2,
        "upstreams": [edge] if upstream else [],
        "pod": {"command": ["node", "--eval", APPLICATION], "security_context": {"runAsUser": 10001}},
    }


def front() -> Item:
    return {
        "name": "front",
        "replicas": 2,
        "listeners": [{"port": HTTP}],
        "routes": [{"prefix": "/", "service": "service-a", "idempotent": True}],
        "expose": "NodePort",
    }
