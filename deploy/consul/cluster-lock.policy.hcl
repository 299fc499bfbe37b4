# All that the lock needs, and no more. Keys: `prefix` of the bot's config.yaml; change both together.
key_prefix "cluster-lock/" {
  policy = "write"
}

# A session belongs to the node of the agent that it is asked of: here to one of the servers. With `session_node` in the
# bot's config.yaml that one node is enough:
#   session "cluster-lock" { policy = "write" }
session_prefix "" {
  policy = "write"
}
