#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: local_processes
short_description: Starts, restarts and retires the processes of a mesh on one machine
version_added: 0.1.0
description:
  - Writes the programs that a running supervisord is to look after, and brings what runs in line with them, in three
    steps of which each is a call of its own, so that the caller can switch traffic over in between.
  - V(started) starts what is new or stands still, V(restarted) replaces what has a new definition, V(pruned) retires
    what is no longer in the list.
  - Only the processes concerned are touched. Supervisord itself is started with O(supervisord) where none answers, and
    never restarted.
  - Every command is run by C(setpriv --pdeathsig KILL), so that a supervisord that is killed leaves no process behind
    that would keep its port.
author:
  - sidecar.mesh contributors (@sidecar-mesh)
requirements:
  - supervisor >= 4.2 with a C([unix_http_server]), a log file, and O(programs_file) in its C([include])
  - setpriv of util-linux >= 2.33
attributes:
  check_mode:
    support: full
    description: Tells what would be done and changes nothing. Without a supervisord, everything would be started.
  diff_mode:
    support: full
    description: Shows the change of O(programs_file), with the values of environment variables as hashes.
options:
  socket:
    description: Path of supervisord's unix socket.
    type: path
    required: true
  supervisord:
    description: Command that starts supervisord as a daemon, used with O(state=started) when none answers at O(socket).
    type: list
    elements: str
  programs_file:
    description:
      - The file this module writes for supervisord, readable by its owner only.
      - A file of the same name with C(.running) at its end, beside it, remembers what the active programs were
        started with.
    type: path
    required: true
  programs:
    description: All programs of the mesh. The same list is handed to each step.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Unique name, of letters, digits, C(-), C(_) and C(.).
        type: str
        required: true
      command:
        description:
          - The program and its arguments, which reach it as they are, without a shell.
          - Of a shell that runs further programs, only the shell itself ends with supervisord.
        type: list
        elements: str
        required: true
      environment:
        description:
          - Environment variables beside those of supervisord, each a text or a number.
          - Supervisord cannot hold a value that has both kinds of quotes, or one at either end.
          - A file that is read at start only is best represented by its checksum in a variable, so that a change of the
            file is a change of the definition.
        type: dict
        default: {}
      directory:
        description: The working directory.
        type: path
        required: true
      log:
        description:
          - The file for standard output and error, rotated at 10 MB with two old ones kept. Its folder must exist.
        type: path
        required: true
      stop_seconds:
        description: How long the program may take to end after SIGTERM, until it is killed, in seconds.
        type: int
        default: 10
      ready:
        description: When the program counts as started; without it, when it has run for a second.
        type: dict
        suboptions:
          http:
            description: A URL, C(http://address:port/path), that is to answer with a status of 200 to 299.
            type: str
          tcp:
            description: An C(address:port) that is to accept a connection.
            type: str
      drain:
        description:
          - How to have an Envoy's clients leave before it is stopped. Its health check is failed, upon which its
            answers tell clients to close their connections, and it is stopped when for half a second there was no
            request and no TCP connection.
          - Clients that do not learn from elsewhere that it is gone will come again; so take it out of discovery first.
          - This does not depend on the Envoy's C(--drain-time-s).
        type: dict
        suboptions:
          admin:
            description: The C(address:port) of the Envoy's admin interface.
            type: str
            required: true
          seconds:
            description: The longest this may take, in seconds.
            type: float
            default: 10
      priority:
        description:
          - Of programs that are stopped by one call, those with the highest number are stopped first, equal ones
            together.
        type: int
        default: 999
      first:
        description: With O(state=started), whether it is to be ready before those are started that are not first.
        type: bool
        default: false
  state:
    description:
      - V(started) writes O(programs_file) and starts the programs that are new or do not run, all at once, but for
        those that are first. The others go on as they are. If one of them does not become ready, those this call added
        are removed and the file is as before.
      - V(restarted) drains and stops the programs whose definition is not the one they run with, and starts them anew,
        all those of O(only) at once. If a new definition does not start, the old one is put back and started.
      - V(pruned) drains, stops and forgets the programs that are not in O(programs).
      - V(shutdown) stops every program, and supervisord.
      - Programs that supervisord has from other files are never touched.
    type: str
    choices: [started, restarted, pruned, shutdown]
    default: started
  only:
    description: With O(state=restarted), names of programs to restart if they need it. Without it, all that need it.
    type: list
    elements: str
  timeout:
    description: How long the programs may take to become ready, in seconds.
    type: float
    default: 30
seealso:
  - name: Supervisor
    description: What supervisord does with the programs.
    link: https://supervisord.org/configuration.html#program-x-section-settings
  - module: sidecar.mesh.local_preflight
"""

EXAMPLES = r"""
- name: Start what is new
  sidecar.mesh.local_processes:
    socket: ~/.local/state/sidecar-mesh/demo/supervisor.sock
    programs_file: ~/.local/state/sidecar-mesh/demo/programs.conf
    programs: "{{ programs }}"
    state: started
  register: processes
  vars:
    programs:
      - name: service-a-1
        command: [/usr/bin/node, server.js]
        environment: {PORT: "8081", ADDRESS: 127.20.7.1}
        directory: /opt/service-a
        log: ~/.local/state/sidecar-mesh/demo/logs/service-a-1.log
        ready: {tcp: "127.20.7.1:8081"}
        priority: 30
      - name: service-a-1-envoy
        command: [envoy, --config-path, envoy.yaml, --disable-hot-restart]
        directory: ~/.local/state/sidecar-mesh/demo/service-a-1
        log: ~/.local/state/sidecar-mesh/demo/logs/service-a-1-envoy.log
        ready: {http: "http://127.20.7.1:9901/ready"}
        drain: {admin: "127.20.7.1:9901", seconds: 20}
        priority: 20

- name: Replace the others one after the other
  sidecar.mesh.local_processes:
    socket: ~/.local/state/sidecar-mesh/demo/supervisor.sock
    programs_file: ~/.local/state/sidecar-mesh/demo/programs.conf
    programs: "{{ programs }}"
    state: restarted
    only: ["{{ item }}"]
  loop: "{{ processes.pending_restart }}"

- name: Stop what is no longer wanted
  sidecar.mesh.local_processes:
    socket: ~/.local/state/sidecar-mesh/demo/supervisor.sock
    programs_file: ~/.local/state/sidecar-mesh/demo/programs.conf
    programs: "{{ programs }}"
    state: pruned
"""

RETURN = r"""
started:
  description: Programs that were started, in the order of O(programs).
  returned: always
  type: list
  elements: str
  sample: [service-a-1, service-a-1-envoy]
restarted:
  description: Programs that were replaced by their new definition.
  returned: always
  type: list
  elements: str
  sample: []
stopped:
  description: Programs that were stopped and forgotten.
  returned: always
  type: list
  elements: str
  sample: []
undrained:
  description: Envoys that an interrupted run had drained without stopping them, and that serve again.
  returned: always
  type: list
  elements: str
  sample: []
pending_restart:
  description: Programs that still run with an old definition, in the order of O(programs).
  returned: always
  type: list
  elements: str
  sample: [service-b-1]
pending_stop:
  description: Programs that still run and are not in O(programs).
  returned: always
  type: list
  elements: str
  sample: [service-c-2, service-c-2-envoy]
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sidecar.mesh.plugins.module_utils import programs
from ansible_collections.sidecar.mesh.plugins.module_utils.lifecycle import Lifecycle, LifecycleError
from ansible_collections.sidecar.mesh.plugins.module_utils.supervisor import Supervisor, SupervisorError

READY = {"http": {"type": "str"}, "tcp": {"type": "str"}}
DRAIN = {"admin": {"type": "str", "required": True}, "seconds": {"type": "float", "default": 10}}
PROGRAM = {
    "name": {"type": "str", "required": True},
    "command": {"type": "list", "elements": "str", "required": True},
    "environment": {"type": "dict", "default": {}},
    "directory": {"type": "path", "required": True},
    "log": {"type": "path", "required": True},
    "stop_seconds": {"type": "int", "default": 10},
    "ready": {
        "type": "dict",
        "options": READY,
        "mutually_exclusive": [("http", "tcp")],
        "required_one_of": [("http", "tcp")],
    },
    "drain": {"type": "dict", "options": DRAIN},
    "priority": {"type": "int", "default": 999},
    "first": {"type": "bool", "default": False},
}
ARGUMENTS = {
    "socket": {"type": "path", "required": True},
    "supervisord": {"type": "list", "elements": "str"},
    "programs_file": {"type": "path", "required": True},
    "programs": {"type": "list", "elements": "dict", "required": True, "options": PROGRAM},
    "state": {"type": "str", "choices": ["started", "restarted", "pruned", "shutdown"], "default": "started"},
    "only": {"type": "list", "elements": "str"},
    "timeout": {"type": "float", "default": 30},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    wanted = [program(entry) for entry in module.params["programs"]]
    found = [*programs.problems(wanted), *environment_problems(module.params), *only_problems(module.params)]
    if found:
        module.fail_json(msg="\n".join(found))
    try:
        launched = launch(module)
        lifecycle = Lifecycle(
            module.params["socket"], Path(module.params["programs_file"]), wanted, module.params["timeout"]
        )
    except (SupervisorError, OSError) as error:
        module.fail_json(msg=str(error))
    try:
        run(lifecycle, module)
    except (LifecycleError, SupervisorError, OSError) as error:
        module.fail_json(msg=str(error), **result(lifecycle, module))
    if launched:
        # Nothing ran: what supervisord had in its file from before, it has started by itself.
        lifecycle.report.started = [entry.name for entry in wanted]
    answer = result(lifecycle, module)
    module.exit_json(**{**answer, "changed": answer["changed"] or launched})


def launch(module: AnsibleModule) -> bool:
    """Start supervisord where it is wanted and does not run; whether that was, or would be, done."""
    params = module.params
    supervisor = Supervisor(params["socket"])
    if params["state"] != "started" or not params["supervisord"] or supervisor.answers():
        return False
    if not module.check_mode:
        supervisor.launch(params["supervisord"], params["timeout"])
    return True


def program(entry: dict[str, Any]) -> programs.Program:
    """An entry of the argument as a program, with everything in its environment as text."""
    ready = {key: value for key, value in (entry["ready"] or {}).items() if value}
    environment = {name: str(value) for name, value in entry["environment"].items()}
    return programs.Program(**{**entry, "ready": ready, "environment": environment})


def environment_problems(params: dict[str, Any]) -> list[str]:
    return [
        f"programs[{index}].environment.{name}: {value!r} is neither text nor a number; quote it as it is meant"
        for index, entry in enumerate(params["programs"])
        for name, value in entry["environment"].items()
        if isinstance(value, bool) or not isinstance(value, (str, int, float))
    ]


def only_problems(params: dict[str, Any]) -> list[str]:
    if params["only"] is None:
        return []
    if params["state"] != "restarted":
        return [f"only: has a meaning with state=restarted, not with state={params['state']}; leave it out"]
    known = [entry["name"] for entry in params["programs"]]
    return [
        f"only: {name!r} is not in programs (known: {', '.join(sorted(known))})"
        for name in params["only"]
        if name not in known
    ]


def run(lifecycle: Lifecycle, module: AnsibleModule) -> None:
    check = module.check_mode
    if module.params["state"] == "started":
        lifecycle.start(check)
    elif module.params["state"] == "restarted":
        lifecycle.restart(module.params["only"], check)
    elif module.params["state"] == "pruned":
        lifecycle.prune(check)
    else:
        lifecycle.shutdown(check)


def result(lifecycle: Lifecycle, module: AnsibleModule) -> dict[str, Any]:
    """What the user sees of the report."""
    report = lifecycle.report
    answer: dict[str, Any] = {
        "changed": report.changed,
        "started": report.started,
        "restarted": report.restarted,
        "stopped": report.stopped,
        "undrained": report.undrained,
        "pending_restart": report.pending_restart,
        "pending_stop": report.pending_stop,
    }
    if report.before != report.after:
        path = module.params["programs_file"]
        answer["diff"] = {
            "before_header": path,
            "after_header": path,
            "before": programs.masked(report.before),
            "after": programs.masked(report.after),
        }
    return answer


if __name__ == "__main__":
    main()
