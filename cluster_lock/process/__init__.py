"""For any program that runs for long: started once per host, stopped in order.

from cluster_lock.process import InstanceLock, ShutdownManager
"""

from .bot_lock import BotLock, force_release_lock
from .instance_lock import InstanceInfo, InstanceLock
from .shutdown import ShutdownManager

__all__ = ["BotLock", "InstanceInfo", "InstanceLock", "ShutdownManager", "force_release_lock"]
