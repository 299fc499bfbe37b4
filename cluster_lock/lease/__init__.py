"""One lease, and what must stop with it.

The watchdog renews the lease and knows its deadline. The guard is a thread that ends the process when the deadline has
passed and work still runs, and the kernel timer does so if the thread cannot. `threads` knows the work that was put
into threads. For `session`, `election` and `keeper`.
"""
