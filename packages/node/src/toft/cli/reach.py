"""Which commands go to a node on another machine, and which are about the machine they are typed on."""

from __future__ import annotations

from toft.kernel.errors import UsageError

ASK = frozenset(
    {
        *("run", "why", "top", "events", "status"),
        *(
            f"job {each}"
            for each in ("submit", "list", "show", "wait", "result", "cancel", "retry", "reorder")
        ),
        *("job logs", "job events"),
        *(f"sequence {each}" for each in ("submit", "list", "show", "wait", "cancel", "retry")),
        *(f"plugin {each}" for each in ("list", "show", "find", "config", "options", "enable", "disable")),
        *(f"plugin {each}" for each in ("add", "refresh", "regenerate", "remove", "size", "check", "logs")),
        *("secret set", "secret list", "secret rm"),
        *("env list", "env gc", "open", "why-denied"),
        *("token create", "token list", "token revoke"),
        *(f"config {each}" for each in ("show", "history", "diff", "explain", "drift")),
        *(f"config {each}" for each in ("apply", "rollback", "pin", "unpin", "ack")),
        *(f"central token {each}" for each in ("create", "list", "revoke")),
        *(f"central admin {each}" for each in ("create", "list", "revoke")),
        *(f"central tenant {each}" for each in ("create", "list")),
        *(f"central group {each}" for each in ("list", "put", "delete")),
        *(f"central document {each}" for each in ("save", "list", "show", "diff")),
        *(f"central document {each}" for each in ("publish", "payloads", "sign")),
        *(
            f"central node {each}"
            for each in ("list", "show", "diff", "logs", "metrics", "revoke", "approve")
        ),
        *(f"central node {each}" for each in ("label", "pin", "unpin", "retry")),
        *("central artifact add", "central artifact list", "central root add", "central root list"),
        *("central audit", "central status", "central fleet"),
        *(f"central rollout {each}" for each in ("create", "list", "show", "start", "pause")),
        *(f"central rollout {each}" for each in ("resume", "promote", "abort", "emergency")),
    }
)
"""Commands that ask a node, wherever it is."""

NEED_NO_NODE = frozenset(
    {
        *("plugin new", "plugin pin", "plugin validate", "config validate"),
        *(f"key {each}" for each in ("new", "show", "sign", "root new", "root sign", "root show")),
    }
)
"""Commands that work on files of their own."""


def check(command_path: str, url: str, *, is_typed: bool) -> None:
    """Refuse a command that cannot be meant for a node elsewhere; closed for one that nobody has listed.

    Args:
        command_path: Such as `toft plugin add`.
        url: Where the node is.
        is_typed: The command line says so itself, not only the environment.

    Raises:
        UsageError: It is about the machine it is typed on.
    """
    command = command_path.partition(" ")[2]
    if command in ASK or command in NEED_NO_NODE:
        return
    way = "leave out --url" if is_typed else "unset TOFT_URL, or name a --home"
    raise UsageError(
        f"toft {command} acts on the machine it is typed on, and {url} is another one",
        code="remote.local_only",
        details={"url": url, "command": command},
        hint=f"type it on that machine; for this one {way}",
    )
