"""For any program that runs for long: started once per host, stopped in order.

from cluster_lock.process import InstanceLock, ShutdownManager
"""

from .instance_lock import InstanceInfo, InstanceLock
from .shutdown import ShutdownManager

__all__ = ["InstanceInfo", "InstanceLock", "ShutdownManager"]
