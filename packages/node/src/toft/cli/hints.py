"""What to do about an error that does not say so itself: by its code, else by the room it comes from."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from toft.kernel.errors import NodeError

ANYTHING = "toft doctor looks at the machine and says what is wrong."

_READ_ONLY = "A plugin writes to TOFT_DATA_DIR and /tmp; toft run NAME --writable DIR grants it more."

BY_CODE: Mapping[str, str] = {
    "demo": "toft why SEQUENCE tells what became of the graph; toft logs what the daemon said.",
    "access": "toft why-denied ACTION KIND says which rule refuses, and which scope would do.",
    "bench": "The other figures still count.",
    "call": "toft plugin show NAME lists the actions and what they take.",
    "call.cancelled": "Run it again when you want the result.",
    "call.timeout": "Give it more time with --timeout, or less to do at once.",
    "central": "toft central audit tells what was done; docs/how-to/run-a-central.md.",
    "central.key_of_another_tenant": "Give that machine a key of its own: toft leave, then toft join.",
    "central.key_taken": "Make another key; nobody else may have the same.",
    "credential_refused": "The node asks for another by its key; a new machine joins: toft join.",
    "join_refused": "The central's audit log says why; toft central token create.",
    "no_document": "toft central document save FILE --publish",
    "report": "docs/how-to/run-a-central.md says what a node reports.",
    "too_many_requests": "Wait as long as Retry-After says.",
    "command": "Run it again; toft --verbose shows each step.",
    "config": "toft plugin config NAME shows the settings and what they may be.",
    "control": "toft status tells how the node stands with its central; it goes on asking by itself.",
    "conflict": "toft plugin list shows what is there.",
    "daemon": "toft status and toft logs show what the daemon is doing.",
    "document": "docs/reference/document.md says what may stand where; toft config validate FILE.",
    "environment": "toft doctor looks at the machine; toft --verbose shows each step.",
    "environment.build_failed": "Read the build's last lines; another --python may have a ready wheel.",
    "environment.busy": "Try again in a moment.",
    "environment.disk_full": "Free some space; toft env gc removes environments that nothing uses.",
    "environment.download": "Check the network, or name directories of wheels in the setting `wheelhouses`.",
    "environment.hash_mismatch": "Fetch it again; when it stays, the package has changed: lock anew.",
    "environment.no_interpreter": "Install such a Python, or name its directory in `interpreters`.",
    "environment.offline_missing": "Run it once online, or put the wheels into a directory of `wheelhouses`.",
    "environment.unsatisfiable": "Loosen one of the requirements that are named, or choose another --python.",
    "generation": "toft config show tells how the documents of this node stand.",
    "graph": "docs/reference/graph-files.md says what a graph may be; nothing of it was stored.",
    "instance": "toft plugin logs NAME shows the last thing it printed.",
    "instance.busy": "Wait for its calls to end, or load another instance.",
    "instance.options": "toft plugin options NAME shows the options and what they are now.",
    "instance.disabled": "toft plugin enable NAME",
    "integrity": "toft doctor looks at the home and says what is wrong.",
    "job": "toft job list shows what there is.",
    "join": "docs/how-to/join-a-node.md tells how a node joins.",
    "manifest": "toft plugin validate FILE names every problem.",
    "membership": "toft join URL TOKEN joins again; toft leave gives the node back to nobody.",
    "message": "What answers there may be no central, or one of another version; toft --version.",
    "name": "Choose a name of a-z, 0-9, - and _, such as my-plugin.",
    "node": ANYTHING,
    "not_found": "toft plugin list shows what is there.",
    "plugin": "toft plugin logs NAME shows what the plugin printed.",
    "plugin.input": "The plugin did not accept its input; toft plugin show NAME lists what it takes.",
    "plugin.resource": "Free what is named, or give the plugin less to do at once.",
    "plugin.transient": "The plugin says that the same call may work later.",
    "plugins_yaml": "toft plugin validate FILE names every problem.",
    "process": "toft doctor looks at the machine and says what is wrong.",
    "refused": "toft doctor says what this machine allows.",
    "remote": "docs/how-to/use-a-node-elsewhere.md tells what can be wrong between two machines.",
    "request": "toft --help",
    "result": "A plugin may return numbers, text, bytes, dates, lists, dictionaries and arrays.",
    "secret": "toft secret --help",
    "sequence": "toft sequence show ID lists its steps and how each of them stands.",
    "sequence.reference": "toft job show ID shows what the step before gave; mend the path in the graph.",
    "service": "toft service install --print shows the unit; toft up --detach does without systemd.",
    "session": "Connect again: toft.connect().",
    "settings": "Mend the file or the variable that is named; TOFT_SETTINGS says which file is read.",
    "signature": "docs/how-to/sign-documents.md tells who has to sign what, and with which keys.",
    "source": "Give a directory with a pyproject.toml, a wheel, or a requirement such as name==1.2.",
    "store": "toft doctor looks at the home and says what is wrong.",
    "store.locked": "Wait for the other toft to end.",
    "unavailable": "Try again in a moment.",
    "value": "Send numbers, text, bytes, dates, lists, dictionaries or arrays.",
    "value.damaged": "toft doctor looks at the home and says what is wrong.",
    "value.path": "toft job show ID shows what the step before gave.",
    "wire": "toft plugin logs NAME shows what the plugin printed.",
    "worker": "toft plugin logs NAME shows the last thing the worker printed.",
}


AT_CENTRAL: Mapping[str, str] = {
    "access.no_token": "toft central admin list",
    "access.refused": "ask whoever gives tokens for one with that scope: toft central admin create",
    "access.unauthenticated": "toft central admin create NAME --scope SCOPE makes a token, --token-file FILE "
    "shows it; the first one is in the file that toft central serve --admin-token-file named",
    "remote.gone": "toft central serve on that machine goes on where it was; one that has TLS wants https://",
    "remote.no_node": "is that the address of a central? toft central serve prints it when it is ready",
    "remote.plain": "use https:// (toft central serve --tls-cert FILE --tls-key FILE on that machine), or a "
    "tunnel to 127.0.0.1; on a network that is trusted, --insecure says so",
    "remote.token": "toft central admin create prints a token, as the first start of toft central serve did",
    "remote.token_file": "toft central admin create prints a token; put it into a file of your own",
    "remote.url": "such as https://central.example",
}
"""What to do where a central was asked, and what says what is wrong is known to nodes as well."""


def at_central(error: NodeError) -> str:
    """Return the next step for an error that came while a central was asked."""
    if error.code == "remote.no_answer" and error.details.get("reason") == "refused":
        return "on that machine: toft central serve --data DIR --listen HOST:PORT"
    return AT_CENTRAL.get(error.code, error.hint)


def find(code: str) -> str | None:
    """Return the next step for a code, or None where only `ANYTHING` is left."""
    return BY_CODE.get(code) or BY_CODE.get(code.partition(".")[0])


def of(code: str, details: Mapping[str, Any], subject: str | None = None) -> str:
    """Return the next step for an error; NAME becomes the plugin that the details or the command name."""
    hint = find(code) or ANYTHING
    if details.get("errno") in (errno.EROFS, errno.EACCES) and code.startswith("plugin."):
        hint = _READ_ONLY
    name = details.get("job") if code.startswith("job.") else None
    name = name or details.get("plugin") or details.get("instance") or details.get("name") or subject
    return hint.replace("NAME", name) if isinstance(name, str) and name else hint
