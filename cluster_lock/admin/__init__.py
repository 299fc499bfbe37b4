"""What people do through the backend: look at all locks, ask a leader to step down, free a lock by hand. For `cli`."""
