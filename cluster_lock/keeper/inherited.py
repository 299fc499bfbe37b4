"""The pipe that a keeper left its worker."""

from __future__ import annotations

import os
import socket

from cluster_lock.errors import ConfigError

from .names import FD


def inherited_pipe() -> socket.socket:
    """The pipe whose number stands in the environment; from now on it stands there no more, and what this process
    starts does not get it. Raises ConfigError if it is none."""
    text = os.environ.pop(FD)
    try:
        pipe = socket.socket(fileno=int(text))
    except (ValueError, OverflowError) as error:
        raise no_keeper(text, "that is no number of a pipe") from error
    except OSError as error:
        raise no_keeper(text, error.strerror or "it cannot be used") from error
    if pipe.family != socket.AF_UNIX or pipe.type != socket.SOCK_STREAM:
        pipe.detach()
        raise no_keeper(text, "a socket of another kind")
    pipe.set_inheritable(False)
    return pipe


def no_keeper(number: object, why: str) -> ConfigError:
    """There is no keeper at the other end of the pipe with this number."""
    what = f"{FD}={str(number)[:20]}: no pipe from a keeper ({why})"
    return ConfigError([f"{what}. Only a keeper sets this variable: unset it to lead without one."])
