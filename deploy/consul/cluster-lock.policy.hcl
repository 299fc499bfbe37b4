# All that cluster-lock needs, and no more. Keys: `prefix` of config.yaml; change both together.
key_prefix "cluster-lock/" {
  policy = "write"
}

# A session belongs to the node of the agent that it is asked of. To narrow it down, name those nodes:
#   session "node-1" { policy = "write" }
session_prefix "" {
  policy = "write"
}
